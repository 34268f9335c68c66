"""The systems of one bundle: the policies that its cascade has to justify itself against. All share its sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from cascade.core.results import Predictions, Routes, TagPredictions
from cascade.core.rows import Doubles, IntArray
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import AtExit
from cascade.policies.routing import defer_all, defer_none

FULL, CASCADE, PIPELINE = "full", "cascade", "pipeline"

Model: TypeAlias = Classifier | Tagger


@dataclass(frozen=True, eq=False)
class Answered:
    """What a system answered (of a tagger a list of tags per sentence), and where.

    `tiers`: of each text or word; `None` of a system without tiers. Shape `(units,)`. `mean_layer`: after which units
    left tier 2, over those that it answered; `None` without any.
    """

    labels: Sequence[Any]
    tiers: IntArray | None = None
    mean_layer: float | None = None

    @property
    def deferred(self) -> float | None:
        """Share of the units that tier 2 answered; `None` of a system without tiers, or of no units."""
        return float((self.tiers > 1).mean()) if self.tiers is not None and len(self.tiers) else None


@dataclass(frozen=True)
class System:
    """Something that labels texts, or tags sentences, tokenisation included. `key`, `name`: for programs and readers.

    `cut`: the layer, if this is tier 2 ended there for every row (full depth included).
    """

    key: str
    name: str
    run: Callable[[Sequence[Any]], Answered]
    cut: int | None = None


def check_tiers(model: Model, least: int = 2) -> None:
    """Refuse a bundle of fewer tiers by an `OptionError`."""
    if len(model.tiers) < least:
        raise OptionError(
            f"a cascade must have {least} tiers, got {len(model.tiers)} in {model.bundle.folder}; cascade-bench peers "
            "takes any bundle"
        )


def whole(model: Model) -> Model:
    """The last tier alone at full depth."""
    return model.with_policies(model.policies.full_depth())


def answered(model: Model, items: Sequence[Any]) -> Answered:
    """Answers of a pipeline, with their routes."""
    made = model.predict(items)
    labels = made.tags if isinstance(made, TagPredictions) else made.labels
    routes = _routes(made)
    second = routes.tier > 1
    return Answered(labels, routes.tier, float(routes.exit_layer[second].mean()) if second.any() else None)


def _routes(made: Predictions | TagPredictions) -> Routes:
    return made.routes.words if isinstance(made, TagPredictions) else made.routes


def tier1_confidence(model: Model, items: Sequence[Any]) -> Doubles:
    """Confidence of tier 1 in each text or word. Shape `(units,)`."""
    return np.asarray(_routes(model.with_router(defer_none).predict(items)).confidence, dtype=np.float64)


def systems(model: Model) -> list[System]:
    """Those of one bundle, full depth first. `model`: as the bundle configures it."""
    layers, alone = model.tier2.layers, model.with_router(defer_all)
    found = [System(FULL, "tier 2, full depth", partial(answered, whole(model)), layers[-1])]
    for layer in reversed(layers[:-1]):
        cut = partial(answered, alone.with_exit_policy(AtExit(layer)))
        found.append(System(f"cut-{layer}", f"tier 2 cut after layer {layer}", cut, layer))
    windows = "windows and " if isinstance(model, Tagger) else ""
    return [
        *found,
        System("tier1", "tier 1 alone", partial(answered, model.with_router(defer_none))),
        System("exits", "tier 2 with exits", partial(answered, alone)),
        System(CASCADE, f"cascade with {windows}exits", partial(answered, model)),
    ]
