"""The systems of one bundle: the policies that its cascade has to justify itself against. All share its sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, TypeAlias

from cascade.core.rows import IntArray
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import AtExit, never
from cascade.policies.routing import defer_all, defer_none

FULL, CASCADE, TRANSFORMERS = "full", "cascade", "transformers"

Model: TypeAlias = Classifier | Tagger


@dataclass(frozen=True, eq=False)
class Answered:
    """What a system answered (of a tagger a list of tags per sentence), and where.

    `tiers`: of each text or word; `None` of a system without tiers. Shape `(units,)`. `mean_layer`: after which units
    left the last tier, over those that it answered; `None` without any.
    """

    labels: Sequence[Any]
    tiers: IntArray | None = None
    mean_layer: float | None = None

    @property
    def deferred(self) -> float | None:
        """Share of the units that a tier after the first answered; `None` of a system without tiers, or of no units."""
        return float((self.tiers > 1).mean()) if self.tiers is not None and len(self.tiers) else None


@dataclass(frozen=True)
class System:
    """Something that labels texts, or tags sentences, tokenisation included. `key`, `name`: for programs and readers.

    `cut`: the layer, if this is the last tier ended there for every row (full depth included); `tier`: its number, if
    this is one tier alone at full depth.
    """

    key: str
    name: str
    run: Callable[[Sequence[Any]], Answered]
    cut: int | None = None
    tier: int | None = None


def whole(model: Model) -> Model:
    """The last tier alone at full depth."""
    return model.with_policies(model.policies.full_depth())


def answered(model: Model, items: Sequence[Any]) -> Answered:
    """Answers of a pipeline, with their routes."""
    made: Any = model.predict(items)
    labels, routes = (made.tags, made.routes.words) if isinstance(model, Tagger) else (made.labels, made.routes)
    last = routes.exit_layer[routes.tier == len(model.tiers)]
    return Answered(labels, routes.tier, float(last.mean()) if len(last) else None)


def only(model: Model, *tiers: int) -> Model:
    """The same policies with these tiers alone, numbered from 1."""
    own = model.policies.routers
    last, routers = max(tiers), [router if place in tiers else defer_all for place, router in enumerate(own, 1)]
    if last <= len(routers):
        routers[last - 1] = defer_none
    return model.with_policies(replace(model.policies, routers=tuple(routers)))


def alone(model: Model, tier: int) -> Model:
    """One tier at full depth."""
    run = only(model, tier)
    return run.with_policies(replace(run.policies, exits=(never,) * len(model.tiers)))


def systems(model: Model) -> list[System]:
    """Those of one bundle, full depth first: the last tier cut, every tier alone, of more than two tiers every pair.

    `model`: as the bundle configures it.
    """
    count, layers, exits = len(model.tiers), model.infos[-1].layers, only(model, len(model.tiers))
    full = partial(answered, whole(model))
    found = [System(FULL, f"tier {count}, full depth", full, layers[-1] if layers else 0, count)]
    for layer in reversed(layers[:-1]):
        cut = partial(answered, exits.with_exit_policy(AtExit(layer)))
        found.append(System(f"cut-{layer}", f"tier {count} cut after layer {layer}", cut, layer))
    for tier in range(1, count):
        one = partial(answered, alone(model, tier))
        found.append(System(f"tier{tier}", f"tier {tier} alone", one, tier=tier))
    for pair in combinations(range(1, count + 1), 2) if count > 2 else ():
        both = partial(answered, only(model, *pair))
        found.append(System("tiers-{}-{}".format(*pair), "tiers {} and {}".format(*pair), both))
    windows = "windows and " if isinstance(model, Tagger) else ""
    return [
        *found,
        System("exits", f"tier {count} with exits", partial(answered, exits)),
        System(CASCADE, f"cascade with {windows}exits", partial(answered, model)),
    ]
