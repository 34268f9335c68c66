"""The table of chunks gives exactly the ids of the Rust tokenizer, or is not used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors

from cascade.core.rows import Encoded, Units
from cascade.text.tokenizer import Tokenizer
from cascade.text.wordpiece import AsciiWordPiece, ChunkTable

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Not every letter: words with q, x or z are unknown.
LETTERS = "abcdefghijklmnoprstuvwyABCDEF0123456789"
WORDS = ("the", "film", "good", "not", "##ing", "##ood", "don", "cls", "sep")


def made(*, lowercase: bool = True, added: tuple[str | AddedToken, ...] = ()) -> tokenizers.Tokenizer:
    vocabulary = (*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *"!,.'-[]é電", *WORDS)
    ids = {token: i for i, token in enumerate(vocabulary)}
    inner = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    inner.add_special_tokens(list(SPECIAL))
    inner.add_tokens(list(added))
    return inner


# One of each for the whole module: what a table has learnt from other texts must not matter.
FAST = {lowercase: Tokenizer(made(lowercase=lowercase), max_length=5000) for lowercase in (True, False)}
RUST = {lowercase: made(lowercase=lowercase) for lowercase in (True, False)}

ASCII = st.characters(max_codepoint=0x7F)
DENSE = st.sampled_from([*"abgiqz AZ'.,-[]!\t\n\r\x00\x0b\x0c\x1c\x1f\x7f", "the ", "[CLS]", "[sep]", "film", "\x80"])
TEXT = st.one_of(
    st.text(ASCII, max_size=60),
    st.lists(DENSE, max_size=40).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
ROW = st.one_of(TEXT, st.tuples(TEXT, TEXT))


def same(encoded: Encoded, rust: tokenizers.Tokenizer, rows: list[Any]) -> None:
    expected = rust.encode_batch(rows)
    assert encoded.units.rows.ids.tolist() == [number for encoding in expected for number in encoding.ids]
    assert encoded.units.rows.types.tolist() == [number for encoding in expected for number in encoding.type_ids]
    assert encoded.units.rows.lengths.tolist() == [len(encoding.ids) for encoding in expected]


@settings(max_examples=100)
@given(st.lists(ROW, min_size=1, max_size=6), st.booleans())
@example(["[CLS]", "the film", "[SEP] [sep]", ("[MASK]", "a"), "é", ("a", "電"), ("a", "b")], True)
@example([("", ""), "", ("a", ""), ("", "a")], False)
def test_equal_to_the_rust_tokenizer(rows: list[Any], lowercase: bool) -> None:
    same(FAST[lowercase].encode(rows), RUST[lowercase], rows)


# fmt: off
ODD = [
    "", "   ", "\n", "a\nb", "a\tb\r\nc", "don't  stop-it", "go\x00od", "go\x7fod", "go\x0cod\x0b\x1c\x1d\x1e\x1f",
    "[CLS] the", "the[SEP]film", "[ CLS ]", "[C\x00LS]", "[cls]", "[UNK][PAD][MASK]", "a" * 100, "a" * 101,
    "a" * 65 + " " + "b" * 64, "ab," * 5000, "".join(map(chr, range(128))), "café", "ÀÉ the", "電影 film",
    "\x80 a \x81", "\ufffd",
]
# fmt: on


@pytest.mark.parametrize("lowercase", [True, False])
def test_odd_cases(lowercase: bool) -> None:
    fast = Tokenizer(made(lowercase=lowercase), max_length=50_000)
    for text in ODD:
        rows: list[Any] = [text, "the film", (text, "film"), ("film", text), text]
        for _ in range(2):  # from the model, then from the table
            same(fast.encode(rows), RUST[lowercase], rows)


def test_ascii_does_not_reach_the_rust_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = Tokenizer(made(), max_length=50)
    seen: list[Any] = []
    slowly = fast._encode_slowly

    def encode(rows: Any) -> Any:
        seen.extend(rows)
        return slowly(rows)

    monkeypatch.setattr(fast, "_encode_slowly", encode)
    rows: list[Any] = ["the film", "é", ("good", "the"), "a [SEP] b", ("é", "a"), ("a", "é"), "[UNKN]", "don\x00't", ""]
    same(fast.encode(rows), made(), rows)
    assert seen == ["é", "a [SEP] b", ("é", "a"), ("a", "é")]
    same(fast.encode(["[SEP]"]), made(), ["[SEP]"])


@pytest.mark.parametrize(
    "added",
    [
        ("movie", AddedToken("Film", normalized=True)),
        (AddedToken("oo", normalized=False),),
        (AddedToken("good", single_word=True, lstrip=True, rstrip=True),),
    ],
)
def test_added_tokens_are_left_to_the_rust_tokenizer(added: tuple[Any, ...]) -> None:
    rows = ["a movie", "a FILM", "goods", "good", "a go\x00od", "the"]
    fast = Tokenizer(made(added=added), max_length=50)
    assert "word_table=True" in repr(fast)
    same(fast.encode(rows), made(added=added), rows)


def with_(change: Callable[[tokenizers.Tokenizer], object]) -> tokenizers.Tokenizer:
    inner = made()
    change(inner)
    return inner


def processor(single: str, pair: str) -> Callable[[tokenizers.Tokenizer], None]:
    def change(inner: tokenizers.Tokenizer) -> None:
        inner.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )

    return change


@pytest.mark.parametrize(
    "inner",
    [
        with_(lambda inner: setattr(inner, "normalizer", normalizers.Lowercase())),
        with_(lambda inner: setattr(inner, "normalizer", normalizers.BertNormalizer(clean_text=False))),
        with_(lambda inner: setattr(inner, "pre_tokenizer", pre_tokenizers.Whitespace())),
        with_(lambda inner: setattr(inner, "model", models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))),
        with_(lambda inner: inner.add_tokens(["two words"])),
        with_(lambda inner: inner.add_tokens(["é"])),
        with_(processor("[CLS] $A", "[CLS] $A $B")),
        with_(processor("[CLS]:1 $A:1 [SEP]:1", "[CLS] $A [SEP] $B:1 [SEP]:1")),
        with_(processor("$A [CLS] [SEP]", "$A [CLS] [SEP] $B:1 [SEP]:1")),
        with_(processor("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP]:1 $B:1 [SEP]:1")),
        with_(processor("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] [SEP] $B [SEP]")),
    ],
)
def test_other_tokenizers_have_no_table(inner: tokenizers.Tokenizer) -> None:
    rows: list[Any] = ["The film\x0cgood", ("a", "two words"), "É"]
    fast = Tokenizer(inner, max_length=50)
    assert "word_table=False" in repr(fast)
    same(fast.encode(rows), inner, rows)


ROBERTA = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
FRAMES = {
    "one type": with_(processor("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]")),
    "two between": with_(processor("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B:1 [SEP]:1")),
    "MPNet": with_(
        lambda inner: setattr(inner, "post_processor", processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)))
    ),
}


@pytest.mark.parametrize("frame", FRAMES)
@settings(max_examples=30)
@given(st.lists(ROW, min_size=1, max_size=6))
@example(["the", ("", ""), ("a", ""), "", ("", "a"), ("the film", "good"), ("é", "a")])
def test_other_frames_are_equal_too(frame: str, rows: list[Any]) -> None:
    fast = Tokenizer(FRAMES[frame], max_length=5000)
    assert "word_table=True" in repr(fast)
    same(fast.encode(rows), FRAMES[frame], rows)


def test_long_pairs_of_other_frames_are_cut_as_the_rust_tokenizer_cuts_them() -> None:
    rows = [("the film " * 9, "good"), ("a", "not good " * 9), ("the " * 9, "film " * 9)]
    for inner in FRAMES.values():
        fast, slow = (
            Tokenizer(inner, max_length=12, word_table=table).encode(rows).units.rows for table in (True, False)
        )
        for name in ("ids", "types", "offsets"):
            np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))
        assert fast.lengths.tolist() == [12, 12, 12]


def test_a_table_of_words_can_be_switched_off() -> None:
    slow = Tokenizer(made(), max_length=50, word_table=False)
    assert "word_table=False" in repr(slow)
    same(slow.encode(["The film", "é"]), made(), ["The film", "é"])


def test_the_table_is_bounded() -> None:
    asked: list[str] = []

    def encode(chunk: str) -> tuple[int, ...]:
        asked.append(chunk)
        return (len(chunk),)

    table = ChunkTable({"": (), "end": (-1,)}, encode, capacity=4)
    assert [table[chunk] for chunk in ("a", "bb", "a", "", "end")] == [(1,), (2,), (1,), (), (-1,)]
    assert asked == ["a", "bb"]
    assert table["ccc"] == (3,)  # full: emptied
    assert set(table) == {"", "end", "ccc"}
    assert table["d" * 65] == (65,)
    assert set(table) == {"", "end", "ccc"}
    table.clear()  # as another thread sees it between two steps
    assert table["end"] == (-1,)
    assert "end" not in asked


def test_a_full_table_changes_nothing() -> None:
    inner = made()
    small = AsciiWordPiece(
        lambda word: [piece.id for piece in inner.model.tokenize(word)],
        lowercase=True,
        cls=2,
        sep=3,
        reserved=SPECIAL,
        capacity=5,
    )
    rows: list[Any] = ["the film good", "not the film", "a b c d e f g", ("don't", "a b")]
    encoded, right = small.encode(rows)
    assert right.all()
    assert encoded.first_lengths.tolist() == [-1, -1, -1, 3]
    same(Encoded(Units.whole(encoded.rows), np.arange(4)), inner, rows)


def test_what_can_be_reserved() -> None:
    assert AsciiWordPiece.can_reserve("[CLS]")
    assert not any(map(AsciiWordPiece.can_reserve, ("", "a b", "a\tb", "é", "\x7f")))
