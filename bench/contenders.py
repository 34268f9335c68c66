"""Who runs: one classifier under the policies that its cascade has to justify itself against. All share its sessions.

full       tier 2 alone at full depth: what everything is compared with
cut-N      tier 2 cut after layer N for everyone (truncation): the baseline of an adaptive policy
tier1      tier 1 alone
exits      tier 2 alone with the bundle's exit policy
cascade    as the bundle is configured
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cascade.pipelines.classifier import Classifier
from cascade.policies.exits import AtExit, never
from cascade.policies.routing import defer_all, defer_none
from cascade.text.tokenizer import Text

__all__ = ["Answered", "Contender", "contenders", "runner"]

FULL, CASCADE, PIPELINE = "full", "cascade", "pipeline"


@dataclass(frozen=True)
class Answered:
    """What a contender answered, and where.

    Attributes:
        labels: one per text; of a tagger a list of tags per sentence.
        deferred: share of the texts (or words) that tier 2 answered; `None` where that means nothing.
        mean_layer: at which tier 2 was left, over the texts (or words) that it answered; `None` without any.
    """

    labels: Sequence[Any]
    deferred: float | None = None
    mean_layer: float | None = None


@dataclass(frozen=True)
class Contender:
    """Something that labels texts, or tags sentences.

    Attributes:
        key: for programs.
        name: for readers.
        run: answers everything; tokenisation is part of it.
        cut: the layer, if this is tier 2 ended there for everyone (full depth included).
    """

    key: str
    name: str
    run: Callable[[Sequence[Any]], Answered]
    cut: int | None = None


def contenders(classifier: Classifier) -> list[Contender]:
    """Those of one bundle. `classifier`: as the bundle configures it."""
    layers = classifier.tier2.layers
    alone = classifier.with_router(defer_all)
    found = [Contender(FULL, "tier 2, full depth", runner(alone.with_exit_policy(never)), cut=layers[-1])]
    found += [
        Contender(
            f"cut-{layer}", f"tier 2 cut after layer {layer}", runner(alone.with_exit_policy(AtExit(layer))), layer
        )
        for layer in reversed(layers[:-1])
    ]
    return [
        *found,
        Contender("tier1", "tier 1 alone", runner(classifier.with_router(defer_none))),
        Contender("exits", "tier 2 with exits", runner(alone)),
        Contender(CASCADE, "cascade with exits", runner(classifier)),
    ]


def runner(classifier: Classifier) -> Callable[[Sequence[Text]], Answered]:
    """Labels texts, and says where they were answered."""

    def run(texts: Sequence[Text]) -> Answered:
        made = classifier.predict(texts)
        second = made.routes.tier == 2
        mean = float(made.routes.exit_layer[second].mean()) if second.any() else None
        return Answered(made.labels, float(second.mean()) if len(second) else None, mean)

    return run
