"""What bundles and inputs hold reaches no terminal as it is."""

from __future__ import annotations

import unicodedata
import warnings

import pytest

from cascade.exceptions import BundleNotFoundError, CascadeError, CascadeWarning, printable

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eabc\u2066\ud800\r\n\x7f"


def test_nothing_acts_upon_a_terminal() -> None:
    assert printable(HOSTILE) == r"\x1b]0;title\x07\x1b[2J\x9b31m\u202eabc\u2066\ud800\r\n\x7f"
    every = printable("".join(map(chr, range(0x110000))))
    assert {unicodedata.category(one) for one in every}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert bidi.isdisjoint(map(unicodedata.bidirectional, every))
    for plain in ("", "naïve café", "電影 שלום \U0001f468\u200d\U0001f469", "\\x1b", "a\u00a0b"):
        assert printable(plain) == plain


@pytest.mark.parametrize("kind", [CascadeError, BundleNotFoundError])
def test_errors_and_warnings_are_printable(kind: type[CascadeError]) -> None:
    line = printable(" ".join(HOSTILE.splitlines()))
    assert str(kind(HOSTILE)) == f"{kind(HOSTILE)}" == line
    with pytest.warns(CascadeWarning) as caught:
        warnings.warn(HOSTILE, CascadeWarning, stacklevel=1)
    assert str(caught[0].message) == line
