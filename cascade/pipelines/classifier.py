"""`Classifier`: texts in, labels and routes out. The pipeline for classification."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.results import Label, Prediction, Predictions
from cascade.core.rows import FloatArray
from cascade.engine.cascade import Outcome
from cascade.engine.inputs import Inputs
from cascade.engine.streaming import StreamOptions
from cascade.exceptions import CascadeWarning
from cascade.pipelines.base import Pipeline
from cascade.text.texts import Text, check_texts, is_pair

_KINDS: Final = {"text": "a single text", "pair": "a pair of texts"}


class _Default(Enum):
    TOP_K = "left out"


LEFT_OUT: Final = _Default.TOP_K


@dataclass(frozen=True, eq=False, repr=False)
class Classifier(Pipeline):
    """A bundle, ready to classify. Make one with `Classifier.from_pretrained`.

    Nothing that a call does changes it; `with_router` and the like give copies that share its sessions.
    """

    task: ClassVar[str] = "text-classification"

    def __call__(
        self, texts: Text | Sequence[Text], *, top_k: int | _Default | None = LEFT_OUT, truncation: bool | None = None
    ) -> Any:  # a dict, a list of dicts or a list of lists of them: no union of these is of use to a caller
        """Classify, with the results of transformers' text-classification pipeline.

        Args:
            texts: a text, a pair `{"text": ..., "text_pair": ...}`, or a list of texts, of such pairs or of tuples of
                two texts.
            top_k: how many labels per text, most probable first; `None`: all of them. As in transformers, each text
                has a list of dicts as soon as this is given, also for 1.
            truncation: for this call, see `with_truncation`; as the pipeline is if left out.

        Returned is `{"label": str, "score": float}` per text. For one text without `top_k` a list of one dict, for one
        pair without `top_k` a dict: transformers' own ways. A text that cannot be read is an `InputError` with its
        position, `top_k` below 1 an `OptionError`.
        """
        count: int | None = 1
        if top_k is not LEFT_OUT:
            count = None if top_k is None else check_whole("top_k", top_k, "None gives all labels")
        one = isinstance(texts, str | Mapping)
        pipeline = self if truncation is None else self.with_truncation(truncation)
        answers = pipeline.predict([texts] if one else texts)  # type: ignore[list-item]  # `one` says which it is
        ranked = _ranked(answers.probabilities, self.labels, count)
        if top_k is not LEFT_OUT:
            return ranked[0] if one else ranked
        if isinstance(texts, Mapping):
            return ranked[0][0]
        return [best for best, *_ in ranked]

    def predict(self, texts: Iterable[Text]) -> Predictions:
        """Classify a list of texts: one answer per text, in order.

        A text longer than the model is read in several overlapping rows. In each tier its probabilities are the average
        over them, and its exit is the deepest of theirs; routers decide on the whole text.

        `texts`: texts, tuples of two texts, or `{"text": ..., "text_pair": ...}`; any empty text is valid. Something
        else than a list of texts, or a text that cannot be read, is an `InputError` with its position.
        """
        begin = time.perf_counter()
        texts = check_texts(texts, pairs=True)
        inputs = self._inputs(texts if isinstance(texts, list) else list(texts))
        answers: Predictions = self._answered(inputs, begin)
        return answers

    def stream(self, texts: Iterable[Text], *, options: StreamOptions | None = None) -> Iterator[Prediction]:
        """Classify any number of texts, read a bounded number ahead, in constant memory: an answer each, in order.

        The answers are those of `predict`, but that a router sees a buffer at a time: a `Budget` defers its share of
        every buffer. `options`: how much is held back and for how long. A text that cannot be read is an `InputError`
        with its number in the stream.
        """
        return self._streamed(self._inputs, check_texts(texts, pairs=True), options)

    def _inputs(self, texts: list[Text]) -> Inputs:
        wanted = self.bundle.manifest.inputs
        pairs = {False} if set(map(type, texts)) <= {str} else set(map(is_pair, texts))
        if wanted is not None and pairs - {wanted == "pair"} and texts:
            warnings.warn(
                f"each text should be {_KINDS[wanted]}, which this model was trained on, but some are "
                f"{_KINDS['text' if wanted == 'pair' else 'pair']}; the answers for these may mean little",
                CascadeWarning,
                stacklevel=3,  # where predict was called
            )
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
        return Predictions(names, outcome.probabilities, outcome.routes, outcome.stats, self.labels, self.multi_label)


def _ranked(probabilities: FloatArray, labels: Sequence[str], count: int | None) -> list[list[dict[str, Any]]]:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    scores = np.take_along_axis(probabilities, order, axis=1)
    return [
        [{"label": labels[number], "score": score} for number, score in zip(numbers, row, strict=True)]
        for numbers, row in zip(order.tolist(), scores.tolist(), strict=True)
    ]
