"""What a job is asked to do: one frozen value, written with the job and compared when it goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from cascade.core.checks import check_whole
from cascade.exceptions import OptionError
from cascade.text.reading import ON_EMPTY, OnError
from cascade.text.records import MAX_LINE
from cascade.text.sources import TABLE_FORMS

ALL: Final = "all"
PART_ROWS: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Columns that are read, and columns that are written.

    Attributes:
        text, pair, tokens: names of columns; with `tokens` lists of words are read, and no texts.
        keep: columns of the inputs that the output has too, before the answers; `all` of them.
        prefix: stands before the name of each column of answers.
        form: of the output: `parquet`, `jsonl` or `csv`; as its suffix says, of a folder parquet, if left out.
        routes, top_k, strategy: what is answered beside the label or the tags; `strategy`: entities in their place.
        on_error: what a row does that cannot be read: `stop`, `skip` (no row), `null` (null, with a column `error`).
        on_empty: what an empty or blank text gets: an `answer`, `null`, or an `error`.
        max_line: bytes of a line, characters of a cell.
        part_rows: rows of a part.
    """

    text: str = "text"
    pair: str = "text_pair"
    tokens: str | None = None
    keep: tuple[str, ...] | str = ()
    prefix: str = ""
    form: str | None = None
    routes: bool = False
    top_k: int | None = None
    strategy: str | None = None
    on_error: str = "stop"
    on_empty: str = "answer"
    max_line: int = MAX_LINE
    part_rows: int = PART_ROWS

    def __post_init__(self) -> None:
        on_error = tuple(way.value for way in OnError)
        known = (("form", (None, *TABLE_FORMS)), ("on_error", on_error), ("on_empty", ON_EMPTY))
        for name, ways in known:
            if (own := getattr(self, name)) not in ways:
                raise OptionError(f"{name} must be one of {', '.join(filter(None, ways))}, got {own!r}; choose one")
        for name in ("part_rows", "max_line", *(["top_k"] if self.top_k is not None else [])):
            check_whole(name, getattr(self, name), "leave it out for the default")

    @property
    def needed(self) -> list[str]:
        """The columns that every file must have."""
        if self.tokens is not None:
            return [self.tokens]
        return [self.text, *([self.pair] if self.pair != "text_pair" else [])]

    @property
    def read(self) -> set[str]:
        """The columns that are read where they are there."""
        return {self.text, self.pair} if self.tokens is None else {self.tokens}

    @property
    def reading(self) -> dict[str, Any]:
        """The same for `read_examples`."""
        names = {"text_column": self.text, "pair_column": self.pair, "tokens_column": self.tokens}
        return names | {"label_column": None, "max_line": self.max_line}

    def to_json(self) -> dict[str, Any]:
        """What must be the same when a job goes on. Rows that cannot be read may stop it first and be left out then."""
        written = asdict(self) | {"on_error": "null" if self.on_error == "null" else "stop or skip"}
        return dict(json.loads(json.dumps(written)))
