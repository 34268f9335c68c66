"""Texts to rows: equality with the Rust tokenizer, windows, pairs that are too long, odd and bad texts."""

from __future__ import annotations

import json
from collections import UserDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from cascade.core.rows import Encoded
from cascade.exceptions import BundleError, InputError, OptionError
from cascade.text import tokenizer as tokenizer_module
from cascade.text.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ("the", "film", "good", "bad", "dull", "cafe", "電", "影")


def bert() -> tokenizers.Tokenizer:
    """A WordPiece tokenizer as BERT's, with truncation and padding stored in it."""
    vocabulary = (*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *"!,.'-[]é\ufffd", *WORDS)
    ids = {token: i for i, token in enumerate(vocabulary)}
    made = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(list(SPECIAL))
    made.enable_truncation(5)
    made.enable_padding(length=7)
    return made


def roberta() -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer as RoBERTa's: two special tokens between the texts of a pair, all types 0."""
    alphabet = ("<s>", "<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()))
    made = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.add_special_tokens(["<s>", "<pad>", "</s>"])
    return made


def bare() -> tokenizers.Tokenizer:
    """A tokenizer without special tokens."""
    made = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def typed_end() -> tokenizers.Tokenizer:
    """A tokenizer as XLNet's: the special tokens at the end, the last of another type."""
    made = bare()
    made.add_special_tokens(["<sep>", "<cls>"])
    made.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2",
        pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", 3), ("<cls>", 4)],
    )
    return made


MAKERS = {"bert": bert, "roberta": roberta, "bare": bare, "typed_end": typed_end}


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]


def rows_of(encoded: Encoded) -> list[list[int]]:
    rows = encoded.units.rows
    return [rows.ids[begin:end].tolist() for begin, end in pairwise(rows.offsets)]


def types_of(encoded: Encoded) -> list[list[int]]:
    rows = encoded.units.rows
    return [rows.types[begin:end].tolist() for begin, end in pairwise(rows.offsets)]


def rust_of(maker: Callable[[], tokenizers.Tokenizer]) -> tokenizers.Tokenizer:
    """The tokenizer itself, which neither cuts nor pads."""
    rust = maker()
    rust.no_truncation()
    rust.no_padding()
    return rust


# fmt: off
ODD = [
    "", " ", "a", "The film, GOOD!", "[CLS] in the text [SEP]", "é café 電影 Ω",
    "the\x00film\x7f \x0c\x1f dull\r\n\tbad", "x" * 101, "😀 \u200d\u202e \ufffd",
]
# fmt: on


def test_singles_and_pairs_equal_the_rust_tokenizer(maker: Any) -> None:
    ours = Tokenizer(maker(), max_length=1000)
    texts: list[Any] = [*ODD, *((a, b) for a in ODD for b in ODD)]
    encoded, expected = ours.encode(texts), rust_of(maker).encode_batch(texts)
    assert rows_of(encoded) == [encoding.ids for encoding in expected]
    assert types_of(encoded) == [encoding.type_ids for encoding in expected]
    assert encoded.numbers.tolist() == list(range(len(texts)))
    assert not len(encoded.truncated)
    assert types_of(ours.encode(ODD)) == [encoding.type_ids for encoding in expected[: len(ODD)]]


def test_a_text_may_be_given_in_three_ways() -> None:
    ours = Tokenizer(bert(), max_length=20)
    pairs: list[Any] = [("a", "b"), {"text": "a", "text_pair": "b"}, UserDict(text="a", text_pair="b")]
    assert {tuple(row) for row in rows_of(ours.encode(pairs))} == {(2, 5, 3, 6, 3)}
    singles: list[Any] = ["a", {"text": "a"}, {"text": "a", "text_pair": None}, np.str_("a")]
    assert {tuple(row) for row in rows_of(ours.encode(singles))} == {(2, 5, 3)}
    assert rows_of(ours.encode(iter(["a"]))) == [[2, 5, 3]]


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(5, 12), st.booleans(), st.data())
def test_windows_equal_those_of_the_rust_tokenizer(
    lengths: list[int], max_length: int, word_table: bool, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, max_length - 3))
    texts = [" ".join((data.draw(st.sampled_from("aé")) + LETTERS * 2)[:length]) for length in lengths]
    encoded = Tokenizer(bert(), max_length=max_length, overlap=overlap, word_table=word_table).encode(texts)
    rust = rust_of(bert)
    rust.enable_truncation(max_length, stride=overlap)
    expected = [[encoding, *encoding.overflowing] for encoding in map(rust.encode, texts)]
    assert rows_of(encoded) == [window.ids for windows in expected for window in windows]
    assert encoded.numbers.tolist() == [i for i, windows in enumerate(expected) for _ in windows]
    assert not len(encoded.truncated)


