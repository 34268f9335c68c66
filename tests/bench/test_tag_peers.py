"""The token-classification pipeline on a checkpoint: the same tags as the checkpoint's last exit."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from cascade.exceptions import OptionError
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_words
from cascade.training.models.tagging import MultiExitTagger
from cascade_bench.peers import best_batch_size, contender
from cascade_bench.tag_peers import TagPipeline, last_exit
from tests.models import tiny

SENTENCES = [
    ["the", "plot", "is", "dull", "and", "the", "unforgettable", "actor", "was", "not", "bright"],
    ["good"],
    [],
    ["a", "very", "good", "film", ",", "never", "long"],
    ["xylophones", "!", "can't"],
]


def expected(model: MultiExitTagger, sentences: list[list[str]]) -> list[list[str]]:
    """Tags of the last exit at each word's first piece, one sentence at a time."""
    words = encode_words(Tokenizer(tiny.tokenizer(), max_length=64), sentences)
    made: list[list[str]] = []
    for row in range(words.n_rows):
        begin, end = words.rows.offsets[row : row + 2]
        ids = torch.from_numpy(words.rows.ids[begin:end])[None]
        with torch.no_grad():
            logits = model(ids, torch.ones_like(ids))["logits"][0, -1]
        mine = words.first_token[words.offsets[row] : words.offsets[row + 1]] - begin
        made.append([tiny.TAGS[number] for number in logits[mine].argmax(dim=-1).tolist()])
    return made


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_stock_model_answers_as_the_last_exit(tmp_path: Path, family: str) -> None:
    whole = tiny.tagger(tmp_path, family)
    stock = last_exit(tmp_path)
    assert type(stock).__name__.endswith("ForTokenClassification")
    ids = torch.randint(5, 100, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.no_grad():
        found, wanted = stock(ids, attention_mask=mask).logits, whole(ids, mask)["logits"][:, -1]
    torch.testing.assert_close(found[mask > 0], wanted[mask > 0])


def test_the_pipeline_tags_words_by_their_first_piece(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.tagger(tmp_path)
    with caplog.at_level(logging.DEBUG, logger="transformers"):
        pipeline = TagPipeline.load(tmp_path, threads=torch.get_num_threads(), max_length=64)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    wanted = expected(model, SENTENCES)
    assert len({tag for own in wanted for tag in own}) > 1
    for batch_size in (1, 2, 8):
        assert pipeline.labels(SENTENCES, batch_size=batch_size) == wanted
    assert contender(pipeline, 2).run(SENTENCES).labels == wanted
    assert pipeline.labels([], batch_size=2) == []


def test_every_word_has_a_tag(tmp_path: Path) -> None:
    tiny.tagger(tmp_path)
    pipeline = TagPipeline.load(tmp_path, threads=torch.get_num_threads(), max_length=8)
    found = pipeline.labels([["good"] * 30, ["\u200b", "bad", "\u0301"]], batch_size=2)
    assert [len(own) for own in found] == [30, 3]
    assert set(found[0][6:]) == {tiny.TAGS[0]}  # beyond the 8 tokens that it reads


def test_the_best_batch_size(tmp_path: Path) -> None:
    tiny.tagger(tmp_path)
    pipeline = TagPipeline.load(tmp_path, threads=torch.get_num_threads(), max_length=64)
    best, rates = best_batch_size(pipeline, SENTENCES, sizes=(1, 4))
    assert set(rates) == {1, 4}
    assert rates[best] == max(rates.values()) > 0


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--checkpoint must be a folder or Hub id with a model for transformers"):
        TagPipeline.load(tmp_path, threads=torch.get_num_threads(), max_length=8)
