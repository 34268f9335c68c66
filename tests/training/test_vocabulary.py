"""Pruned vocabularies still cover any text, and kept pieces keep their vectors."""

from __future__ import annotations

import json
import string

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from cascade.exceptions import OptionError
from cascade.training.checkpoint import kept_pieces, prune, shrink_embedding
from tests.models import tiny

TEXTS = ["the film was good", "the plot was dull", "the the the"]
SMALLEST = 5 + 94 + 26


def pruned(size: int) -> Tokenizer:
    return Tokenizer.from_str(prune(tiny.tokenizer().to_str(), TEXTS, size=size)[0])


def test_frequent_pieces_stay_first_then_the_old_order() -> None:
    few, more = pruned(SMALLEST + 2).get_vocab(), pruned(SMALLEST + 8).get_vocab()
    assert len(few) == SMALLEST + 2
    assert {"the", "was"} <= few.keys()
    assert "film" not in few
    # "a" is a character as well; the next of the old vocabulary are "an" and "is".
    assert {"the", "film", "was", "good", "plot", "dull", "an", "is"} <= more.keys()
    assert pruned(10_000).get_vocab() == tiny.tokenizer().get_vocab()


@given(st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " ", max_size=40))
def test_any_ascii_text_is_covered(text: str) -> None:
    assume(not any(token in text for token in tiny.SPECIAL))
    # Digits have no continuation piece in the tiny vocabulary; what it knows, the pruned one must know.
    assume("[UNK]" not in tiny.tokenizer().encode(text).tokens)
    assert "[UNK]" not in pruned(SMALLEST + 2).encode(text).tokens


def test_ids_lead_to_the_same_vectors() -> None:
    old = tiny.tokenizer()
    text, kept = prune(old.to_str(), TEXTS, size=SMALLEST + 6)
    new = Tokenizer.from_str(text)
    table = torch.nn.Embedding(old.get_vocab_size(), 4, padding_idx=0)
    small = shrink_embedding(table, kept)
    text = "the film was good"
    np.testing.assert_array_equal(
        small(torch.tensor(new.encode(text).ids)).detach().numpy(),
        table(torch.tensor(old.encode(text).ids)).detach().numpy(),
    )
    assert small.padding_idx == 0
    assert new.encode(text).tokens == old.encode(text).tokens


def test_bert_processing_is_renumbered() -> None:
    spec = json.loads(tiny.tokenizer().to_str())
    ids = spec["model"]["vocab"]
    spec["post_processor"] = {
        "type": "BertProcessing",
        "sep": ["[SEP]", ids["[SEP]"]],
        "cls": ["[CLS]", ids["[CLS]"]],
    }
    new = Tokenizer.from_str(prune(json.dumps(spec), TEXTS, size=SMALLEST + 2)[0])
    assert new.encode("the").tokens == ["[CLS]", "the", "[SEP]"]
    assert new.encode("the").ids == [new.token_to_id(token) for token in ("[CLS]", "the", "[SEP]")]


def test_what_cannot_be_pruned() -> None:
    with pytest.raises(OptionError, match=rf"--vocabulary must be at least {SMALLEST} .*, got 20"):
        prune(tiny.tokenizer().to_str(), TEXTS, size=20)


def test_pieces_that_occur_are_kept_and_then_the_first() -> None:
    ids = np.array([2, 9, 3, 2, 7, 3])
    assert kept_pieces(ids, size=6, vocabulary=12).tolist() == [0, 1, 2, 3, 7, 9]
    assert kept_pieces(ids, size=1, vocabulary=12).tolist() == [2, 3, 7, 9]
    assert kept_pieces(ids, size=99, vocabulary=12).tolist() == list(range(12))