@pytest.mark.parametrize("family", ["bert", "roberta", "typed_end"])
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6), st.integers(6, 16))
def test_long_pairs_are_cut_as_by_the_rust_tokenizer(
    family: str, sizes: list[tuple[int, int]], max_length: int
) -> None:
    made = MAKERS[family]
    texts = [("a " * first, "b " * second) for first, second in sizes]
    encoded = Tokenizer(made(), max_length=max_length).encode(texts)
    rust = rust_of(made)
    whole = rust.encode_batch(texts)
    rust.enable_truncation(max_length, strategy="longest_first")
    expected = rust.encode_batch(texts)
    assert rows_of(encoded) == [encoding.ids for encoding in expected]
    assert types_of(encoded) == [encoding.type_ids for encoding in expected]
    assert encoded.truncated.tolist() == [i for i, encoding in enumerate(whole) if len(encoding.ids) > max_length]
    assert encoded.numbers.tolist() == list(range(len(texts)))


@pytest.mark.parametrize("family", ["bert", "roberta", "typed_end"])
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6), st.integers(6, 16))
def test_what_is_cut_at_the_left_is_what_the_rust_tokenizer_cuts(
    family: str, sizes: list[tuple[int, int]], max_length: int
) -> None:
    rust = rust_of(MAKERS[family])
    rust.enable_truncation(max_length, strategy="longest_first", direction="left")
    pairs = [("".join(LETTERS[:first]) + " a" * first, "b " * second + "a b") for first, second in sizes]
    texts: list[Any] = [*pairs, *(" ".join(pair) for pair in pairs)]
    encoded = Tokenizer(MAKERS[family](), max_length=max_length).with_truncation("left").encode(texts)
    expected = rust.encode_batch(texts)
    assert rows_of(encoded) == [encoding.ids for encoding in expected]
    assert types_of(encoded) == [encoding.type_ids for encoding in expected]
    assert encoded.numbers.tolist() == list(range(len(texts)))


def test_windows_of_a_tokenizer_without_special_tokens() -> None:
    encoded = Tokenizer(bare(), max_length=2, overlap=0).encode(["a b a b b", "a", ""])
    assert rows_of(encoded) == [[1, 2], [1, 2], [2], [1], []]
    assert encoded.numbers.tolist() == [0, 0, 0, 1, 2]


def test_windows_and_long_pairs_in_one_batch() -> None:
    encoded = Tokenizer(bert(), max_length=7, overlap=0).encode([("a " * 9, "b b"), "c " * 6, ("d", "e")])
    assert rows_of(encoded) == [[2, 5, 5, 3, 6, 6, 3], [2, 7, 7, 7, 7, 7, 3], [2, 7, 3], [2, 8, 3, 9, 3]]
    assert types_of(encoded) == [[0, 0, 0, 0, 1, 1, 1], [0] * 7, [0] * 3, [0, 0, 0, 1, 1]]
    assert encoded.numbers.tolist() == [0, 1, 1, 2]
    assert encoded.truncated.tolist() == [0]


@pytest.mark.parametrize("family", MAKERS)
@given(st.lists(st.text(st.characters(exclude_categories=())), max_size=4))
def test_any_string_has_an_encoding(family: str, texts: list[str]) -> None:
    encoded = Tokenizer(MAKERS[family](), max_length=6).encode(texts)
    assert np.unique(encoded.numbers).tolist() == list(range(len(texts)))
    assert encoded.units.rows.lengths.max(initial=0) <= 6
    assert encoded.units.rows.ids.dtype == encoded.units.rows.offsets.dtype == encoded.numbers.dtype == np.int64


def test_surrogates() -> None:
    ours = Tokenizer(roberta(), max_length=100)
    broken = ours.encode(["a\ud800b", "\udfff", "\ud83d\ude00", ("\ud800", "a")])
    repaired = ours.encode(["a\ufffdb", "\ufffd", "😀", ("\ufffd", "a")])
    assert rows_of(broken) == rows_of(repaired)


