"""Words to rows: equality with the Rust tokenizer, odd words, offsets that slice the caller's own strings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import Units
from cascade.exceptions import InputError
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import TextWords, WordEncoder, encode_texts, encode_words
from tests.text.test_tokenizer import MAKERS, bert, rust_of

SURROGATES = st.characters(categories=["Cs", "L", "M", "Cf", "Zs", "P", "N", "So"])
# fmt: off
ODD = [
    "the", "film", "Dull!", "don't", "[CLS]", "café", "e\u0301", "\u0301", "\u200b", "", " ", "a b", "電影", "\ufeff",
    "שלום", "مرحبا", "x" * 5000, "😀", "\ud83d", "\udc00x", "\ud83d\ude00",
]
# fmt: on


def row(words: Units, number: int) -> list[int]:
    batch = words.rows
    return [int(token) for token in batch.ids[batch.offsets[number] : batch.offsets[number + 1]]]


def units(words: Units) -> list[list[int]]:
    """The token ids of every word."""
    return [
        words.rows.ids[first : first + size].tolist()
        for first, size in zip(words.first_token, words.n_tokens, strict=True)
    ]


def check(words: Units, counts: list[int]) -> None:
    """What holds for every `Units`."""
    assert np.diff(words.offsets).tolist() == counts
    assert words.first_token.shape == words.n_tokens.shape == (sum(counts),)
    assert (words.n_tokens >= 1).all()
    rows = np.repeat(np.arange(len(counts)), counts)
    assert (words.first_token >= words.rows.offsets[rows]).all()
    assert (words.first_token + words.n_tokens <= words.rows.offsets[rows + 1]).all()
    ends = words.first_token + words.n_tokens
    assert (words.first_token[1:] >= ends[:-1]).all()


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_words_equal_the_rust_tokenizer(maker: Any) -> None:
    rust = rust_of(maker)
    sentences = [["a", "film", "dull!"], [], ["b"], ["Good", "1", "café"]]
    tokenizer = Tokenizer(maker(), max_length=1000)
    words = encode_words(tokenizer, sentences)
    check(words, [3, 0, 1, 3])
    # A byte-level word behind another is read as in their text, with a space: transformers refuses it without.
    theirs_of = [[tokenizer.space * (place > 0) + word for place, word in enumerate(own)] for own in sentences]
    encodings = rust.encode_batch(theirs_of, is_pretokenized=True)
    for number, encoding in enumerate(encodings):
        types = words.rows.types[words.rows.offsets[number] : words.rows.offsets[number + 1]]
        assert row(words, number) == encoding.ids
        assert types.tolist() == encoding.type_ids
    theirs = [
        [token for token, word in zip(encoding.ids, encoding.word_ids, strict=True) if word == place]
        for encoding, sentence in zip(encodings, sentences, strict=True)
        for place in range(len(sentence))
    ]
    assert units(words) == theirs


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=5), max_size=4))
def test_any_words_equal_the_rust_tokenizer(sentences: list[list[str]]) -> None:
    words = encode_words(TOKENIZER, sentences)
    check(words, [len(sentence) for sentence in sentences])
    theirs = [
        [token for token, word in zip(encoding.ids, encoding.word_ids, strict=True) if word == place] or [1]
        for encoding, sentence in zip(RUST.encode_batch(sentences, is_pretokenized=True), sentences, strict=True)
        for place in range(len(sentence))
    ]
    assert units(words) == theirs


TOKENIZER = Tokenizer(bert(), max_length=64)
RUST = rust_of(bert)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_every_odd_word_has_a_piece(maker: Any) -> None:
    tokenizer = Tokenizer(maker(), max_length=20)
    words = encode_words(tokenizer, [ODD, ["the"], ODD])
    check(words, [len(ODD), 1, len(ODD)])
    room = 20 - len(tokenizer.special.prefix) - len(tokenizer.special.suffix)
    assert words.n_tokens.max() <= room
    assert words.n_tokens[: len(ODD)].tolist() == words.n_tokens[-len(ODD) :].tolist()


def test_a_word_that_is_dropped_becomes_the_unknown_token() -> None:
    words = encode_words(TOKENIZER, [["\u200b", "", "\u0301", "film", "\udc00"]])
    known = RUST.token_to_id("film")
    assert units(words) == [[1], [1], [1], [known], [1]]


def test_a_word_longer_than_a_row_is_cut_and_a_sentence_is_not() -> None:
    words = encode_words(TOKENIZER, [["!" * 5000], ["film"] * 500])
    check(words, [1, 500])
    assert words.n_tokens[0] == 62
    assert words.rows.lengths.tolist() == [64, 502]


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ("the film", r"sentences must be a list of lists of words, got str; give lists of words"),
        (3, r"sentences must be a list of lists of words, got int"),
        ([["the"], "film"], r"a sentence must be a list of words, got str as sentence 1; give lists of words"),
        ([3.5], r"a sentence must be a list of words, got float as sentence 0"),
        ([["a"], ["the", 3]], r"a word must be a string, got int as word 1 of sentence 1; give lists of words"),
        ([[None]], r"a word must be a string, got NoneType as word 0 of sentence 0"),
    ],
)
def test_what_is_no_sentence(sentences: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_words(TOKENIZER, sentences)


def test_nothing() -> None:
    check(encode_words(TOKENIZER, []), [])
    check(encode_texts(TOKENIZER, [], per_piece=False).words, [])
    empty = encode_texts(TOKENIZER, ["", " ", "\u200b"], per_piece=False)
    check(empty.words, [0, 0, 0])
    assert empty.words.rows.ids.tolist() == [2, 3] * 3


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("per_piece", [True, False])
def test_texts_equal_the_rust_tokenizer(maker: Any, per_piece: bool) -> None:
    rust = rust_of(maker)
    texts = ["The film, good!", "", "a b", "Café don't [CLS] 電影 e\u0301x"]
    encoded = encode_texts(Tokenizer(maker(), max_length=1000), texts, per_piece=per_piece)
    expected = []
    for number, encoding in enumerate(rust.encode_batch(texts)):
        assert row(encoded.words, number) == encoding.ids
        inner = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        if per_piece:
            expected += [[encoding.ids[place]] for place in inner]
        else:
            groups = dict.fromkeys(encoding.word_ids[place] for place in inner)
            expected += [
                [encoding.ids[place] for place in inner if encoding.word_ids[place] == group] for group in groups
            ]
    assert units(encoded.words) == expected


def slices(texts: list[str], encoded: TextWords) -> list[str]:
    begins, ends = encoded.begins.tolist(), encoded.ends.tolist()
    return [
        texts[text][begin:end] for text, begin, end in zip(encoded.words.row_of.tolist(), begins, ends, strict=True)
    ]


def test_offsets_slice_the_callers_own_strings() -> None:
    texts = ["The  film,\tCafé", "שלום 電影 film", "\ud83d film \udc00\ud83d\ude00 dull 😀 bad"]
    encoded = encode_texts(TOKENIZER, texts, per_piece=False)
    # fmt: off
    assert slices(texts, encoded) == [
        "The", "film", ",", "Café",
        "שלום", "電", "影", "film",
        "film", "\ud83d\ude00", "dull", "😀", "bad",
    ]
    # fmt: on


@given(st.lists(st.text(SURROGATES, max_size=12), max_size=4), st.booleans())
def test_offsets_of_any_texts_rise_inside_the_text(texts: list[str], per_piece: bool) -> None:
    encoded = encode_texts(TOKENIZER, texts, per_piece=per_piece)
    check(encoded.words, np.diff(encoded.words.offsets).tolist())
    for number, text in enumerate(texts):
        mine = slice(int(encoded.words.offsets[number]), int(encoded.words.offsets[number + 1]))
        begins, ends = encoded.begins[mine], encoded.ends[mine]
        assert ((begins >= 0) & (begins <= ends) & (ends <= len(text))).all()
        assert (np.diff(begins) >= 0).all()


def test_words_of_a_text_keep_their_whole_offsets_when_pieces_are_cut() -> None:
    encoded = encode_texts(Tokenizer(bert(), max_length=8), ["film " + "z" * 60 + " bad"], per_piece=False)
    assert encoded.words.n_tokens.tolist() == [1, 6, 1]
    assert encoded.begins.tolist() == [0, 5, 66]
    assert encoded.ends.tolist() == [4, 65, 69]


def test_a_text_must_be_a_string() -> None:
    with pytest.raises(InputError, match=r"a text must be a string, got list as text 1; give words that are split"):
        encode_texts(TOKENIZER, ["a", ["b"]], per_piece=True)  # type: ignore[list-item]


def test_byte_level_words_are_those_of_their_text() -> None:
    inner = MAKERS["roberta"]()
    found = encode_words(Tokenizer(inner, max_length=32), [["Sarah", "lives"], ["she"], []])
    ids = [number for text in ("Sarah lives", "she", "") for number in inner.encode(text).ids]
    assert found.rows.ids.tolist() == ids


def test_words_that_no_row_has_room_for_are_counted() -> None:
    tokenizer = Tokenizer(bert(), max_length=10)  # with room for 8
    fits, long = "x" * 8, "x" * 9
    found = WordEncoder(tokenizer).encode([["a", fits], ["a", long, "b"], [], [long] * 2])
    assert found.truncated.tolist() == [1, 3]
    assert found.units.n_tokens.tolist() == [1, 8, 1, 8, 1, 8, 8]
    assert units(found.units)[1] == units(found.units)[3]
    assert WordEncoder(tokenizer).encode([["a", fits]]).truncated.tolist() == []
    assert encode_texts(tokenizer, ["a", f"{fits} {long}", long, fits], per_piece=False).truncated.tolist() == [1, 2]
    assert encode_texts(tokenizer, [f"{fits} {long}"], per_piece=True).truncated.tolist() == []
    cut = tokenizer.with_truncation(True)
    assert encode_texts(cut, [fits, f"{fits} a"], per_piece=True).truncated.tolist() == [1]
