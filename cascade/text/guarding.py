"""What breaks in the Rust library is an error of one line, at load where it can be; texts are not blown up."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import tokenizers
from tokenizers import normalizers

from cascade.exceptions import BundleError, CascadeError

TRIED: Final = ("", " ", "a", "a" * 40, string.printable, "é電\u0301\u200d\u0378\ufffd\U0001f600")
"""Texts that every tokenizer must take: any text may come."""

MOST_STEPS, LONGEST, LARGEST = 256, 64, 64
"""Of a normalizer: how many steps it may have, characters that one may insert, and how many times as long as it was a
text of any step's own characters may become."""


@contextmanager
def guarded(rule: str, remedy: str = "save the tokenizer again") -> Iterator[None]:
    """What the library raises or panics with becomes a `BundleError` of one line; `rule`: what must hold."""
    try:
        yield
    except (CascadeError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # pyo3's, nowhere to import
            raise
        raise BundleError(f"{rule}, but: {' '.join(str(error).split())}; {remedy}") from error


def try_out(inner: tokenizers.Tokenizer) -> None:
    """Encode some texts, alone and as pairs, and join their pieces, on this thread; whatever the library raises."""
    for text in TRIED:
        pieces = inner.encode(text, text).tokens
        inner.encode([text], is_pretokenized=True, add_special_tokens=False)
        if inner.decoder is not None:
            inner.decoder.decode(pieces)


def check_growth(normalizer: Any) -> None:
    """A `ValueError` if the steps of a normalizer make texts many times as long: n doublings make them 2 ** n times.

    What a step inserts grows again only where later steps change it, so their own strings are tried, step by step.
    """
    state = b"" if normalizer is None else normalizer.__getstate__()
    if b'"Replace"' not in state and b'"Prepend"' not in state:
        return
    steps = list(_steps(json.loads(state)))
    inserted = [str(step.get("content", step.get("prepend", ""))) for step in steps]
    if len(steps) > MOST_STEPS or max(map(len, inserted)) > LONGEST:
        raise ValueError(f"its normalizer has more than {MOST_STEPS} steps, or inserts more than {LONGEST} characters")
    patterns = [step["pattern"].get("String", "") for step in steps if isinstance(step.get("pattern"), dict)]
    for tried in {*TRIED, *inserted, *patterns}:
        text = tried
        for step in steps:
            one = normalizers.Lowercase()
            one.__setstate__(json.dumps(step).encode())
            text = one.normalize_str(text)
            if len(text) > LARGEST * (len(tried) + 1):
                raise ValueError(f"its normalizer makes texts more than {LARGEST} times as long")


def _steps(written: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer in its written form, those of sequences one by one."""
    if written.get("type") == "Sequence":
        for inner in written["normalizers"]:
            yield from _steps(inner)
    else:
        yield written
