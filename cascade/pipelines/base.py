"""What `Classifier` and `Tagger` share: loading, what is certified, saving, pickling, closing."""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cascade.bundle.certificate import Certificate
from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.bundle.writing import copy_bundle
from cascade.core.results import Stats
from cascade.engine.cascade import Outcome
from cascade.engine.inputs import Inputs
from cascade.engine.long_rows import RowTier
from cascade.engine.streaming import StreamOptions, stream
from cascade.exceptions import BundleError, CascadeWarning, TaskError
from cascade.pipelines.copies import Copies
from cascade.pipelines.parts import certified, graphs_of, parts_of, set_policies, with_options
from cascade.policies.batching import BatchingPolicy
from cascade.policies.routing import Budget
from cascade.policies.settings import Policies
from cascade.runtime.threads import check_threads

P = TypeVar("P", bound="Pipeline")

_OPTIONS = ("batching", "pool_from", "together")
"""What a tier has beside its bundle and policies."""


@dataclass(frozen=True, eq=False, repr=False)
class Pipeline(Copies):
    """A bundle, ready to answer.

    Nothing that a call does changes it; `with_router` and the like give copies that share its sessions. Pickles hold
    the bundle's folder, the policies and the options: reading one loads and verifies the bundle again.
    """

    task: ClassVar[str]

    @classmethod
    def from_pretrained(
        cls: type[P],
        path_or_id: str | Path,
        *,
        threads: int | None = None,
        policies: Policies | None = None,
        batching: BatchingPolicy | None = None,
        tuned: bool = True,
        truncation: bool | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> P:
        """Load a bundle, `cascade.load` as what it is for. Its files are verified first and nothing is ever unpickled.

        Args:
            path_or_id: a folder, or a repository on the Hugging Face Hub (`owner/name`).
            threads: threads for all tiers together; what this process may use if left out.
            policies: of all tiers, instead of the bundle's.
            batching: for all tiers; if left out `TokenBudget()` for tiers without exits, else `batching.for_tier2`.
            tuned: whether these take the token budgets of `cascade tune --write`, where there are some for this host.
            truncation: see `with_truncation`; as the bundle says if left out.
            revision: branch, tag or commit on the Hub.
            cache_dir: where downloads are kept; the Hub's own cache if left out.
            token: for closed repositories; the stored login if left out.
            local_files_only: take what the cache has, download nothing.

        No such folder or repository is a `BundleNotFoundError`; one that is incomplete, altered, of another format or
        for another task (`TaskError`) a `BundleError`; an impossible option an `OptionError`.
        """
        budget = check_threads(threads)
        bundle = open_bundle(
            path_or_id,
            verify=False,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        found = bundle.manifest.task
        kind = cls if hasattr(cls, "task") else next(one for one in cls.__subclasses__() if one.task == found)
        if found != kind.task:
            other = "Tagger" if found == TAGGING else "Classifier"
            raise TaskError(
                f"{cls.__name__} must have a bundle for {cls.task}, but {path_or_id} is for {found}; "
                f"load it with {other}.from_pretrained or cascade.load"
            )
        bundle = certified(bundle, path_or_id)
        manifest = bundle.manifest
        policies = policies or manifest.policies
        policies.check(manifest.infos)
        tokenizer, tiers = parts_of(bundle, budget)
        pipeline = kind(bundle, tokenizer, set_policies(tiers, policies), policies)
        pipeline = pipeline.with_truncation(manifest.truncation if truncation is None else truncation)
        if batching is not None:
            return pipeline.with_batching(batching)
        return pipeline.with_tuned() if tuned else pipeline

    @property
    def certificate(self) -> Certificate | None:
        """What is certified of this copy: nothing unless policies and truncation are what was tested."""
        manifest = self.bundle.manifest
        stored = manifest.certificate if self.tokenizer.truncation == manifest.truncation else None
        return stored if stored is not None and stored.policies == self.policies else None

    def safer(self: P) -> P | None:
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

    def save_pretrained(
        self, folder: str | Path, *, certificate: Certificate | None = None, overwrite: bool = False
    ) -> None:
        """Write the bundle with the policies of this copy as its defaults, whole or not at all. `hf upload` pushes it.

        `folder`: to make; `certificate`: about this copy, if left out the bundle's own as long as it is about this
        copy; `overwrite`: replace a bundle that is there. An `OptionError`: the folder is there already, a policy or a
        tier is a function of your own, which has no written form, or the certificate is about something else.
        """
        graphs_of(self.tiers)
        manifest = replace(self.bundle.manifest, truncation=bool(self.tokenizer.truncation))  # as this copy reads texts
        bundle = replace(self.bundle, manifest=manifest)
        copy_bundle(bundle, folder, policies=self.policies, certificate=certificate, overwrite=overwrite)

    def close(self) -> None:
        """Free the graphs of this pipeline and of its copies. A later call loads and verifies them again."""
        for graph in graphs_of([tier for tier in self.tiers if isinstance(tier, RowTier)]):
            graph.close()

    def __enter__(self: P) -> P:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        graphs_of(self.tiers)
        options = [{name: getattr(tier, name) for name in _OPTIONS if hasattr(tier, name)} for tier in self.tiers]
        folder, manifest = self.bundle.folder.resolve(), self.bundle.manifest
        told = (self.threads, self.tokenizer.truncation, self.policies, options)
        return _load_again, (type(self), folder, manifest.to_json(), *told)

    def _answered(self, inputs: Inputs, begin: float) -> Any:
        """The answers for inputs that are being made since `begin`."""
        inputs.encode()
        seconds = {"tokenize": time.perf_counter() - begin}
        outcome = self.cascade.run(inputs, seconds=seconds)
        self._warn_of_budget(outcome.stats.units)
        self._warn_of_lost(outcome.stats, 4)
        return self._named(outcome)

    def _streamed(
        self, encode: Callable[[Any], Inputs], items: Iterable[Any], options: StreamOptions | None, what: str = "text"
    ) -> Iterator[Any]:
        for outcome in stream(self.cascade, encode, items, options=options, what=what):
            if options is None or options.on_stats is None:  # otherwise the caller is told of them
                self._warn_of_lost(outcome.stats)
            yield from self._named(outcome)

    @abstractmethod
    def _named(self, outcome: Outcome) -> Any:
        """What the engine found, with the names of the labels."""

    def _warn_of_lost(self, stats: Stats, stacklevel: int = 3) -> None:
        """Say that tokens were lost, unless that was asked for; of the same line of code Python shows it once."""
        if stats.truncated and not self.tokenizer.truncation:
            warnings.warn(
                "pairs and words must fit the model to be read whole, but some were cut (Stats.truncated counts them); "
                "shorten them, or give truncation=True if that is what you want",
                CascadeWarning,
                stacklevel=stacklevel,  # where predict was called, or a stream is read
            )

    def _warn_of_budget(self, units: int) -> None:
        """Say that a `Budget` cannot defer its share of so few units."""
        router = self.policies.routers[0] if self.policies.routers else None
        if isinstance(router, Budget) and router.too_few(units):
            warnings.warn(
                f"{router!r} must see {-(-1 // router.max_deferred):.0f} units together to defer one, got {units}; "
                "use Threshold",
                CascadeWarning,
                stacklevel=4,  # where predict was called
            )


def _load_again(
    kind: type[Pipeline],
    folder: Path,
    manifest: str,
    threads: int,
    truncation: bool,
    policies: Policies,
    options: list[dict[str, Any]],
) -> Pipeline:
    """What was pickled, from its folder; see `Pipeline.__reduce__`."""
    loaded = kind.from_pretrained(folder, threads=threads, truncation=truncation)
    if loaded.bundle.manifest.to_json() != manifest:
        raise BundleError(
            f"{folder} must hold the bundle that was pickled, but holds another one; load it with {kind.__name__}."
            "from_pretrained"
        )
    tiers = tuple(with_options(tier, own) for tier, own in zip(loaded.tiers, options, strict=True))
    return replace(loaded, tiers=tiers).with_policies(policies)
