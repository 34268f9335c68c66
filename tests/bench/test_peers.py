"""The pipeline on a checkpoint: the same answers as the checkpoint's last exit, with nothing else in the way."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cascade.exceptions import OptionError
from cascade_bench.peers import LastExit, Pipeline, best_batch_size, contender
from tests.models import tiny


@pytest.mark.parametrize(
    ("family", "pooling"), [("bert", "mean"), ("bert", "first"), ("distilbert", "mean"), ("albert", "first")]
)
def test_the_last_exit_answers_as_in_the_checkpoint(tmp_path: Path, family: str, pooling: str) -> None:
    whole = tiny.tier2(tmp_path, family, pooling=pooling)
    last = LastExit.from_folder(tmp_path)
    ids = torch.randint(5, 100, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.no_grad():
        expected, found = whole(ids, mask)["logits"][:, -1], last(ids, mask).logits
    torch.testing.assert_close(found, expected)
    assert not any(module._forward_pre_hooks for module in last.modules())


def test_the_pipeline_takes_it_without_complaint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = tiny.tier2(tmp_path)
    with caplog.at_level(logging.DEBUG, logger="transformers"):
        pipeline = Pipeline.load(tmp_path, threads=torch.get_num_threads(), max_length=64)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    encoded = [tiny.tokenizer().encode(text).ids for text in tiny.TEXTS]
    with torch.no_grad():
        logits = [whole(torch.tensor([ids]), torch.ones(1, len(ids)))["logits"][0, -1] for ids in encoded]
    expected = [tiny.LABELS[int(row.argmax())] for row in logits]
    assert set(expected) == set(tiny.LABELS)
    for batch_size in (1, 3, 64):
        assert pipeline.labels(tiny.TEXTS, batch_size=batch_size) == expected
    assert contender(pipeline, 3).run(tiny.TEXTS).labels == expected


def test_an_ordinary_checkpoint_several_labels_and_pairs(tmp_path: Path) -> None:
    tiny.tier1_transformer(tmp_path, problem_type="multi_label_classification")
    pipeline = Pipeline.load(tmp_path, threads=torch.get_num_threads(), max_length=8, multi_label=True)
    found = pipeline.labels([*tiny.TEXTS, ("good", "bad " * 50)], batch_size=4)
    assert len(found) == len(tiny.TEXTS) + 1
    assert all(isinstance(one, tuple) and set(one) <= set(tiny.LABELS) for one in found)
    assert len(set(found)) > 1


def test_the_best_batch_size_is_the_fastest(tmp_path: Path) -> None:
    class Fake(Pipeline):
        def labels(self, inputs: object, *, batch_size: int) -> list[object]:  # type: ignore[override]  # no texts needed
            now[0] += {1: 4.0, 8: 1.0, 16: 2.0}[batch_size]
            return []

    now = [0.0]
    seen: list[str] = []
    best, rates = best_batch_size(
        Fake(None, 8),  # type: ignore[arg-type]  # never used
        ["a", "b"],
        sizes=(1, 8, 16),
        progress=seen.append,
        clock=lambda: now[0],
    )
    assert best == 8
    assert rates == {1: 0.5, 8: 2.0, 16: 1.0}
    assert seen[0] == seen[1] == "pipeline, batches of 1"


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match="--checkpoint must be a folder or Hub id with a model for transformers, was:"
    ):
        Pipeline.load(tmp_path, threads=torch.get_num_threads(), max_length=8)


def test_without_torch_the_extra_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from cascade.exceptions import MissingExtraError\n"
        "import cascade_bench.cli\n"
        "try:\n"
        "    import cascade_bench.peers\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "comparing with transformers needs the bench extra, but torch is missing" in done.stdout
