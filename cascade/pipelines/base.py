"""What `Classifier` and `Tagger` share: a bundle, its sessions, policies that can be exchanged, saving and pushing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cascade.bundle.certificate import Certificate, Settings
from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import Bundle
from cascade.bundle.writing import copy_bundle, push_bundle
from cascade.core.checks import check_share, is_number
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.exceptions import BundleError, OptionError
from cascade.pipelines.loading import readable
from cascade.pipelines.tuning import Tuned
from cascade.policies import exits, routing
from cascade.policies.batching import BatchingPolicy
from cascade.policies.exits import ExitPolicy, never
from cascade.policies.registry import ModelInfo
from cascade.policies.routing import Budget, Router, defer_all
from cascade.runtime.backend import OnnxBackend
from cascade.text.tokenizer import Tokenizer

__all__ = ["Face"]

F = TypeVar("F", bound="Face")

_LOADED = frozenset({"bundle", "tokenizer", "tier1", "tier2"})
_OF_TIER1 = ("temperature", "batching", "pool_from")
_OF_TIER2 = ("temperatures", "exit_policy", "batching", "pool_from", "together")


@dataclass(frozen=True, eq=False, repr=False)
class Face:
    """A bundle, ready to answer.

    Nothing that a call does changes it; `with_router` and the like give copies that share its sessions. Pickles hold
    the bundle's folder, the policies and the options: reading one loads and verifies the bundle again.

    Attributes:
        bundle: where it came from.
        tokenizer: texts to rows.
        tier1, tier2: the models.
        router: what tier 2 answers.
        blend: how much tier 1's answer counts beside tier 2's where both were asked; at 0 it is forgotten.
    """

    known: ClassVar[tuple[str, ...]] = ("router", "exit_policy", "blend", "temperatures")
    """The names of its settings."""

    bundle: Bundle
    tokenizer: Tokenizer
    tier1: SingleExit
    tier2: MultiExit
    router: Router
    blend: float = field(default=0.0, kw_only=True)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the columns of `probabilities`."""
        return self.bundle.manifest.labels

    @property
    def model(self) -> ModelInfo:
        """What policies are checked against."""
        manifest = self.bundle.manifest
        return ModelInfo(
            labels=self.labels,
            layers=tuple(self.tier2.layers),
            words=manifest.task == TAGGING,
            multi_label=manifest.problem_type == "multi_label_classification",
        )

    @property
    def exit_policy(self) -> ExitPolicy:
        """Who leaves tier 2 early."""
        return self.tier2.exit_policy

    @property
    def settings(self) -> dict[str, Any]:
        """Policies, blend and temperatures of this copy in their written form.

        Raises:
            OptionError: a policy is a function of your own, which has no written form.
        """
        return {
            "router": routing.to_json(self.router),
            "exit_policy": exits.to_json(self.exit_policy),
            "blend": self.blend,
            "temperatures": [self.tier1.temperature, list(self.tier2.temperatures)],
        }

    @property
    def certificate(self) -> Certificate | None:
        """What is certified of this copy: nothing unless it has the very policies and temperatures that were tested."""
        certificate, settings = self._stored_certificate(), self._written()
        return None if certificate is None or settings != certificate.policies else certificate

    def safer(self: F) -> F | None:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy that gives away less, for when the certified claim no longer holds.

        It has the setting that was tested just before this one; where there is none, or this copy's was not tested,
        tier 2 answers everything at full depth. Of that there is nothing safer, and the answer is `None`.

        Raises:
            BundleError: the settings of the certificate cannot be read.
        """
        if self.router == defer_all and self.exit_policy == never:
            return None
        certificate, settings = self._stored_certificate(), self._written()
        tested = () if certificate is None else (*certificate.safer, certificate.policies)
        place = tested.index(settings) if settings in tested else 0
        if place:
            with readable():
                return self.with_settings(tested[place - 1])
        return self.with_router(defer_all).with_exit_policy(never)

    def with_settings(self: F, settings: Settings) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy with these policies, blend and temperatures, in the form of `settings`; what is left out stays.

        Raises:
            OptionError: an unknown name, a policy that cannot be read or does not fit this bundle.
        """
        unknown = [name for name in settings if name not in self.known]
        if unknown:
            raise OptionError(
                f"settings must be among {', '.join(self.known)}, were: {', '.join(unknown)}; see settings"
            )
        copy = self
        if "router" in settings:
            copy = copy.with_router(routing.from_json(settings["router"]))
        if "exit_policy" in settings:
            copy = copy.with_exit_policy(exits.from_json(settings["exit_policy"]))
        if "blend" in settings:
            copy = copy.with_blend(settings["blend"])
        if "temperatures" in settings:
            copy = copy.with_temperatures(*_pair(settings["temperatures"]))
        return copy

    def with_router(self: F, router: Router) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy that defers what this router says: any of `cascade.policies`, or a function of a `RoutingState`."""
        routing.check(router, self.model)
        return replace(self, router=router)

    def with_budget(self: F, *, max_deferred: float) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy that defers the least sure share of the rows (or words): `with_router(Budget(max_deferred))`."""
        return self.with_router(Budget(max_deferred))

    def with_blend(self: F, blend: float) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy in which tier 1's answer counts so much beside that of each exit of tier 2: 1 as much, 0 not at all.

        Where both were asked, log-probabilities are added up, tier 1's times `blend`. The two err differently, so the
        sum is right more often, and surer at early exits.
        """
        return replace(self, blend=check_share("blend", blend, "0 forgets tier 1's answer"))

    def with_exit_policy(self: F, exit_policy: ExitPolicy) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy whose tier 2 is left where this policy says: any of `cascade.policies`, or a function.

        Raises:
            OptionError: the policy does not fit the exits of this bundle.
        """
        exits.check(exit_policy, self.model)
        return replace(self, tier2=replace(self.tier2, exit_policy=exit_policy))

    def with_temperatures(self: F, tier1: float, tier2: Sequence[float]) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy that divides logits by these: those of tier 1, and those of each exit of tier 2.

        Raises:
            OptionError: one is not above 0 and finite, or they are not one per exit.
        """
        depth = len(self.tier2.layers)
        if len(tier2) != depth:
            raise OptionError(f"temperatures must be one per exit, were: {list(tier2)}; give one for each of {depth}")
        first, second = replace(self.tier1, temperature=tier1), replace(self.tier2, temperatures=tuple(tier2))
        return replace(self, tier1=first, tier2=second)

    def with_batching(self: F, batching: BatchingPolicy) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy in which both tiers cut rows into batches like this: any of `cascade.policies`, or a function."""
        if not callable(batching):
            raise OptionError(f"the batching policy must be callable, was: {batching!r}; use one of cascade.policies")
        tier1, tier2 = replace(self.tier1, batching=batching), replace(self.tier2, batching=batching)
        return replace(self, tier1=tier1, tier2=tier2)

    @property
    def max_tokens(self) -> tuple[int | None, ...]:
        """The token budget of each tier's batches; `None` where its batching policy has none."""
        return tuple(getattr(tier.batching, "max_tokens", None) for tier in (self.tier1, self.tier2))

    def with_max_tokens(self: F, *max_tokens: int) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy with these token budgets, one per tier. They change how long an answer takes, not the answer.

        Raises:
            OptionError: they are not one per tier, one is below 1, or a tier's batching policy has no budget.
        """
        if len(max_tokens) != len(self.max_tokens) or None in self.max_tokens:
            raise OptionError(
                f"max_tokens must be one per tier that has a token budget, got {max_tokens} for {self.max_tokens}; "
                "leave batching out, or give TokenBudget"
            )
        given: list[Any] = [self.tier1.batching, self.tier2.batching]  # dataclasses, as they have a budget
        one, two = (replace(policy, max_tokens=budget) for policy, budget in zip(given, max_tokens, strict=True))
        return replace(self, tier1=replace(self.tier1, batching=one), tier2=replace(self.tier2, batching=two))

    def with_tuned(self: F) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy with the token budgets that `cascade tune --write` found on this host; itself where there are none."""
        found = Tuned.read(self.bundle, threads=self.tier1.executor.threads)
        if found is None or len(found.max_tokens) != len(self.max_tokens):
            return self
        return self.with_max_tokens(*found.max_tokens)

    def __copy__(self: F) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        return replace(self)  # sessions are shared; without this method they would be loaded again

    def __reduce__(self) -> tuple[Any, ...]:
        for graph in (self.tier1.backend, self.tier2.embed, *self.tier2.stages):
            if not isinstance(graph, OnnxBackend):
                raise OptionError(
                    f"what is pickled must run the graphs of its bundle, got a {type(graph).__name__}; "
                    "build it in the other process"
                )
        own = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in _LOADED}
        tier1 = {name: getattr(self.tier1, name) for name in _OF_TIER1}
        tier2 = {name: getattr(self.tier2, name) for name in _OF_TIER2}
        folder, manifest = self.bundle.folder.resolve(), self.bundle.manifest.to_json()
        return _load_again, (type(self), folder, manifest, self.tier1.executor.threads, own, tier1, tier2)

    def save_pretrained(
        self, folder: str | Path, *, certificate: Certificate | None = None, overwrite: bool = False
    ) -> None:
        """Write the bundle with the policies and temperatures of this copy as its defaults, whole or not at all.

        Args:
            folder: a folder to make.
            certificate: about this copy. If left out, the bundle's own, as long as it is about this copy.
            overwrite: replace a bundle that is there.

        Raises:
            OptionError: the folder is there already, a policy is a function of your own, which has no written form, or
                the certificate is about something else.
        """
        self._copy(folder, certificate=certificate, overwrite=overwrite)

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
            OptionError: a policy is a function of your own, which has no written form.
            BundleError: the Hub refuses.
        """
        with tempfile.TemporaryDirectory(prefix="cascade-") as parent:
            return push_bundle(
                self._copy(Path(parent) / "bundle"),
                repo_id,
                private=private,
                token=token,
                commit_message=commit_message,
                revision=revision,
            )

    def _copy(self, folder: str | Path, *, certificate: Certificate | None = None, overwrite: bool = False) -> Bundle:
        """The bundle again, with the settings of this copy."""
        settings = self._saved() if certificate is None else self.settings
        return copy_bundle(
            self.bundle,
            folder,
            router=settings["router"],
            exit_policy=settings["exit_policy"],
            windows=settings.get("windows"),
            decoding=settings.get("decoding"),
            blend=settings["blend"],
            temperatures=settings["temperatures"],
            certificate=certificate,
            overwrite=overwrite,
        )

    def _saved(self) -> dict[str, Any]:
        """The settings that a saved bundle states; what it leaves out stays as the bundle has it."""
        return self.settings

    def _stored_certificate(self) -> Certificate | None:
        written = self.bundle.manifest.certificate
        return None if written is None else Certificate.from_json(written)

    def _written(self) -> dict[str, Any] | None:
        """The settings, if they have a written form."""
        try:
            return self.settings
        except OptionError:
            return None


def _load_again(
    kind: Any,  # a class with `from_pretrained`, which `Face` itself has not
    folder: Path,
    manifest: str,
    threads: int,
    own: dict[str, Any],
    tier1: dict[str, Any],
    tier2: dict[str, Any],
) -> Any:
    """What was pickled, from its folder; see `Face.__reduce__`."""
    loaded = kind.from_pretrained(folder, threads=threads)
    if loaded.bundle.manifest.to_json() != manifest:
        raise BundleError(
            f"{folder} must hold the bundle that was pickled, but holds another one; load it with {kind.__name__}."
            "from_pretrained"
        )
    return replace(loaded, tier1=replace(loaded.tier1, **tier1), tier2=replace(loaded.tier2, **tier2), **own)


def _pair(written: object) -> tuple[float, Sequence[float]]:
    if isinstance(written, list | tuple) and len(written) == 2 and isinstance(written[1], list | tuple):
        tier1, tier2 = written
        if all(map(is_number, (tier1, *tier2))):
            return tier1, tier2
    raise OptionError(f"temperatures must be [of tier 1, [of each exit]], were: {written!r}; see settings")
