"""What `Classifier` and `Tagger` share: a bundle, its tiers, policies that can be exchanged, saving and pushing."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cascade.bundle import hub
from cascade.bundle.certificate import Certificate
from cascade.bundle.manifest import MANIFEST_FILE, TAGGING
from cascade.bundle.opening import Bundle
from cascade.bundle.writing import copy_bundle
from cascade.core.checks import is_number
from cascade.engine.cascade import Cascade
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.tier import Tier
from cascade.exceptions import BundleError, OptionError, TaskError
from cascade.pipelines.parts import Parts, cascade_of, find, graphs_of, set_policies
from cascade.pipelines.tuning import Tuned
from cascade.policies.batching import BatchingPolicy
from cascade.policies.decoding import Decoder
from cascade.policies.exits import ExitPolicy, never
from cascade.policies.registry import ModelInfo
from cascade.policies.routing import Budget, Router
from cascade.policies.settings import Policies
from cascade.policies.windows import WindowPolicy
from cascade.runtime.backend import SessionOptions
from cascade.text.tokenizer import Tokenizer

P = TypeVar("P", bound="Pipeline")

_OPTIONS = ("batching", "pool_from", "together")
"""What a tier has beside its bundle and policies."""


@dataclass(frozen=True, eq=False, repr=False)
class Pipeline:
    """A bundle, ready to answer.

    Nothing that a call does changes it; `with_router` and the like give copies that share its sessions. Pickles hold
    the bundle's folder, the policies and the options: reading one loads and verifies the bundle again.

    Attributes:
        bundle: where it came from.
        tokenizer: texts to rows.
        tiers: the models, first to last; a tier may be a function (`with_tier`).
        policies: how they are used.
    """

    task: ClassVar[str]

    bundle: Bundle
    tokenizer: Tokenizer
    tiers: tuple[Tier, ...]
    policies: Policies

    @classmethod
    def from_pretrained(  # noqa: PYI019  # typing has Self from 3.11 on
        cls: type[P],
        path_or_id: str | Path,
        *,
        threads: int | None = None,
        router: Router | None = None,
        exit_policy: ExitPolicy | None = None,
        windows: WindowPolicy | None = None,
        decoding: Decoder | None = None,
        batching: BatchingPolicy | None = None,
        tuned: bool = True,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> P:
        """Load a bundle. Its files are verified first and nothing in it is ever unpickled.

        Args:
            path_or_id: a folder, or a repository on the Hugging Face Hub (`owner/name`).
            threads: threads for all tiers together; what this process may use if left out.
            router: of the first tier, instead of the bundle's.
            exit_policy: of the last tier, instead of the bundle's.
            windows: instead of the bundle's; taggers only.
            decoding: instead of the bundle's; taggers only.
            batching: for all tiers; if left out `TokenBudget()` for tiers without exits, else `batching.for_tier2`.
            tuned: whether these take the token budgets of `cascade tune --write`, where there are some for this host.
            revision: branch, tag or commit on the Hub.
            cache_dir: where downloads are kept.
            token: for closed repositories.
            local_files_only: download nothing.

        Raises:
            BundleNotFoundError: there is no such folder or repository.
            BundleError: it is incomplete, altered, of another format or for another task (`TaskError`).
            OptionError: an impossible option.
        """
        options = SessionOptions(threads=threads)
        bundle = find(
            path_or_id, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        found = bundle.manifest.task
        if found != cls.task:
            other = "Tagger" if found == TAGGING else "Classifier"
            raise TaskError(
                f"{cls.__name__} must have a bundle for {cls.task}, but {path_or_id} is for {found}; "
                f"load it with {other}.from_pretrained or cascade.load"
            )
        own = bundle.manifest.policies
        policies = own.with_(
            routers=None if router is None else _changed(own.routers, router, 1),
            exits=None if exit_policy is None else _changed(own.exits, exit_policy, len(own.exits)),
            windows=windows,
            decoding=decoding,
        )
        return cls.of(bundle, options, policies=policies, batching=batching, tuned=tuned)

    @classmethod
    def of(  # noqa: PYI019
        cls: type[P],
        bundle: Bundle,
        options: SessionOptions,
        *,
        policies: Policies | None = None,
        batching: BatchingPolicy | None = None,
        tuned: bool = True,
    ) -> P:
        """Load a bundle that was found.

        Raises:
            BundleError: a file was altered or cannot be read.
            OptionError: the policies do not fit the bundle.
        """
        policies = policies or bundle.manifest.policies
        policies.check(bundle.manifest.infos)
        parts = Parts.of(bundle, options)
        pipeline = cls(bundle, parts.tokenizer, set_policies(parts.tiers, policies), policies)
        if batching is not None:
            return pipeline.with_batching(batching)
        return pipeline.with_tuned() if tuned else pipeline

    @property
    def threads(self) -> int:
        """How many threads all tiers have together, in all copies."""
        return next(tier.executor.threads for tier in self.tiers if isinstance(tier, SingleExit | MultiExit))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the columns of `probabilities`."""
        return self.bundle.manifest.labels

    @property
    def multi_label(self) -> bool:
        """Whether the labels are independent yes/no decisions."""
        return self.bundle.manifest.infos[0].multi_label

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """What policies can know of each tier."""
        info = self.bundle.manifest.infos[0]
        return tuple(replace(info, layers=tuple(getattr(tier, "layers", ()))) for tier in self.tiers)

    @property
    def cascade(self) -> Cascade:
        """The engine: inputs in, probabilities and routes out."""
        return cascade_of(self.tiers, self.policies, multi_label=self.multi_label)

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

    @property
    def blend(self) -> float:
        """How much the first tier's answer counts beside the second's where both were asked."""
        return self.policies.blend[0]

    @property
    def certificate(self) -> Certificate | None:
        """What is certified of this copy: nothing unless it has the very policies that were tested."""
        stored = self.bundle.manifest.certificate
        return stored if stored is not None and stored.policies == self.policies else None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.bundle.folder)!r}, {len(self.labels)} labels, {len(self.tiers)} tiers, "
            f"{self.policies!r}, max_tokens={self.max_tokens})"
        )

    def safer(self: P) -> P | None:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy that gives away less, for when the certified claim no longer holds.

        It has the policies that were tested just before these; where there are none, or these were not tested, the
        last tier answers everything at full depth. There is nothing safer than that, and the answer is `None`.
        """
        if self.policies == self.policies.full_depth():
            return None
        stored = self.bundle.manifest.certificate
        tested = () if stored is None else (*stored.safer, stored.policies)
        place = tested.index(self.policies) if self.policies in tested else 0
        return self.with_policies(tested[place - 1] if place else self.policies.full_depth())

    def with_policies(self: P, policies: Policies) -> P:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy with these policies. It shares the sessions of this one.

        Raises:
            OptionError: they do not fit this bundle; all faults at once.
        """
        policies.check(self.infos)
        return replace(self, policies=policies, tiers=set_policies(self.tiers, policies))

    def with_tier(self: P, tier: Tier, *, router: Router, blend: float = 0.0) -> P:  # noqa: PYI019
        """A copy with one more tier behind the last, such as a `CallableTier`. It cannot be saved.

        Args:
            tier: gives as many labels, in this order.
            router: what the tier before defers to it.
            blend: how much the answers before count beside its own.

        Raises:
            OptionError: it has another number of labels, or the router does not fit.
        """
        if tier.depth != 1 or tier.labels != len(self.labels):
            raise OptionError(
                f"a tier must be a single one with {len(self.labels)} labels, got {tier.labels} of {tier.depth} tiers; "
                "add tiers one by one, with the labels of this pipeline"
            )
        own = self.policies
        layers = tuple(getattr(tier, "layers", ()))
        policies = Policies(
            routers=(*own.routers, router),
            exits=(*own.exits, getattr(tier, "exit_policy", never)),
            temperatures=(*own.temperatures, (1.0,) * max(len(layers), 1)),
            blend=(*own.blend, blend),
            windows=own.windows,
            decoding=own.decoding,
        )
        return replace(self, tiers=(*self.tiers, tier)).with_policies(policies)

    def with_router(self: P, router: Router, *, tier: int = 1) -> P:  # noqa: PYI019
        """A copy in which a tier defers what this router says: any of `cascade.policies`, or a function.

        Args:
            router: called with a `RoutingState`.
            tier: number of the tier that defers, from 1.

        Raises:
            OptionError: the router does not fit this bundle.
        """
        return self.with_policies(self.policies.with_(routers=_changed(self.policies.routers, router, tier)))

    def with_exit_policy(self: P, exit_policy: ExitPolicy, *, tier: int | None = None) -> P:  # noqa: PYI019
        """A copy in which units exit a tier where this policy says: any of `cascade.policies`, or a function.

        Args:
            exit_policy: called with an `ExitState`.
            tier: number of the tier, from 1; the last if left out.

        Raises:
            OptionError: the policy does not fit the exits of this bundle.
        """
        number = len(self.tiers) if tier is None else tier
        return self.with_policies(self.policies.with_(exits=_changed(self.policies.exits, exit_policy, number)))

    def with_blend(self: P, blend: float, *, tier: int = 1) -> P:  # noqa: PYI019
        """A copy in which a tier's answer counts so much beside that of each exit of the next: 1 as much, 0 not at all.

        Where both were asked, log-probabilities are added up, the first one's times `blend`. The two err differently,
        so the sum is right more often, and surer at early exits.

        Args:
            blend: in [0, 1].
            tier: number of the tier whose answer counts, from 1.
        """
        return self.with_policies(self.policies.with_(blend=_changed(self.policies.blend, blend, tier)))

    def with_temperatures(self: P, *temperatures: float | Sequence[float]) -> P:  # noqa: PYI019
        """A copy that divides logits by these: for each tier a number, or one number per exit.

        Raises:
            OptionError: one is not above 0 and finite, or they are not one per exit.
        """
        own = tuple((one,) if is_number(one) else tuple(one) for one in temperatures)  # type: ignore[arg-type]
        return self.with_policies(self.policies.with_(temperatures=own))

    def with_batching(self: P, batching: BatchingPolicy) -> P:  # noqa: PYI019
        """A copy in which all tiers cut rows into batches like this: any of `cascade.policies`, or a function."""
        if not callable(batching):
            raise OptionError(f"the batching policy must be callable, got {batching!r}; use one of cascade.policies")
        return replace(self, tiers=tuple(_with(tier, batching=batching) for tier in self.tiers))

    @property
    def max_tokens(self) -> tuple[int | None, ...]:
        """The token budget of each tier's batches; `None` where its batching policy has none."""
        return tuple(getattr(getattr(tier, "batching", None), "max_tokens", None) for tier in self.tiers)

    def with_max_tokens(self: P, *max_tokens: int) -> P:  # noqa: PYI019
        """A copy with these token budgets, one per tier. They change how long an answer takes, not the answer.

        Raises:
            OptionError: they are not one per tier, one is below 1, or a tier's batching policy has no budget.
        """
        if len(max_tokens) != len(self.tiers) or None in self.max_tokens:
            raise OptionError(
                f"max_tokens must be one per tier that has a token budget, got {max_tokens} for {self.max_tokens}; "
                "leave batching out, or give TokenBudget"
            )
        given: list[Any] = list(self.tiers)  # with batching policies that are dataclasses, as they have a budget
        budgets = [replace(tier.batching, max_tokens=one) for tier, one in zip(given, max_tokens, strict=True)]
        tiers = tuple(_with(tier, batching=one) for tier, one in zip(self.tiers, budgets, strict=True))
        return replace(self, tiers=tiers)

    def with_tuned(self: P) -> P:  # noqa: PYI019
        """A copy with the token budgets that `cascade tune --write` found on this host; itself where there are none."""
        found = Tuned.read(self.bundle, threads=self.threads)
        if found is None or len(found.max_tokens) != len(self.tiers):
            return self
        return self.with_max_tokens(*found.max_tokens)

    def save_pretrained(
        self, folder: str | Path, *, certificate: Certificate | None = None, overwrite: bool = False
    ) -> None:
        """Write the bundle with the policies of this copy as its defaults, whole or not at all.

        Args:
            folder: a folder to make.
            certificate: about this copy. If left out, the bundle's own, as long as it is about this copy.
            overwrite: replace a bundle that is there.

        Raises:
            OptionError: the folder is there already, a policy or a tier is a function of your own, which has no written
                form, or the certificate is about something else.
        """
        graphs_of(self.tiers)
        copy_bundle(self.bundle, folder, policies=self.policies, certificate=certificate, overwrite=overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload a cascade bundle",
        revision: str | None = None,
    ) -> str:
        """Upload the bundle with the policies of this copy as its defaults.

        Args:
            repo_id: `owner/name`; made if missing.
            private: whether a repository that is made is closed.
            token: the stored login if left out.
            commit_message: its first line.
            revision: a branch; the main branch if left out.

        Returns:
            The address of the commit.

        Raises:
            OptionError: a policy or a tier is a function of your own, which has no written form.
            BundleError: the Hub refuses.
        """
        graphs_of(self.tiers)
        with tempfile.TemporaryDirectory(prefix="cascade-") as parent:
            made = copy_bundle(self.bundle, Path(parent) / "bundle", policies=self.policies)
            return hub.upload(
                made.folder,
                [*made.manifest.files, MANIFEST_FILE],
                repo_id,
                private=private,
                token=token,
                commit_message=commit_message,
                revision=revision,
            )

    def close(self) -> None:
        """Free the graphs of this pipeline and of its copies. A later call loads and verifies them again."""
        for tier in self.tiers:
            if isinstance(tier, SingleExit | MultiExit):
                for graph in graphs_of([tier]):
                    graph.close()

    def __enter__(self: P) -> P:  # noqa: PYI019
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self: P) -> P:  # noqa: PYI019
        return replace(self)  # sessions are shared; without this method they would be loaded again

    def __reduce__(self) -> tuple[Any, ...]:
        graphs_of(self.tiers)
        options = [{name: getattr(tier, name) for name in _OPTIONS if hasattr(tier, name)} for tier in self.tiers]
        folder, manifest = self.bundle.folder.resolve(), self.bundle.manifest
        return _load_again, (type(self), folder, manifest.to_json(), self.threads, self.policies, options)

    def _warn_of_budget(self, units: int) -> None:
        """Say that a `Budget` cannot defer its share of so few units."""
        router = self.policies.routers[0] if self.policies.routers else None
        if isinstance(router, Budget) and router.too_few(units):
            warnings.warn(
                f"{router!r} must see {-(-1 // router.max_deferred):.0f} units together to defer one, got {units}; "
                "give it a reference, or use Threshold",
                stacklevel=3,
            )


def _with(tier: Tier, **options: Any) -> Tier:
    """A tier with these options, as far as it has them."""
    known: Any = tier
    own = {name: value for name, value in options.items() if hasattr(tier, name)}
    return replace(known, **own) if own else tier


def _changed(given: tuple[Any, ...], value: object, tier: int) -> tuple[Any, ...]:
    if not 1 <= tier <= len(given):
        raise OptionError(f"tier must be a number from 1 to {len(given)}, got {tier}; tiers are counted from 1")
    return (*given[: tier - 1], value, *given[tier:])


def _load_again(
    kind: type[Pipeline], folder: Path, manifest: str, threads: int, policies: Policies, options: list[dict[str, Any]]
) -> Pipeline:
    """What was pickled, from its folder; see `Pipeline.__reduce__`."""
    loaded = kind.from_pretrained(folder, threads=threads)
    if loaded.bundle.manifest.to_json() != manifest:
        raise BundleError(
            f"{folder} must hold the bundle that was pickled, but holds another one; load it with {kind.__name__}."
            "from_pretrained"
        )
    tiers = tuple(_with(tier, **own) for tier, own in zip(loaded.tiers, options, strict=True))
    return replace(loaded, tiers=tiers).with_policies(policies)
