"""What the tests of tagging share: tiny random first tiers, sentences with tags, random rows of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BertForTokenClassification

from cascade.core.rows import Rows, Units, offsets_of
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_words
from cascade.training.models.static import StaticForTokenClassification, StaticTaggerConfig
from tests.models import tiny

SENTENCES = (
    ("good",),
    ("a", "very", "good", "film"),
    ("the", "plot", "is", "dull", "and", "the", "actor", "was", "not", "bright", ",", "but", "we", "laugh"),
    ("bad", "!"),
    ("it", "was", "never", "unforgettable"),
    ("they", "cry", "in", "the", "long", "scene", "with", "the", "cold", "story"),
    ("xylophones", "begin"),
    ("a", "story", "to", "begin", "with", "\u0301", "."),
)
TAGS = tuple(tuple(tiny.TAGS[(len(word) + place) % 3] for place, word in enumerate(own)) for own in SENTENCES)


def words_of(sentences: Sequence[Sequence[str]] = SENTENCES) -> Units:
    """These sentences as the tiny tokenizer reads them; words that it does not know have a piece per letter."""
    return encode_words(Tokenizer(tiny.tokenizer(), max_length=64), [list(own) for own in sentences])


def random_words(counts: Sequence[int], seed: int) -> Units:
    """Rows of so many words, of 1 to 3 pieces each, between [CLS] and [SEP]."""
    rng = np.random.default_rng(seed)
    vocabulary = tiny.tokenizer().get_vocab_size()
    pieces = rng.integers(1, 4, sum(counts))
    offsets = offsets_of(np.array(counts, np.int64))
    ids: list[int] = []
    firsts: list[int] = []
    ends = [0]
    for own in np.split(pieces, offsets[1:-1]):
        firsts += (len(ids) + 1 + np.cumsum(own) - own).tolist()
        ids += [2, *rng.integers(5, vocabulary, own.sum()).tolist(), 3]
        ends.append(len(ids))
    whole, first, edges = (np.array(values, np.int64) for values in (ids, firsts, ends))
    return Units(Rows(ids=whole, types=np.zeros_like(whole), offsets=edges), first, pieces, offsets)


def tier1_transformer(folder: Path) -> BertForTokenClassification:
    """An ordinary token classifier of one layer in `folder`."""
    torch.manual_seed(2)
    made = tiny.named(tiny.config("bert", layers=1), tiny.TAGS, None)
    return tiny.kept(BertForTokenClassification(made), folder)


def tier1_static(folder: Path, *, labels: Sequence[str] = tiny.TAGS) -> StaticForTokenClassification:
    """A static tagger in `folder`."""
    torch.manual_seed(3)
    vocabulary = tiny.tokenizer().get_vocab_size()
    made = StaticTaggerConfig(vocab_size=vocabulary, width=16, layers=2, max_position_embeddings=64)
    return tiny.kept(StaticForTokenClassification(tiny.named(made, labels, None)), folder)
