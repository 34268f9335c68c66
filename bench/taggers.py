"""Who runs of a tagger: one bundle under the policies that its cascade has to justify itself against.

full       tier 2 alone at full depth: what everything is compared with
cut-N      tier 2 cut after layer N for everyone (truncation): the baseline of an adaptive policy
tier1      tier 1 alone
exits      tier 2 alone with the bundle's exit policy, or one of its own
sentence   tier 2 alone, words of a sentence leaving together (SENTEE), at least as accurate
by-token   tier 2 alone, a fixed exit for each token id (HashEE), at least as accurate
cascade    as the bundle is configured: windows between the tiers, and exits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import AnyOf, AtExit, ExitPolicy, never
from cascade.policies.routing import defer_all, defer_none
from cascade.policies.unit_exits import TokenExit
from cascade_bench.contenders import CASCADE, FULL, Answered, Contender

__all__ = ["BY_TOKEN", "EXITS", "SENTENCE", "runner", "tag_contenders"]

EXITS, SENTENCE, BY_TOKEN = "exits", "sentence", "by-token"
NAMES = {SENTENCE: "tier 2 with sentence exit", BY_TOKEN: "tier 2 with exits fixed per token id"}


def tag_contenders(
    tagger: Tagger, rivals: Mapping[str, ExitPolicy] | None = None, *, exit_policy: ExitPolicy | None = None
) -> list[Contender]:
    """Those of one bundle.

    Args:
        tagger: as the bundle configures it.
        rivals: exit policies that run in tier 2 alone, by key: `sentence`, `by-token`.
        exit_policy: of the exits in tier 2 alone; the bundle's if left out, which is for words that tier 1 deferred.
    """
    layers = tagger.tier2.layers
    alone = tagger.with_router(defer_all)
    if exit_policy is not None:
        alone = alone.with_exit_policy(exit_policy)
    found = [Contender(FULL, "tier 2, full depth", runner(alone.with_exit_policy(never)), cut=layers[-1])]
    found += [
        Contender(
            f"cut-{layer}", f"tier 2 cut after layer {layer}", runner(alone.with_exit_policy(AtExit(layer))), layer
        )
        for layer in reversed(layers[:-1])
    ]
    return [
        *found,
        Contender("tier1", "tier 1 alone", runner(tagger.with_router(defer_none))),
        Contender(EXITS, f"tier 2 with {_kind(alone.exit_policy)}", runner(alone)),
        *(
            Contender(key, NAMES.get(key, key), runner(alone.with_exit_policy(policy)))
            for key, policy in (rivals or {}).items()
        ),
        Contender(CASCADE, "cascade with windows and exits", runner(tagger)),
    ]


def runner(tagger: Tagger) -> Callable[[Sequence[list[str]]], Answered]:
    """Tags sentences, and says where words were answered."""

    def run(sentences: Sequence[list[str]]) -> Answered:
        made = tagger.predict(sentences)
        routes = made.routes.words
        second = routes.tier == 2
        mean = float(routes.exit_layer[second].mean()) if second.any() else None
        return Answered(made.tags, float(second.mean()) if len(second) else None, mean)

    return run


def _kind(policy: ExitPolicy) -> str:
    parts = policy.policies if isinstance(policy, AnyOf) else (policy,)
    return "token exit" if any(isinstance(part, TokenExit) for part in parts) else "exits"
