"""What a user chooses of a build."""

from __future__ import annotations

from dataclasses import dataclass

from cascade.calibration.certify.claims import ORIGINAL, Agreement, Claim, MaxDrop, RiskTarget, Unit
from cascade.core.checks import check_inside
from cascade.exceptions import OptionError
from cascade.runtime.threads import check_threads
from cascade.text.reading import Columns, TagColumns

DISAGREEMENT = 0.02


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Everything but the checkpoint, the texts and the output.

    Attributes:
        max_disagreement: share of texts, of a tagger sentences, that the bundle may answer differently from the
            original model; 0.02 if neither bound is given. Needs no labels.
        max_drop: accuracy that may be lost against the original model, instead; needs labels in all files.
        confidence: of the bound.
        minutes: how long it takes, about.
        threads: of torch and of the tiers; the CPUs allowed if left out.
        seed: of the training and of the shares.
        text_column, pair_column, label_column, tokens_column: names in the files; labels are in `label`, of a tagger in
            `tags`, if left out.
        truncation: whether the bundle reads the first tokens alone of a text that is too long, as transformers does; in
            windows if not.
        encode_special_tokens: read special tokens typed by users as text, in the original model too; see `Tokenizer`.
        keep: leave the work folder beside the output.
        overwrite: replace a bundle that is there.
    """

    max_disagreement: float | None = None
    max_drop: float | None = None
    confidence: float = 0.95
    minutes: float = 20.0
    threads: int | None = None
    seed: int = 1
    text_column: str = "text"
    pair_column: str = "text_pair"
    label_column: str | None = None
    tokens_column: str = "tokens"
    truncation: bool = False
    encode_special_tokens: bool = False
    keep: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.max_disagreement is not None and self.max_drop is not None:
            raise OptionError("max_disagreement and max_drop exclude each other, both were given; leave one out")
        if not self.minutes > 0:
            raise OptionError(f"minutes must be above 0, got {self.minutes}; 20 are usual")
        check_inside(
            "max_disagreement" if self.max_drop is None else "max_drop", self.bound, "0.02 is two in a hundred"
        )
        check_inside("confidence", self.confidence, "0.95 is usual")
        check_threads(self.threads)

    @property
    def bound(self) -> float:
        """The bound that was asked for, of either kind."""
        asked = self.max_disagreement if self.max_drop is None else self.max_drop
        return DISAGREEMENT if asked is None else asked

    def claim(self, *, tags: bool) -> Claim:
        """What is to be certified. `tags`: of a tagger."""
        ask: RiskTarget = Agreement(self.bound) if self.max_drop is None else MaxDrop(self.bound)
        unit = Unit.SENTENCE if tags else Unit.TEXT
        return Claim(ask, confidence=self.confidence, unit=unit, than=ORIGINAL)

    def columns(self, *, tags: bool) -> Columns | TagColumns:
        """Names of the files' columns."""
        if tags:
            return TagColumns(tokens=self.tokens_column, tags=self.label_column or "tags")
        return Columns(text=self.text_column, pair=self.pair_column, label=self.label_column or "label")
