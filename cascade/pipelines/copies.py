"""A pipeline's parts and policies, and copies of it with other ones. Copies share sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, cast

from cascade.bundle.opening import Bundle
from cascade.core.checks import is_number
from cascade.engine.cascade import Cascade
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.tier import Tier
from cascade.exceptions import OptionError
from cascade.pipelines.parts import set_policies, with_options
from cascade.pipelines.tuning import Tuned
from cascade.policies.batching import BatchingPolicy
from cascade.policies.exits import ExitPolicy, never
from cascade.policies.reading import ReadingPolicy
from cascade.policies.registry import ModelInfo
from cascade.policies.routing import Router, defer_none
from cascade.policies.settings import Policies
from cascade.text.tokenizer import Tokenizer

C = TypeVar("C", bound="Copies")


@dataclass(frozen=True, eq=False, repr=False)
class Copies:
    """What a pipeline is made of: the bundle that it came from, its tokenizer, its tiers, first to last, and policies.

    A tier may be a function (`with_tier`).
    """

    bundle: Bundle
    tokenizer: Tokenizer
    tiers: tuple[Tier, ...]
    policies: Policies

    @property
    def threads(self) -> int:
        """How many threads all tiers have together, in all copies."""
        return next(tier.executor.threads for tier in self.tiers if isinstance(tier, SingleExit | MultiExit))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the columns of `probabilities`."""
        return self.bundle.manifest.labels

    @cached_property
    def multi_label(self) -> bool:
        """Whether the labels are independent yes/no decisions."""
        return self.bundle.manifest.infos[0].multi_label

    @property
    def regression(self) -> bool:
        """Whether the answer is a number, which `probabilities` hold."""
        return self.bundle.manifest.infos[0].regression

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """What policies can know of each tier."""
        info = self.bundle.manifest.infos[0]
        return tuple(replace(info, layers=tuple(getattr(tier, "layers", ()))) for tier in self.tiers)

    @cached_property
    def cascade(self) -> Cascade:
        """The engine, inputs in, probabilities and routes out: the first tier, behind its router those that follow."""
        own, multi_label = self.policies, self.multi_label
        *before, made = self.tiers
        if not before:  # one tier alone is the first of a cascade that defers nothing
            return Cascade(made, made, defer_none, multi_label=multi_label)
        for tier, router, blend in zip(before[::-1], own.routers[::-1], own.blend[::-1], strict=True):
            made = Cascade(tier, made, router, blend=blend, windows=own.windows, multi_label=multi_label)
        return cast(Cascade, made)

    @property
    def tier1(self) -> Any:  # of a kind that depends on the task; no union of them is of use to a caller
        """The first tier."""
        return self.tiers[0]

    @property
    def tier2(self) -> Any:
        """The second tier, of a pipeline of two."""
        return self.tiers[1]

    @property
    def router(self) -> Router:
        """What the first tier defers."""
        return self.policies.routers[0]

    @property
    def exit_policy(self) -> ExitPolicy:
        """Where units exit the last tier."""
        return self.policies.exits[-1]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.bundle.folder)!r}, {len(self.labels)} labels, {len(self.tiers)} tiers, "
            f"{self.policies!r}, max_tokens={self.max_tokens})"
        )

    def with_policies(self: C, policies: Policies) -> C:
        """A copy with these policies; if they do not fit this bundle an `OptionError` with all faults at once."""
        policies.check(self.infos)
        return replace(self, policies=policies, tiers=set_policies(self.tiers, policies))

    def with_tier(self: C, tier: Tier, *, router: Router, blend: float = 0.0) -> C:
        """A copy with one more tier behind the last, such as a `CallableTier`. It cannot be saved.

        `tier`: gives as many labels, in this order, or it is an `OptionError`; `router`: what the tier before defers to
        it; `blend`: how much the answers before count beside its own.
        """
        if len(tier.leaves) != 1 or tier.labels != len(self.labels):
            raise OptionError(
                f"a tier must be a single one with {len(self.labels)} labels, got {tier.labels} of {len(tier.leaves)} "
                "tiers; add tiers one by one, with the labels of this pipeline"
            )
        own = self.policies
        layers = tuple(getattr(tier, "layers", ()))
        policies = replace(
            own,
            routers=(*own.routers, router),
            exits=(*own.exits, getattr(tier, "exit_policy", never)),
            temperatures=(*own.temperatures, (1.0,) * max(len(layers), 1)),
            blend=(*own.blend, blend),
        )
        return replace(self, tiers=(*self.tiers, tier)).with_policies(policies)

    def with_router(self: C, router: Router, *, tier: int = 1) -> C:
        """A copy in which a tier, numbered from 1, defers what this router says.

        `router`: any of `cascade.policies`, or a function of a `RoutingState`; an `OptionError` if it does not fit.
        """
        return self.with_policies(replace(self.policies, routers=changed(self.policies.routers, router, tier)))

    def with_exit_policy(self: C, exit_policy: ExitPolicy, *, tier: int | None = None) -> C:
        """A copy in which units exit a tier, numbered from 1, the last if left out, where this policy says.

        `exit_policy`: any of `cascade.policies`, or a function of an `ExitState`; an `OptionError` if it does not fit.
        """
        number = len(self.tiers) if tier is None else tier
        return self.with_policies(replace(self.policies, exits=changed(self.policies.exits, exit_policy, number)))

    def with_blend(self: C, blend: float, *, tier: int = 1) -> C:
        """A copy in which a tier's answer counts so much beside that of each exit of the next: 1 as much, 0 not at all.

        Where both were asked, log-probabilities are added up, the first one's times `blend`, in [0, 1]. The two err
        differently, so the sum is right more often, and surer at early exits. `tier`: whose answer counts, from 1.
        """
        return self.with_policies(replace(self.policies, blend=changed(self.policies.blend, blend, tier)))

    def with_temperatures(self: C, *temperatures: float | Sequence[float]) -> C:
        """A copy that divides logits by these, above 0 and finite: for each tier a number, or one number per exit."""
        own = tuple((one,) if is_number(one) else tuple(one) for one in temperatures)  # type: ignore[arg-type]
        return self.with_policies(replace(self.policies, temperatures=own))

    def with_reading(self: C, policy: ReadingPolicy | None) -> C:
        """A copy whose tiers with exits read long texts row by row until this says that it is enough; `None`: whole.

        `cascade.policies.InOrder`, or a function of a `ReadingState`. A tagger's sentences are read whole: an
        `OptionError`.
        """
        return self.with_policies(replace(self.policies, reading=policy))

    def with_batching(self: C, batching: BatchingPolicy) -> C:
        """A copy in which all tiers cut rows into batches like this: any of `cascade.policies`, or a function."""
        if not callable(batching):
            raise OptionError(f"the batching policy must be callable, got {batching!r}; use one of cascade.policies")
        return replace(self, tiers=tuple(with_options(tier, {"batching": batching}) for tier in self.tiers))

    def with_truncation(self: C, truncation: bool = True) -> C:
        """A copy that reads the first tokens alone of a text that is too long, as transformers' `truncation=True`.

        Otherwise such a text is read in windows. Sentences of words always are: each word has a tag.
        """
        if self.tokenizer.truncation == truncation:
            return self
        return self.with_tokenizers(lambda own: own.with_truncation(truncation))

    def with_tokenizers(self: C, change: Callable[[Tokenizer], Tokenizer]) -> C:
        """A copy whose texts are encoded by what this makes of its tokenizers; those of words stay."""
        tiers = [
            with_options(tier, {"encoder": change(own)}) if isinstance(own, Tokenizer) else tier
            for tier, own in ((tier, getattr(tier, "encoder", None)) for tier in self.tiers)
        ]
        return replace(self, tokenizer=change(self.tokenizer), tiers=tuple(tiers))

    @property
    def max_tokens(self) -> tuple[int | None, ...]:
        """The token budget of each tier's batches; `None` where its batching policy has none."""
        return tuple(getattr(getattr(tier, "batching", None), "max_tokens", None) for tier in self.tiers)

    def with_max_tokens(self: C, *max_tokens: int) -> C:
        """A copy with these token budgets, one per tier, which change how long an answer takes, not the answer.

        An `OptionError`: they are not one per tier, one is below 1, or a tier's batching policy has no budget.
        """
        if len(max_tokens) != len(self.tiers) or None in self.max_tokens:
            raise OptionError(
                f"max_tokens must be one per tier that has a token budget, got {max_tokens} for {self.max_tokens}; "
                "leave batching out, or give TokenBudget"
            )
        pairs: Any = zip(self.tiers, max_tokens, strict=True)  # of dataclasses, as they have a budget
        tiers = [replace(tier, batching=replace(tier.batching, max_tokens=one)) for tier, one in pairs]
        return replace(self, tiers=tuple(tiers))

    def with_tuned(self: C) -> C:
        """A copy with the token budgets that `cascade tune --write` found on this host; itself where there are none."""
        found = Tuned.read(self.bundle, threads=self.threads)
        if found is None or len(found.max_tokens) != len(self.tiers):
            return self
        return self.with_max_tokens(*found.max_tokens)

    def __copy__(self: C) -> C:
        return replace(self)  # sessions are shared; without this method they would be loaded again


def changed(given: tuple[Any, ...], value: object, tier: int) -> tuple[Any, ...]:
    """One value per tier with another one for this tier, counted from 1."""
    if not 1 <= tier <= len(given):
        raise OptionError(f"tier must be a number from 1 to {len(given)}, got {tier}; tiers are counted from 1")
    return (*given[: tier - 1], value, *given[tier:])
