"""`Classifier`: texts in, labels and routes out. The face of the package."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.results import Label, Prediction, Predictions
from cascade.core.rows import FloatArray
from cascade.engine.cascade import Cascade, Outcome
from cascade.engine.inputs import Inputs
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.streaming import StreamOptions, stream
from cascade.pipelines.base import Face
from cascade.pipelines.loading import Graphs, open_for
from cascade.policies.batching import BatchingPolicy, for_tier2
from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router
from cascade.runtime.backend import SessionOptions
from cascade.text.texts import Text, check_texts

__all__ = ["Classifier"]


class _Default(Enum):
    TOP_K = "left out"


LEFT_OUT: Final = _Default.TOP_K
Dict: TypeAlias = dict[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Classifier(Face):
    """A bundle, ready to classify. Make one with `Classifier.from_pretrained`.

    Nothing that a call does changes it; `with_router` and the like give copies that share its sessions.
    """

    tier1: SingleExit
    tier2: MultiExit

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        threads: int | None = None,
        router: Router | None = None,
        exit_policy: ExitPolicy | None = None,
        batching: BatchingPolicy | None = None,
        tuned: bool = True,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> Classifier:
        """Load a bundle. Its files are verified first and nothing in it is ever unpickled.

        Args:
            path_or_id: a folder, or a repository on the Hugging Face Hub (`owner/name`).
            threads: threads for both tiers together; what this process may use if left out.
            router: instead of the bundle's.
            exit_policy: instead of the bundle's.
            batching: for both tiers; if left out `TokenBudget()` for tier 1, `batching.for_tier2` for tier 2.
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
        bundle = open_for(
            "text-classification",
            path_or_id,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        manifest = bundle.manifest
        first, second = manifest.tier1, manifest.tier2
        graphs = Graphs.of(bundle, options, router=router, exit_policy=exit_policy)
        multi_label = manifest.problem_type == "multi_label_classification"
        classifier = cls(
            bundle=bundle,
            tokenizer=graphs.tokenizer,
            tier1=SingleExit(
                backend=graphs.tier1,
                labels=len(manifest.labels),
                max_length=first.max_length,
                temperature=first.temperature,
                multi_label=multi_label,
                executor=graphs.executor,
            ),
            tier2=MultiExit(
                embed=graphs.embed,
                stages=graphs.stages,
                layers=[stage.layer for stage in second.stages],
                labels=len(manifest.labels),
                heads=second.heads,
                max_length=second.max_length,
                batching=for_tier2(graphs.executor.threads),
                temperatures=[stage.temperature for stage in second.stages],
                exit_policy=graphs.exit_policy,
                position_offset=second.position_offset,
                multi_label=multi_label,
                executor=graphs.executor,
            ),
            router=graphs.router,
            blend=manifest.blend,
        )
        if batching is not None:
            return classifier.with_batching(batching)
        return classifier.with_tuned() if tuned else classifier

    @property
    def multi_label(self) -> bool:
        """Whether the labels are independent yes/no decisions."""
        return self.tier2.multi_label

    @property
    def cascade(self) -> Cascade:
        """The engine: rows of token ids in, probabilities and routes out."""
        return Cascade(self.tier1, self.tier2, self.router, multi_label=self.multi_label, blend=self.blend)

    def __repr__(self) -> str:
        return (
            f"Classifier({str(self.bundle.folder)!r}, {len(self.labels)} labels, {len(self.tier2.layers)} exits, "
            f"router={self.router!r}, exit_policy={self.exit_policy!r}, blend={self.blend!r}, "
            f"max_tokens={self.max_tokens})"
        )

    def __call__(
        self, texts: Text | Sequence[Text], *, top_k: int | _Default | None = LEFT_OUT
    ) -> Any:  # a dict, a list of dicts or a list of lists of them: no union of these is of use to a caller
        """Classify, with the results of transformers' text-classification pipeline.

        Args:
            texts: a text, a pair `{"text": ..., "text_pair": ...}`, or a list of texts, of such pairs or of tuples of
                two texts.
            top_k: how many labels per text, most probable first; `None`: all of them. As in transformers, each text
                has a list of dicts as soon as this is given, also for 1.

        Returns:
            `{"label": str, "score": float}` per text. For one text without `top_k` a list of one dict, for one pair
            without `top_k` a dict: transformers' own ways.

        Raises:
            InputError: a text that cannot be read, with its position.
            OptionError: `top_k` below 1.
        """
        count: int | None = 1
        if top_k is not LEFT_OUT:
            count = None if top_k is None else check_whole("top_k", top_k, "None gives all labels")
        one = isinstance(texts, str | Mapping)
        answers = self.predict([texts] if one else texts)  # type: ignore[list-item]  # `one` says which it is
        ranked = _ranked(answers.probabilities, self.labels, count)
        if top_k is not LEFT_OUT:
            return ranked[0] if one else ranked
        if isinstance(texts, Mapping):
            return ranked[0][0]
        return [best for best, *_ in ranked]

    def predict(self, texts: Iterable[Text], *, show_progress: bool = False) -> Predictions:
        """Classify a list of texts.

        A text longer than the model is read in several overlapping rows. In each tier its probabilities are the average
        over them, and its exit is the deepest of theirs; routers decide on the whole text.

        Args:
            texts: texts, tuples of two texts, or `{"text": ..., "text_pair": ...}`; any empty text is valid.
            show_progress: draw a bar per tier on standard error.

        Returns:
            One answer per text, in order.

        Raises:
            InputError: something else than a list of texts, or a text that cannot be read, with its position.
        """
        begin = time.perf_counter()
        check_texts(texts, pairs=True)
        inputs = self._inputs(texts if isinstance(texts, list) else list(texts))
        inputs.encode()
        seconds = {"tokenize": time.perf_counter() - begin}
        outcome = self.cascade.run(inputs, show_progress=show_progress)
        seconds.update(outcome.stats.seconds)
        return self._named(replace(outcome, stats=replace(outcome.stats, seconds=seconds)))

    def stream(self, texts: Iterable[Text], *, options: StreamOptions | None = None) -> Iterator[Prediction]:
        """Classify any number of texts in constant memory.

        The answers are those of `predict`, but that a router sees a buffer at a time: a `Budget` defers its share of
        every buffer.

        Args:
            texts: any iterable, read a bounded number of texts ahead.
            options: how much is held back and for how long.

        Yields:
            One answer per text, in order.

        Raises:
            InputError: a text that cannot be read, named by its number in the stream.
        """
        check_texts(texts, pairs=True)
        return self._stream(texts, options)

    def _stream(self, texts: Iterable[Text], options: StreamOptions | None) -> Iterator[Prediction]:
        for outcome in stream(self.cascade, self._inputs, texts, options=options):
            yield from self._named(outcome)

    def _inputs(self, texts: list[Text]) -> Inputs:
        return Inputs.of(texts, self.tokenizer)

    def _named(self, outcome: Outcome) -> Predictions:
        names: list[Label]
        if self.multi_label:
            names = [
                tuple(label for label, yes in zip(self.labels, row, strict=True) if yes)
                for row in (outcome.probabilities >= 0.5).tolist()
            ]
        else:
            names = [self.labels[best] for best in outcome.probabilities.argmax(axis=1).tolist()]
        return Predictions(names, outcome.probabilities, outcome.routes, outcome.stats)


def _ranked(probabilities: FloatArray, labels: Sequence[str], count: int | None) -> list[list[Dict]]:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    scores = np.take_along_axis(probabilities, order, axis=1)
    return [
        [{"label": labels[number], "score": score} for number, score in zip(numbers, row, strict=True)]
        for numbers, row in zip(order.tolist(), scores.tolist(), strict=True)
    ]
