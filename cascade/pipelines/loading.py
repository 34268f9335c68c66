"""From a folder or a Hub repository to what a face is built of: a verified bundle, its graphs, its stored policies."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from cascade.bundle.manifest import TAGGING, TOKENIZER_FILE
from cascade.bundle.opening import Bundle, open_bundle
from cascade.exceptions import BundleError, CertificateWarning, OptionError, TaskError
from cascade.policies import (
    exits,
    routing,
)
from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router
from cascade.runtime.backend import OnnxBackend, SessionOptions
from cascade.runtime.executor import Executor
from cascade.runtime.threads import available_cpus, check_threads
from cascade.text.tokenizer import Tokenizer

__all__ = ["Graphs", "open_for", "readable"]

CLASSES: Final = {"text-classification": "Classifier", TAGGING: "Tagger"}


def open_for(
    task: str,
    path_or_id: str | Path,
    *,
    revision: str | None,
    cache_dir: str | Path | None,
    token: str | None,
    local_files_only: bool,
) -> Bundle:
    """Find and verify a bundle for a task. A certificate that is not about it is dropped, with a warning.

    Warns:
        CertificateWarning: the bundle's certificate is about other models, temperatures or policies.

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
    doubts = bundle.manifest.doubts()
    if not doubts:
        return bundle
    message = (
        f"the certificate of a bundle must be about its own models and policies, but in {path_or_id} "
        f"{'; '.join(doubts)}; nothing is certified of it, calibrate it again"
    )
    warnings.warn(message, CertificateWarning, stacklevel=3)  # where from_pretrained was called
    return replace(bundle, manifest=replace(bundle.manifest, certificate=None))


@contextmanager
def readable() -> Iterator[None]:
    """Policies that cannot be read inside are the bundle's fault.

    Raises:
        BundleError: in place of an `OptionError`.
    """
    try:
        yield
    except OptionError as error:
        raise BundleError(f"the bundle's policies must be readable, but {error}; export the bundle again") from error


@dataclass(frozen=True, eq=False)
class Graphs:
    """What both kinds of bundle are loaded from. Make it with `Graphs.of`.

    Attributes:
        tokenizer: for rows of tier 2's length.
        tier1: the padded graph.
        embed, stages: the packed graphs.
        router, exit_policy: as given, or the bundle's.
        executor: of both tiers, and of all copies.
    """

    tokenizer: Tokenizer
    tier1: OnnxBackend
    embed: OnnxBackend
    stages: Sequence[OnnxBackend]
    router: Router
    exit_policy: ExitPolicy
    executor: Executor

    @classmethod
    def of(
        cls, bundle: Bundle, options: SessionOptions, *, router: Router | None, exit_policy: ExitPolicy | None
    ) -> Graphs:
        """Load a verified bundle.

        Raises:
            BundleError: a file or a policy cannot be read.
        """
        manifest, executor = bundle.manifest, Executor(check_threads(options.threads))
        if router is None or exit_policy is None:
            stored_router, stored_exit_policy = _stored_policies(bundle)
            router = stored_router if router is None else router
            exit_policy = stored_exit_policy if exit_policy is None else exit_policy

        def graph(file: str) -> OnnxBackend:
            return OnnxBackend(bundle.path(file), options, manifest.files[file].sha256)

        return cls(
            tokenizer=Tokenizer.from_file(
                bundle.path(TOKENIZER_FILE),
                max_length=manifest.tier2.max_length,
                # The tokenizer's own threads are one per CPU: they work only where that is no more than was asked for.
                pool=partial(executor.permits, executor.threads) if executor.threads >= available_cpus() else None,
            ),
            tier1=graph(manifest.tier1.file),
            embed=graph(manifest.tier2.embed),
            stages=[graph(stage.file) for stage in manifest.tier2.stages],
            router=router,
            exit_policy=exit_policy,
            executor=executor,
        )


def _stored_policies(bundle: Bundle) -> tuple[Router, ExitPolicy]:
    with readable():
        return routing.from_json(bundle.manifest.router), exits.from_json(bundle.manifest.exit_policy)
