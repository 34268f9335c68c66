"""The pipeline on a checkpoint of either task: the same answers as the last exit, with nothing else in the way."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cascade.exceptions import OptionError
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_words
from cascade_bench.systems.transformers_pipeline import LastExit, TransformersPipeline, last_exit
from tests.models import tiny

SENTENCES = [
    ["the", "plot", "is", "dull", "and", "the", "unforgettable", "actor", "was", "not", "bright"],
    ["good"],
    [],
    ["a", "very", "good", "film", ",", "never", "long"],
    ["xylophones", "!", "can't"],
]


def load(folder: Path, **options: Any) -> TransformersPipeline:
    return TransformersPipeline.load(folder, threads=torch.get_num_threads(), **options)


def some_rows() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, 100, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return ids, mask


@pytest.mark.parametrize(
    ("family", "pooling"),
    [("bert", "mean"), *((family, "first") for family in tiny.FAMILIES)],
)
def test_the_last_exit_answers_as_in_the_checkpoint(tmp_path: Path, family: str, pooling: str) -> None:
    whole, (ids, mask) = tiny.tier2(tmp_path, family, pooling=pooling), some_rows()
    last = last_exit(tmp_path, tagging=False)
    assert isinstance(last, LastExit)
    with torch.no_grad():
        expected, found = whole(ids, mask)["logits"][:, -1], last(ids, mask).logits
    torch.testing.assert_close(found, expected)
    assert not any(module._forward_pre_hooks for module in last.modules())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_tagger_answers_as_its_last_exit(tmp_path: Path, family: str) -> None:
    whole, (ids, mask) = tiny.tagger(tmp_path, family), some_rows()
    stock = last_exit(tmp_path, tagging=True)
    with torch.no_grad():
        found, wanted = stock(ids, attention_mask=mask).logits, whole(ids, mask)["logits"][:, -1]
    torch.testing.assert_close(found[mask > 0], wanted[mask > 0])


def test_the_pipeline_takes_it_without_complaint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = tiny.tier2(tmp_path)
    with caplog.at_level(logging.DEBUG, logger="transformers"):
        pipeline = load(tmp_path, max_length=64)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    encoded = [tiny.tokenizer().encode(text).ids for text in tiny.TEXTS]
    with torch.no_grad():
        logits = [whole(torch.tensor([ids]), torch.ones(1, len(ids)))["logits"][0, -1] for ids in encoded]
    expected = [tiny.LABELS[int(row.argmax())] for row in logits]
    assert set(expected) == set(tiny.LABELS)
    for batch_size in (1, 3, 64):
        assert pipeline.labels(tiny.TEXTS, batch_size=batch_size) == expected


def test_the_pipeline_tags_words_by_their_first_piece(tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path)
    words = encode_words(Tokenizer(tiny.tokenizer(), max_length=64), SENTENCES)
    wanted: list[list[str]] = []
    for row in range(words.n_rows):
        begin, end = words.rows.offsets[row : row + 2]
        ids = torch.from_numpy(words.rows.ids[begin:end])[None]
        with torch.no_grad():
            logits = model(ids, torch.ones_like(ids))["logits"][0, -1]
        mine = words.first_token[words.offsets[row] : words.offsets[row + 1]] - begin
        wanted.append([tiny.TAGS[number] for number in logits[mine].argmax(dim=-1).tolist()])
    assert len({tag for own in wanted for tag in own}) > 1
    pipeline = load(tmp_path, max_length=64, tagging=True)
    for batch_size in (1, 2, 8):
        assert pipeline.labels(SENTENCES, batch_size=batch_size) == wanted
    assert pipeline.labels([], batch_size=2) == []


def test_every_word_has_a_tag(tmp_path: Path) -> None:
    tiny.tagger(tmp_path)
    found = load(tmp_path, max_length=8, tagging=True).labels(
        [["good"] * 30, ["\u200b", "bad", "\u0301"]], batch_size=2
    )
    assert [len(own) for own in found] == [30, 3]
    assert set(found[0][6:]) == {tiny.TAGS[0]}  # beyond the 8 tokens that it reads


def test_an_ordinary_checkpoint_several_labels_and_pairs(tmp_path: Path) -> None:
    tiny.tier1_transformer(tmp_path, problem_type="multi_label_classification")
    found = load(tmp_path, max_length=8, multi_label=True).labels([*tiny.TEXTS, ("good", "bad " * 50)], batch_size=4)
    assert len(found) == len(tiny.TEXTS) + 1
    assert all(isinstance(one, tuple) and set(one) <= set(tiny.LABELS) for one in found)
    assert len(set(found)) > 1


@pytest.mark.parametrize("tagging", [False, True])
def test_what_is_no_checkpoint(tmp_path: Path, tagging: bool) -> None:
    with pytest.raises(OptionError, match="--checkpoint must be a folder or Hub id with a model for transformers, got"):
        load(tmp_path, max_length=8, tagging=tagging)


def test_without_torch_the_extra_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from cascade.exceptions import MissingExtraError\n"
        "import cascade_bench.cli\n"
        "try:\n"
        "    import cascade_bench.systems.transformers_pipeline\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "comparing with transformers needs the extra bench, but torch is missing" in done.stdout
