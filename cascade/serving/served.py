"""`Served`: one loaded pipeline by name, with its levels; `Watch`: a share of its answers, compared with full depth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from cascade.engine.cascade import Cascade
from cascade.engine.inputs import Inputs
from cascade.exceptions import CascadeError, OptionError
from cascade.monitoring.monitor import TOGETHER, Monitor
from cascade.monitoring.state import Sampler
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.serving.levels import levels_of
from cascade.text.entities import PieceText
from cascade.text.texts import Text, read_texts, repair_text
from cascade.text.word_encoding import WordEncoder

KEPT: Final = 1024  # sampled items that wait at most; older ones are not compared


class Form(Enum):
    """What the items of a request are, and their units.

    `TEXT`: texts and pairs of a classifier; `WORDS`: a tagger's lists of words; `PIECES`, `GROUPED`: a tagger's texts,
    each piece a unit, or each word of transformers (`Tagger.read`).
    """

    TEXT = "text"
    WORDS = "words"
    PIECES = "pieces"
    GROUPED = "grouped"


class Served:
    """A pipeline that a server offers by a name.

    `pipeline`: at level 0; `levels`: the policies of each level; the last one never defers (`levels.levels_of`);
    `watch`: compares a share of the answers of level 0 with full depth; `None`: nothing is compared; `labels`: their
    names, in the order of the columns of `probabilities`; `words`: whether units are words; `max_input_length`: tokens
    that the model reads at once.

    `share`: of the answers that are compared, 0 compares none; `again`: loads the same bundle from where it lies now.
    """

    def __init__(
        self, name: str, pipeline: Classifier | Tagger, *, share: float = 0.0, again: Callable[[], Served] | None = None
    ) -> None:
        self.name, self.pipeline, self._again = name, pipeline, again
        self.levels = levels_of(pipeline.policies, pipeline.infos)
        self.watch = Watch(pipeline, share) if share else None
        self.labels, self.words = pipeline.labels, isinstance(pipeline, Tagger)
        self.max_input_length = pipeline.tokenizer.max_length
        self._made: dict[tuple[int, bool | str], tuple[Classifier | Tagger, Cascade]] = {}

    @classmethod
    def load(
        cls,
        name: str,
        path_or_id: str | Path,
        *,
        threads: int | None = None,
        share: float = 0.0,
        revision: str | None = None,
    ) -> Served:
        """Load a bundle and offer it; options and errors are those of `cascade.load` and of `Served`."""
        again = partial(cls.load, name, path_or_id, threads=threads, share=share, revision=revision)
        return cls(name, load(path_or_id, threads=threads, revision=revision), share=share, again=again)

    def reload(self) -> Served:
        """The same bundle as it is on disk now; an `OptionError` where it came from nowhere."""
        if self._again is None:
            raise OptionError(f"a model must have been loaded from a bundle, got {self.name}, made here; load it anew")
        return self._again()

    def at(self, level: int, truncation: bool | str) -> tuple[Classifier | Tagger, Cascade]:
        """The pipeline at a level, and its engine."""
        key = level, truncation
        if key not in self._made:
            pipeline = self.pipeline.with_policies(self.levels[level])
            pipeline = pipeline.with_tokenizers(lambda own: own.with_truncation(truncation))
            self._made[key] = pipeline, pipeline.cascade
        return self._made[key]

    def read(
        self, form: Form, works: Sequence[Sequence[Any]], truncation: bool | str
    ) -> tuple[Inputs, list[PieceText]]:
        """Inputs of the items of some works, encoded, and the pieces of each where they are a tagger's texts.

        An item that cannot be read is an `InputError`.
        """
        pipeline, pieces = self.at(0, truncation)[0], list[PieceText]()
        if form is Form.TEXT or form is Form.WORDS:
            encoder = pipeline.tokenizer if form is Form.TEXT else WordEncoder(pipeline.tokenizer)
            inputs = Inputs.of(list(chain.from_iterable(works)), encoder)
        else:
            assert isinstance(pipeline, Tagger)  # noqa: S101  # the batcher lets no other form pass
            both = [pipeline.read(list(items), by_word=form is Form.GROUPED) for items in works]
            inputs, pieces = Inputs.join([one for one, _ in both]), [shown for _, shown in both]
        inputs.encode()
        return inputs, pieces

    def tokens_of(self, text: Text) -> int:
        """Tokens of a text or pair, special ones included, however many the model reads."""
        tokenizer, [row] = self.pipeline.tokenizer, read_texts([text])

        def pieces(*texts: str) -> int:
            return sum(map(len, tokenizer.tokenize_with_offsets(list(map(repair_text, texts)))))

        if isinstance(row, str):
            return pieces(row) + len(tokenizer.special)
        return pieces(*row) + tokenizer.encode([("a", "a")]).units.rows.tokens - pieces("a", "a")

    def info(self) -> dict[str, Any]:
        """What there is to know of it, as JSON has it."""
        pipeline, certificate = self.pipeline, self.pipeline.certificate
        return {
            "name": self.name,
            "path": str(pipeline.bundle.folder),
            "task": pipeline.task,
            "labels": list(self.labels),
            "multi_label": pipeline.multi_label,
            "regression": pipeline.regression,
            "max_input_length": self.max_input_length,
            "threads": pipeline.threads,
            "tiers": [{"exits": list(info.layers)} for info in pipeline.infos],
            "levels": [repr(policies) for policies in self.levels],
            "certificate": None if certificate is None else certificate.claim,
            "monitor": None if self.watch is None else self.watch.told(),
        }


class Watch:
    """Samples what a pipeline answered as certified, and asks a monitor about it.

    Answers do not depend on batches, so what is sampled is simply answered once more, and then at full depth.
    `share`: of the answers, above 0, at most 1.
    """

    def __init__(self, pipeline: Classifier | Tagger, share: float) -> None:
        self._sampler = Sampler(share=share, seed=0)
        self._monitor: Monitor[Any] = Monitor(pipeline, share=1.0)
        self._waiting: deque[tuple[bool, Any]] = deque(maxlen=KEPT)
        self._thread = ThreadPoolExecutor(1, "cascade-watch")
        self._state, self._seen = self._monitor.report(), 0

    def offer(self, items: Sequence[Any], *, words: bool) -> None:
        """Tell of items that were answered. `words`: they are lists of words."""
        self._seen += len(items)
        chosen = [(words, items[row]) for row in self._sampler.draw(len(items))]
        self._waiting.extend(chosen)
        if chosen:
            with suppress(RuntimeError):  # it was stopped
                self._thread.submit(self._compare)

    def told(self) -> dict[str, Any]:
        """What is known by now, as JSON has it. `seen`: answers; `shadowed`: those that were compared."""
        state, names = self._state, ("shadowed", "disagreements", "bound")
        alarms = {"alarm": state.alarm_at is not None, "shifted": state.shifted_at is not None}
        known = {name: getattr(state, name) for name in names}
        return {"seen": self._seen, **known, "interval": list(state.interval), **alarms}

    def stop(self) -> None:
        """End once what is under way is compared; what else was sampled is forgotten."""
        self._waiting.clear()
        self._thread.shutdown(cancel_futures=True)

    def _compare(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))]
            for words in {of_words for of_words, _ in taken}:
                items = [item for of_words, item in taken if of_words == words]
                texts = not words and isinstance(self._monitor.pipeline, Tagger)
                with suppress(CascadeError, MemoryError, RuntimeError):  # of samples only: the answers have gone out
                    (self._monitor.predict_texts if texts else self._monitor.predict)(items)
            self._state = self._monitor.report()