@pytest.mark.parametrize("text", ["a" * 20_000, "a " * 10_000, "é " * 10_000, "電" * 20_000, "\x00" * 20_000])
def test_very_long_texts(text: str) -> None:
    encoded = Tokenizer(bert(), max_length=128).encode([text, "a"])
    assert encoded.units.rows.lengths.max() <= 128
    assert encoded.numbers[-1] == 1


def test_many_texts_are_encoded_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"film {i} é" if i % 3 else f"film {i}" for i in range(10)]
    whole = Tokenizer(bert(), max_length=8).encode(texts)
    monkeypatch.setattr(tokenizer_module, "CHUNK", 3)
    portions = Tokenizer(bert(), max_length=8).encode(texts)
    assert rows_of(portions) == rows_of(whole)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a", r"texts must be a list of texts, got str; write \[text\] for one text"),
        (b"a", r"texts must be a list of texts, got bytes"),
        (None, r"texts must be a list of texts, got NoneType"),
        (3, r"texts must be a list of texts, got int"),
        ({"text": "a"}, r"texts must be a list of texts, got dict"),
        (["a", None], r"a text must be a string, got a null as text 1; give an empty text"),
        (["a", 3], r"a text must be a string, got int as text 1"),
        ([b"a"], r"a text must be a string, got bytes as text 0"),
        (["a", ("a",)], r"a pair must hold two texts, got 1 in text 1; give"),
        ([("a", "b", "c")], r"a pair must hold two texts, got 3 in text 0"),
        ([["a", "b"]], r"a text must be no list, got \['a', 'b'\] as text 0; write \(first, second\) for a pair, or"),
        ([()], r"a pair must hold two texts, got 0 in text 0"),
        ([("a", None)], r"both texts of a pair must be strings, got NoneType as the second of text 0; give"),
        ([(1, "a")], r"both texts of a pair must be strings, got int as the first of text 0"),
        ([{"txt": "a"}], r"must have the key \"text\", got 'txt' in text 0; give"),
        ([{}], r"must have the key \"text\", got none in text 0"),
        ([{"text": None}], r"got NoneType as the first of text 0"),
        ([{"text": "a", "text_pair": 3}], r"got int as the second of text 0"),
    ],
)
def test_bad_texts(texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Tokenizer(bert(), max_length=8).encode(texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 4}, r"max_length must be at least 5 \(special tokens and a text\), got 4"),
        ({"max_length": 8, "overlap": 6}, r"overlap must be in \[0, 5\] .* got 6; lower overlap or raise max_length"),
        ({"max_length": 8, "overlap": -1}, r"overlap must be in \[0, 5\] .* got -1"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Tokenizer(bert(), **options)  # type: ignore[arg-type]  # `word_table` is not among them


def test_from_bytes() -> None:
    text: str = bert().to_str()
    ours = Tokenizer.from_bytes(text.encode(), name="tokenizer.json", max_length=34)
    assert repr(ours) == "Tokenizer(max_length=34, overlap=4, word_table=True)"
    assert rows_of(ours.encode(["the film is good and not at all dull"]))[0][:3] == [2, *map(ours_id, ("the", "film"))]
    wrong = json.dumps({**json.loads(text), "model": {"type": "Nonsense"}}).encode()
    for contents in (wrong, b"{}", b"", b"\xff"):
        with pytest.raises(BundleError, match=r"n.json must be a tokenizer.json that this release of tokenizers reads"):
            Tokenizer.from_bytes(contents, name="n.json", max_length=8)


def ours_id(word: str) -> int:
    return int(bert().token_to_id(word))


def test_the_vocabulary_is_not_built_for_nothing() -> None:
    class WithoutVocabulary:
        def __init__(self, inner: tokenizers.Tokenizer) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            assert name != "get_vocab", "takes as long as all the rest of loading"
            return getattr(self.inner, name)

    ours: Any = Tokenizer(WithoutVocabulary(roberta()), max_length=20)
    assert rows_of(ours.encode(["a"])) == rows_of(Tokenizer(roberta(), max_length=20).encode(["a"]))


def test_a_tokenizer_without_a_vocabulary() -> None:
    with pytest.raises(BundleError, match="must have a vocabulary"):
        Tokenizer(tokenizers.Tokenizer(models.BPE()), max_length=8)
