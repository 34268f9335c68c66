"""Hostile texts and files, drawn from a `random.Random`.

Hypothesis drives them in `tests/fuzz`, a seed does in `tests/hostile`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.models.toy import WORDS

_ODD = (
    "|\x00| |\t|\n|\r\n|\x07|\x1b]0;x\x07|\x85|\u2028|\ufeff|\u200b|\u202e|\xad|\ud800|\udfff|k\udb33\u07e0|\udb33"
    "|\U0010ffff|\uffff|e\u0301|İ|ß|ﬁ|电影|한국어|שלום|ไทย|🎬|👩\u200d👩\u200d👧|🇫🇷|½|Ⅷ|[SEP]|[PAD]|[CLS]|[UNK]"
    "|[MASK]|</s>|<pad>|##ing|Ġthe|▁the|null|NaN|1e400|\"|'|\\|,|%s|{}|<b>|\\ud800|http://a.b/c?d=e#f|a@b.c"
    "|don't|O'Neil-Smith|3,14|-|_|.|!!!!!!!!!!"
)
ODD = (*_ODD.split("|"), "a" + "\u0300" * 20, "x" * 60)
NUMBERS = (-1, 0, 1, 2, 3, 17, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"))
STRINGS = ("", "x", "a" * 5000, "\x1b[31m", "\ud800", "../../etc/passwd", "/dev/zero", "tokenizer.json", "[UNK]")
TREES: tuple[Any, ...] = (
    [],
    {},
    [[]],
    [None],
    ["a", 3],
    {"a": {}},
    {"policy": "Threshold"},
    {"type": "Sequence"},
    {"String": ""},
)
JUNK: tuple[Any, ...] = (None, True, False, *NUMBERS, *STRINGS, *TREES)


ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def is_shown(said: str) -> bool:
    """Whether a terminal takes it for text and newlines: nothing in it moves the cursor or turns the line around."""
    return ACTS.search(said) is None


def text(rng: Random) -> str:
    """A text that somebody might type, send or attack with."""
    kind = rng.randrange(12)
    if kind == 0:
        return rng.choice(ODD)
    if kind == 1:
        return rng.choice(ODD) * rng.choice((2, 2, 3, 17, 17, 90))
    if kind == 2:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(12)))
    pool = (ODD, WORDS)[rng.randrange(2)] if kind < 6 else (*ODD, *WORDS * 3)
    return rng.choice((" ", " ", " ", "", "  ", "\n")).join(rng.choice(pool) for _ in range(rng.randrange(14)))


def long_text(rng: Random) -> str:
    """One of up to 100,000 characters."""
    piece = text(rng) or "a"
    return piece * (rng.choice((2_000, 20_000, 100_000)) // len(piece) + 1)


def words(rng: Random) -> list[str]:
    """A sentence of words, which may be empty or hold blanks."""
    return [rng.choice((*ODD, *WORDS)) if rng.randrange(4) else text(rng) for _ in range(rng.randrange(9))]


@dataclass(frozen=True)
class HostileFile:
    """The content of a file. `texts`: what can be read of each line, None where nothing can; None: nobody knows."""

    suffix: str
    content: bytes
    texts: list[str | None] | None


def hostile_file(rng: Random, form: str, *, compressed: bool = False) -> HostileFile:
    """A file of which it is known what must be read: good lines, broken ones and blank ones."""
    content, texts = WRITERS[form](rng, [text(rng) for _ in range(rng.randrange(1, 8))])
    return (
        HostileFile(f".{form}.gz", gzip.compress(content), texts)
        if compressed
        else HostileFile(f".{form}", content, texts)
    )


def broken_file(rng: Random, form: str, *, compressed: bool = False) -> HostileFile:
    """One whose bytes were altered."""
    made = hostile_file(rng, form, compressed=compressed)
    return HostileFile(made.suffix, mutated_bytes(rng, made.content), None)


Written = tuple[bytes, list[str | None]]


def _text_lines(rng: Random, given: list[str]) -> Written:
    lines, texts = list[bytes](), list[str | None]()
    for one in given:
        line = one.replace("\n", " ").rstrip("\r")
        line = line.lstrip("\ufeff") if not lines else line
        lines.append(line.encode("utf-8", "surrogatepass"))
        texts.append(line if _is_utf8(line) else None)
    end = rng.choice((b"\n", b"\r\n"))
    return rng.choice((b"", b"\xef\xbb\xbf")) + b"".join(line + end for line in lines), texts


def _json_lines(rng: Random, given: list[str]) -> Written:
    lines, texts = list[bytes](), list[str | None]()
    for one in given:
        kind = rng.randrange(8)
        if kind == 0:
            lines.append(rng.choice(BROKEN_JSON))
            texts.append(None)
            continue
        if kind == 1:
            lines.append(rng.choice((b"", b"  ", b"\t")))
        plain = bool(rng.randrange(2))
        record = {"text": one, "other": rng.choice(JUNK)} if kind == 2 else {"text": one}
        line = json.dumps(record, ensure_ascii=plain).encode("utf-8", "surrogatepass")
        lines.append(line)
        read = json.loads(line.decode("utf-8", "surrogatepass"))["text"]  # two halves side by side are one character
        texts.append(read if plain or _is_utf8(line.decode("utf-8", "surrogatepass")) else None)
    return b"".join(line + b"\n" for line in lines), texts


def _separated(rng: Random, given: list[str], delimiter: str) -> Written:
    out, texts = io.StringIO(), list[str | None]()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["id", "text"])
    for number, one in enumerate(given):
        if not rng.randrange(8):
            writer.writerow(["too", "many", "fields"])
            texts.append(None)
        # What is not UTF-8 breaks a row of several lines into several faults; of these nobody knows the number.
        clean = one.replace("\0", "").encode("utf-8", "replace").decode().replace("\r", " ")
        writer.writerow([number, clean])
        texts.append(clean)
    return out.getvalue().encode(), texts


def _parquet(rng: Random, given: list[str]) -> Written:
    import pyarrow as pa
    import pyarrow.parquet

    texts = [one if _is_utf8(one) and rng.randrange(6) else None for one in given]
    out = io.BytesIO()
    columns = {"text": pa.array(texts, pa.string()), "other": pa.array([rng.randrange(9) for _ in texts])}
    pyarrow.parquet.write_table(pa.table(columns), out)
    return out.getvalue(), texts


WRITERS: Mapping[str, Callable[[Random, list[str]], Written]] = {
    "txt": _text_lines,
    "jsonl": _json_lines,
    "csv": lambda rng, given: _separated(rng, given, ","),
    "tsv": lambda rng, given: _separated(rng, given, "\t"),
    "parquet": _parquet,
}
BROKEN_JSON = (
    *b'{|[1, 2]|null|"text"|{"text": null}|{"text": 3}|{"text": ["a"]}|{"other": "a"}|\xff|\x00|{"text": "open'.split(
        b"|"
    ),
    b'{"text": "a"} {"text": "b"}',
    b'{"text": "a", "n": ' + b"9" * 5000 + b"}",
    b"[" * 5000,
)


def _is_utf8(one: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in one)


def mutated_bytes(rng: Random, content: bytes) -> bytes:
    """The same with a few bytes altered, left out, doubled or cut off."""
    made = bytearray(content)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(made) + 1)
        to = min(at + rng.choice((1, 1, 2, 8, 100)), len(made))
        kind = rng.randrange(6)
        if kind == 0:
            made[at:to] = b""
        elif kind == 1:
            made[at:at] = made[at:to]
        elif kind == 2:
            del made[at:]
        elif kind == 3:
            made[at:at] = rng.choice(
                (b'"', b"\n", b"\x00", b"\xff\xfe", b"{", b"]", b"9" * 400, b"\xed\xa0\x80", b"\r")
            )
        else:
            made[at:to] = bytes(rng.randrange(256) for _ in range(to - at))
    return bytes(made)
