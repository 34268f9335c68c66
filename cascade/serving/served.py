"""`Served`: one loaded pipeline by name, with its levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from cascade.engine.cascade import Cascade
from cascade.engine.inputs import Inputs
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.policies.settings import Policies
from cascade.serving.levels import levels_of
from cascade.serving.watching import Watch
from cascade.text.entities import PieceText
from cascade.text.texts import Text, read_texts, repair_text
from cascade.text.word_encoding import WordEncoder


class Form(Enum):
    """What the items of a request are, and their units.

    `TEXT`: texts and pairs of a classifier; `WORDS`: a tagger's lists of words; `PIECES`, `GROUPED`: a tagger's texts,
    each piece a unit, or each word of transformers (`Tagger.read`).
    """

    TEXT = "text"
    WORDS = "words"
    PIECES = "pieces"
    GROUPED = "grouped"


@dataclass(frozen=True, eq=False)
class Served:
    """A pipeline that a server offers. Make it with `Served.load`, or with `Served.of`.

    Attributes:
        name: by which clients ask for it.
        pipeline: at level 0.
        levels: the policies of each level; the last one never defers (`levels.levels_of`).
        watch: compares a share of the answers of level 0 with full depth; `None`: nothing is compared.
        again: loads the same bundle from where it lies now; `None`: it came from nowhere.
    """

    name: str
    pipeline: Classifier | Tagger
    levels: tuple[Policies, ...]
    watch: Watch | None = None
    again: Callable[[], Served] | None = None
    _made: dict[tuple[int, bool], tuple[Classifier | Tagger, Cascade]] = field(
        default_factory=dict, init=False, repr=False
    )

    @classmethod
    def of(
        cls,
        name: str,
        pipeline: Classifier | Tagger,
        *,
        share: float = 0.0,
        bound: float | None = None,
        again: Callable[[], Served] | None = None,
    ) -> Served:
        """Offer a pipeline. `share`: of the answers that are compared, 0 compares none; `bound`: see `Monitor`."""
        watch = Watch(pipeline, share=share, bound=bound) if share else None
        return cls(name, pipeline, levels_of(pipeline.policies, pipeline.infos), watch, again)

    @classmethod
    def load(
        cls,
        name: str,
        path_or_id: str | Path,
        *,
        threads: int | None = None,
        share: float = 0.0,
        bound: float | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> Served:
        """Load a bundle and offer it; its options and errors are those of `cascade.load` and of `of`."""
        where = {"revision": revision, "cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        again = partial(cls.load, name, path_or_id, threads=threads, share=share, bound=bound, **where)  # type: ignore[arg-type]
        pipeline = load(path_or_id, threads=threads, **where)  # type: ignore[arg-type]
        return cls.of(name, pipeline, share=share, bound=bound, again=again)

    def reload(self) -> Served:
        """The same bundle as it is on disk now; an `OptionError` where it came from nowhere."""
        if self.again is None:
            raise OptionError(f"a model must have been loaded from a bundle, got {self.name}, made here; load it anew")
        return self.again()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the columns of `probabilities`."""
        return self.pipeline.labels

    @property
    def words(self) -> bool:
        """Whether units are words."""
        return isinstance(self.pipeline, Tagger)

    @property
    def max_input_length(self) -> int:
        """Tokens that the model reads at once."""
        return self.pipeline.tokenizer.max_length

    def at(self, level: int, truncation: bool) -> tuple[Classifier | Tagger, Cascade]:
        """The pipeline at a level, and its engine."""
        key = level, truncation
        if key not in self._made:
            pipeline = self.pipeline.with_policies(self.levels[level]).with_truncation(truncation)
            self._made[key] = pipeline, pipeline.cascade
        return self._made[key]

    def read(self, form: Form, works: Sequence[Sequence[Any]], truncation: bool) -> tuple[Inputs, list[PieceText]]:
        """Inputs of the items of some works, encoded, and the pieces of each where they are a tagger's texts.

        Raises:
            InputError: an item that cannot be read.
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
        known: dict[str, Any] = {
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
            "monitor": None,
        }
        if self.watch is not None:
            state = self.watch.report()
            known["monitor"] = {
                "seen": self.watch.seen,
                "shadowed": state.shadowed,
                "disagreements": state.disagreements,
                "interval": list(state.interval),
                "bound": state.bound,
                "alarm": state.alarm_at is not None,
                "shifted": state.shifted_at is not None,
            }
        return known
