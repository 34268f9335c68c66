"""What the tests of tagging share: tiny random first tiers, sentences with tags, random rows of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BertForTokenClassification, PreTrainedModel

from cascade.core.rows import IntArray, Rows, Units, offsets_of
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


def random_words(counts: Sequence[int], seed: int, *, most_pieces: int = 3) -> Units:
    """Rows of so many words, of 1 to `most_pieces` pieces each, between [CLS] and [SEP]."""
    rng = np.random.default_rng(seed)
    vocabulary = tiny.tokenizer().get_vocab_size()
    pieces = rng.integers(1, most_pieces + 1, sum(counts))
    offsets = offsets_of(np.array(counts, np.int64))
    ids: list[int] = []
    firsts: list[int] = []
    ends = [0]
    for row in range(len(counts)):
        ids.append(2)
        for size in pieces[offsets[row] : offsets[row + 1]]:
            firsts.append(len(ids))
            ids += rng.integers(5, vocabulary, size).tolist()
        ids.append(3)
        ends.append(len(ids))
    batch = Rows(ids=_whole(ids), types=np.zeros(len(ids), np.int64), offsets=_whole(ends))
    return Units(batch, _whole(firsts), pieces, offsets)


def tier1_transformer(folder: Path, *, labels: Sequence[str] = tiny.TAGS, seed: int = 2) -> BertForTokenClassification:
    """An ordinary token classifier of one layer in `folder`."""
    torch.manual_seed(seed)
    model = BertForTokenClassification(tiny.named(tiny.config("bert", layers=1), labels, None))
    _save(model, folder)
    return model


def tier1_static(folder: Path, *, labels: Sequence[str] = tiny.TAGS, seed: int = 3) -> StaticForTokenClassification:
    """A static tagger in `folder`."""
    torch.manual_seed(seed)
    made = StaticTaggerConfig(
        vocab_size=tiny.tokenizer().get_vocab_size(), width=16, layers=2, max_position_embeddings=64
    )
    tiny.named(made, labels, None)
    model = StaticForTokenClassification(made)
    _save(model, folder)
    return model


def _save(model: PreTrainedModel, folder: Path) -> None:
    tiny.spread(model)
    model.train(False)
    model.save_pretrained(folder)
    tiny.save_tokenizer(folder)


def _whole(values: Sequence[int]) -> IntArray:
    return np.array(values, np.int64)
