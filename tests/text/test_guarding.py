"""Broken and hostile tokenizers: one line at load, or of the text that they cannot take."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from cascade.exceptions import BundleError, CascadeError
from cascade.text.guarding import guarded
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_texts
from tests.models.toy import toy_tokenizer

Raw = dict[str, Any]


def written(change: Callable[[Raw], object]) -> bytes:
    """The toy's `tokenizer.json` with a change."""
    raw: Raw = json.loads(toy_tokenizer().to_str())
    change(raw)
    return json.dumps(raw).encode()


def doubled(times: int, first: str = "a", second: str = "aa") -> Raw:
    one = {"type": "Replace", "pattern": {"String": first}, "content": second}
    return {"type": "Sequence", "normalizers": [one] * times}


def slow_regex() -> Raw:
    return {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}


SWAPPED = {"type": "Sequence", "normalizers": [
    {"type": "Replace", "pattern": {"Regex": "[xyz]"}, "content": "qq"},
    {"type": "Replace", "pattern": {"Regex": "q+"}, "content": "x" * 60},
    {"type": "Replace", "pattern": {"String": "x"}, "content": "y" * 60},
]}  # fmt: skip
BROKEN: list[tuple[Callable[[Raw], object], str]] = [
    (lambda raw: raw.pop("model"), "reads, but: "),
    (lambda raw: raw["model"].update(vocab={}), "takes any text, but: |must have a vocabulary"),
    (lambda raw: raw["model"].update(unk_token="[NO]"), "takes any text, but: "),
    (lambda raw: raw["post_processor"]["special_tokens"].clear(), ", but: "),
    (lambda raw: raw.update(pre_tokenizer=slow_regex()), "takes any text, but: "),
    (lambda raw: raw.update(normalizer=doubled(16)), "reads, but: its normalizer makes texts more than 64 times as lo"),
    (lambda raw: raw.update(normalizer=doubled(16, "ζω", "ζωζω")), "more than 64 times as long"),
    (lambda raw: raw.update(normalizer=SWAPPED), "more than 64 times as long"),
    (lambda raw: raw.update(normalizer=doubled(1, "ζ", "x" * 65)), "more than 256 steps, or inserts more than 64"),
    (lambda raw: raw.update(normalizer=doubled(257, "ζ", "ζ")), "more than 256 steps"),
    (lambda raw: raw.update(normalizer={"type": "Prepend", "prepend": "x" * 65}), "inserts more than 64"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_broken_tokenizers_are_refused_in_one_line(change: Callable[[Raw], object], message: str) -> None:
    with pytest.raises(BundleError, match=rf"^(t.json|the tokenizer) must .*({message})") as caught:
        Tokenizer.from_bytes(written(change), name="t.json", max_length=16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.BertNormalizer(),
        normalizers.NFKC(),
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        normalizers.Sequence(
            [normalizers.Replace(tokenizers.Regex(r"\d+"), "[NUMBER]"), normalizers.Replace("\n", " ")]
        ),
        normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()]),
    ],
)
def test_usual_normalizers_are_taken(normalizer: Any) -> None:
    inner = toy_tokenizer()
    inner.normalizer = normalizer
    assert Tokenizer.from_bytes(inner.to_str().encode(), name="t.json", max_length=16).max_length == 16


def without_unknown() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


@pytest.mark.parametrize("pooled", [True, False])
def test_a_text_that_it_cannot_take_is_one_line(pooled: bool) -> None:
    ours = Tokenizer(without_unknown(), max_length=16, pool=nullcontext if pooled else None)
    asked: list[Callable[[], object]] = [
        lambda: ours.encode(["a b", "a c"]),
        lambda: encode_texts(ours, ["c"], per_piece=True),
        lambda: ours.words["c"],
    ]
    for ask in asked:
        with pytest.raises(BundleError, match=r"the tokenizer must take any text, but: .*UNK.*; save the tokenizer"):
            ask()


def test_interruptions_and_own_errors_pass() -> None:
    class PanicException(BaseException):
        """As pyo3 calls it."""

    with pytest.raises(BundleError, match="rule, but: a b; remedy"), guarded("rule", "remedy"):
        raise PanicException("a\n b")
    for error in (KeyboardInterrupt(), SystemExit(3), CascadeError("mine"), MemoryError()):
        with pytest.raises(type(error)) as caught, guarded("rule"):
            raise error
        assert caught.value is error
