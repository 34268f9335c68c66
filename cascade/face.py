"""What `Classifier` and `Tagger` share: a bundle, its sessions, policies that can be exchanged, saving and pushing.

It leaves to others: what goes in and comes out (`classifier`, `tagger`), the files of a bundle (`bundle`), running
graphs (`backend`).
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from cascade import exits, routing
from cascade.backend import OnnxBackend, SessionOptions
from cascade.batching import BatchingPolicy
from cascade.bundle import TOKENIZER_FILE, Bundle, open_bundle, push_bundle
from cascade.checks import check_share
from cascade.exceptions import BundleError, OptionError, TaskError
from cascade.exits import ExitPolicy
from cascade.manifest import TAGGING
from cascade.routing import Budget, Router
from cascade.threads import check_threads
from cascade.tiers import MultiExit, SingleExit
from cascade.tokenizer import Tokenizer
from cascade.word_tiers import WordMultiExit, WordSingleExit

__all__ = ["Face", "Graphs", "open_for"]

CLASSES: Final = {"text-classification": "Classifier", TAGGING: "Tagger"}

F = TypeVar("F", bound="Face")


@dataclass(frozen=True, eq=False, repr=False)
class Face(ABC):
    """A bundle, ready to answer.

    Nothing that a call does changes it; `with_router` and the like give copies that share its sessions.

    Attributes:
        bundle: where it came from.
        tokenizer: texts to rows.
        tier1, tier2: the models.
        router: what tier 2 answers.
        blend: how much tier 1's answer counts beside tier 2's where both were asked; at 0 it is forgotten.
    """

    bundle: Bundle
    tokenizer: Tokenizer
    tier1: SingleExit | WordSingleExit
    tier2: MultiExit | WordMultiExit
    router: Router
    blend: float = field(default=0.0, kw_only=True)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the columns of `probabilities`."""
        return self.bundle.manifest.labels

    @property
    def exit_policy(self) -> ExitPolicy:
        """Who leaves tier 2 early."""
        return self.tier2.exit_policy

    def with_router(self: F, router: Router) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy that defers what this router says: any of `cascade.routing`, or a function of a `RoutingState`."""
        if not callable(router):
            raise OptionError(f"the router must be callable, was: {router!r}; use one of cascade.routing")
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
        """A copy whose tier 2 is left where this policy says: any of `cascade.exits`, or a function of an `ExitState`.

        Raises:
            OptionError: the policy does not fit the exits of this bundle.
        """
        if not callable(exit_policy):
            raise OptionError(f"the exit policy must be callable, was: {exit_policy!r}; use one of cascade.exits")
        return replace(self, tier2=replace(self.tier2, exit_policy=exit_policy))

    def with_batching(self: F, batching: BatchingPolicy) -> F:  # noqa: PYI019  # typing has Self from 3.11 on
        """A copy in which both tiers cut rows into batches like this: any of `cascade.batching`, or a function."""
        if not callable(batching):
            raise OptionError(f"the batching policy must be callable, was: {batching!r}; use one of cascade.batching")
        tier1, tier2 = replace(self.tier1, batching=batching), replace(self.tier2, batching=batching)
        return replace(self, tier1=tier1, tier2=tier2)

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the bundle with the policies of this copy as its defaults, whole or not at all.

        Args:
            folder: a folder to make.
            overwrite: replace a bundle that is there.

        Raises:
            OptionError: the folder is there already, or a policy is a function of your own, which has no written form.
        """
        self._copy(folder, overwrite=overwrite)

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
                self._copy(Path(parent) / "bundle", overwrite=False),
                repo_id,
                private=private,
                token=token,
                commit_message=commit_message,
                revision=revision,
            )

    @abstractmethod
    def _copy(self, folder: str | Path, *, overwrite: bool) -> Bundle:
        """The bundle again, with all policies in their written form."""


def open_for(
    task: str,
    path_or_id: str | Path,
    *,
    revision: str | None,
    cache_dir: str | Path | None,
    token: str | None,
    local_files_only: bool,
) -> Bundle:
    """Find and verify a bundle for a task.

    Raises:
        BundleNotFoundError: there is no such folder or repository.
        TaskError: it is for another task.
        BundleError: it is incomplete, altered or of another format.
    """
    bundle = open_bundle(
        path_or_id, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
    )
    found = bundle.manifest.task
    if found != task:
        raise TaskError(
            f"{CLASSES[task]} must have a bundle for {task}, but {path_or_id} is for {found}; "
            f"load it with {CLASSES[found]}.from_pretrained"
        )
    return bundle


@dataclass(frozen=True, eq=False)
class Graphs:
    """What both kinds of bundle are loaded from. Make it with `Graphs.of`.

    Attributes:
        tokenizer: for rows of tier 2's length.
        tier1: the padded graph.
        embed, stages: the packed graphs.
        router, exit_policy: as given, or the bundle's.
        threads: for both tiers together.
    """

    tokenizer: Tokenizer
    tier1: OnnxBackend
    embed: OnnxBackend
    stages: Sequence[OnnxBackend]
    router: Router
    exit_policy: ExitPolicy
    threads: int

    @classmethod
    def of(
        cls, bundle: Bundle, options: SessionOptions, *, router: Router | None, exit_policy: ExitPolicy | None
    ) -> Graphs:
        """Load a verified bundle.

        Raises:
            BundleError: a file or a policy cannot be read.
        """
        manifest = bundle.manifest
        if router is None or exit_policy is None:
            stored_router, stored_exit_policy = _stored_policies(bundle)
            router = stored_router if router is None else router
            exit_policy = stored_exit_policy if exit_policy is None else exit_policy

        def graph(file: str) -> OnnxBackend:
            return OnnxBackend(bundle.path(file), options, manifest.files[file].sha256)

        return cls(
            tokenizer=Tokenizer.from_file(bundle.path(TOKENIZER_FILE), max_length=manifest.tier2.max_length),
            tier1=graph(manifest.tier1.file),
            embed=graph(manifest.tier2.embed),
            stages=[graph(stage.file) for stage in manifest.tier2.stages],
            router=router,
            exit_policy=exit_policy,
            threads=check_threads(options.threads),
        )


def _stored_policies(bundle: Bundle) -> tuple[Router, ExitPolicy]:
    try:
        return routing.from_json(bundle.manifest.router), exits.from_json(bundle.manifest.exit_policy)
    except OptionError as error:
        raise BundleError(f"the bundle's policies must be readable, but {error}; export the bundle again") from error
