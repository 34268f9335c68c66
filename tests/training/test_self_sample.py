"""Self-sampling: exits are drawn and simulated by the runtime's rule, words stop where they should, training learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cascade.core.confidence import certainty, softmax
from cascade.core.rows import FloatArray, IntArray, Units
from cascade.policies.unit_exits import TokenExit, UnitState
from cascade.training.data import TrainingRows, rows_of
from cascade.training.models.multi_exit import MultiExitTagger
from cascade.training.recipes import self_sample as module
from cascade.training.recipes.self_sample import (
    ExitRanges,
    PadWithExits,
    _loss,
    _uncertainty,
    exit_numbers,
)
from cascade.training.units import exit_grid
from tests.models import tiny
from tests.training.commands import CASES, SENTENCES, SPANS, Done, Trained, exits, refused, report_of, train, write

LAYERS = (1, 2, 3)


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    return write(tmp_path / "sentences.jsonl", SENTENCES)


def self_sample(tagger: Path, sentences: Path, output: Path, *more: object) -> Done:
    return train(
        *("self-sample", tagger, "--train", sentences, "--eval", sentences, "--output", output),
        *("--epochs", 4, "--batch-size", 8, "--learning-rate", 3e-3, "--head-factor", 1),
        *("--windows", "1,3", "--thresholds", "0.1,0.3", *more),
    )


def one_by_one(logits: FloatArray, rows: IntArray, windows: IntArray, thresholds: FloatArray) -> IntArray:
    """What the engine's policy says, exit after exit, each row by itself."""
    found = np.full(len(logits), logits.shape[1] - 1)
    for row in np.unique(rows):
        words = np.flatnonzero(rows == row)
        inside = np.arange(len(words))
        for number in range(logits.shape[1] - 1):
            probabilities = softmax(logits[words[inside], number])
            state = UnitState(
                exit_index=number, exit_layer=number + 1, last=False, probabilities=probabilities,
                history=probabilities[:, None],
                sentences=np.zeros(len(words), np.int64), places=inside, ids=np.zeros(len(inside), np.int64),
            )  # fmt: skip
            left = TokenExit(tuple(map(float, thresholds[row])), window=int(windows[row]))(state)
            found[words[inside[left]]] = number
            inside = inside[~left]
            if not len(inside):
                break
    return found


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**31))
def test_words_leave_where_the_engine_lets_them_leave(counts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(0, 4, (len(rows), 4, 5)).astype(np.float32)
    windows = rng.choice([1, 3, 5, 15], len(counts))
    thresholds = rng.choice([0.0, 0.1, 0.4, 0.8], (len(counts), 4)).astype(np.float32)
    uncertainty = (1 - certainty(softmax(logits.reshape(-1, 5)))).reshape(len(rows), 4)
    found = exit_numbers(uncertainty, rows, windows, thresholds)
    assert found.tolist() == one_by_one(logits, rows, windows, thresholds).tolist()


def test_a_worked_example() -> None:
    """Window 3. The middle word is unsure at exit 0 and holds both neighbours; at exit 1 it is sure, one is not."""
    uncertainty = np.array([[0.1, 0.1, 0.9], [0.8, 0.1, 0.9], [0.1, 0.9, 0.9], [0.1, 0.9, 0.9]], np.float32)
    rows, windows = np.array([0, 0, 0, 1]), np.array([3, 3])
    thresholds = np.full((2, 3), 0.5, np.float32)
    assert exit_numbers(uncertainty, rows, windows, thresholds).tolist() == [1, 2, 2, 0]
    # Alone, the first and the third leave at once; the second at exit 1.
    assert exit_numbers(uncertainty, rows, np.array([1, 1]), thresholds).tolist() == [0, 1, 0, 0]


def test_words_that_have_left_count_as_sure() -> None:
    """The first leaves at exit 0 alone in its window of 1; what it would say at exit 1 holds nobody."""
    uncertainty = np.array([[0.1, 0.9], [0.1, 0.1]], np.float32)
    late = np.array([[0.0, 0.1, 0.9, 0.9], [0.2, 0.6, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]], np.float32)
    thresholds = np.array([[0.15, 0.15, 0.3, 0.3]], np.float32)
    assert exit_numbers(late, np.zeros(3, np.int64), np.array([1]), thresholds).tolist() == [0, 2, 2]
    wide = np.array([[0.0, 0.9, 0.9], [0.0, 0.2, 0.2], [0.9, 0.2, 0.2]], np.float32)
    # At exit 0 only the first has sure neighbours. At exit 1 it is unsure again, but it has left.
    assert exit_numbers(wide, np.zeros(3, np.int64), np.array([3]), np.full((1, 3), 0.5, np.float32)).tolist() == [
        0, 1, 1,
    ]  # fmt: skip
    assert exit_numbers(uncertainty, np.array([0, 0]), np.array([3]), np.full((1, 2), 0.5, np.float32)).tolist() == [
        0, 0,
    ]  # fmt: skip


def test_pieces_stop_with_their_word_and_special_tokens_never() -> None:
    rows = rows_of([[5] * 7, [5] * 5])
    units = Units(rows, np.array([1, 3, 8, 9, 10]), np.array([2, 3, 1, 1, 1]), np.array([0, 2, 5]))
    found = exit_grid(units, np.array([0, 1, 2, 0, 1]), (1, 2, 6))
    assert found.tolist() == [[6, 1, 1, 2, 2, 2, 6], [6, 6, 1, 2, 6, 6, 6]]


def test_thresholds_double_in_the_upper_half() -> None:
    found = ExitRanges().per_exit(0.2, (2, 4, 6))
    assert found.tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert ExitRanges().per_exit(0.4, (1, 2)).tolist() == pytest.approx([0.4, 0.5])
    assert ExitRanges().per_exit(0.8, (1, 2)).tolist() == pytest.approx([0.8, 0.8])


def test_a_batch_is_a_sandwich() -> None:
    ranges = ExitRanges(windows=(3, 5, 7), thresholds=(0.1, 0.2, 0.3))
    smallest = largest = 0
    for seed in range(40):
        windows, thresholds = ranges.draw(10, LAYERS, np.random.default_rng(seed))
        deep = (thresholds == 0).all(1)
        assert deep.sum() == 4
        assert set(windows.tolist()) <= {3, 5, 7}
        assert {round(float(one), 3) for one in thresholds[~deep][:, 0]} <= {0.1, 0.2, 0.3}
        fast = (windows[~deep] == 3).sum() >= 2, (thresholds[~deep, 0] > 0.25).sum() >= 2
        assert any(fast)
        smallest += fast[0]
        largest += fast[1]
    assert min(smallest, largest) >= 15  # either side of the coin


def rows_with(words: list[int], pieces: list[int]) -> TrainingRows:
    """Rows of so many words of so many pieces each, between two special tokens."""
    rows = rows_of([[2, *range(10, 10 + one * each), 3] for one, each in zip(words, pieces, strict=True)])
    sizes = np.repeat(pieces, words)
    firsts = np.cumsum(sizes) - sizes
    firsts += np.repeat(2 * np.arange(len(words)) + 1, words)
    return TrainingRows(Units(rows, firsts, sizes, np.concatenate(([0], np.cumsum(words)))))


def test_collating_draws_exits_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FASTEST", 0)
    monkeypatch.setattr(module, "FULL_DEPTH", 0.5)
    pad = PadWithExits(0, LAYERS, ExitRanges(thresholds=(0.1,)))
    bare = rows_with(words=[3, 1, 2, 2], pieces=[2, 4, 1, 1])
    unsure = bare.with_target("uncertainty", np.full((8, 3), 0.05, np.float32))
    torch.manual_seed(1)
    batch = pad(unsure)
    torch.manual_seed(1)
    torch.testing.assert_close(pad(unsure), batch)
    assert "uncertainty" not in batch
    assert batch["exits"].shape == (8,)
    rows = np.repeat(np.arange(4), [3, 1, 2, 2])
    of_row = [set(batch["exits"][torch.from_numpy(rows == row)].tolist()) for row in range(4)]
    assert sorted(map(tuple, of_row)) == [(0,), (0,), (2,), (2,)]  # half at full depth, the others leave at once
    for row, own in enumerate(of_row):
        pieces = int(bare.units.rows.lengths[row]) - 2
        layers = batch["exit_layers"][row].tolist()
        assert layers[1 : 1 + pieces] == [LAYERS[own.pop()]] * pieces
        assert layers[0] == layers[1 + pieces] == 3
    assert "exit_layers" not in pad(bare)


def test_a_word_teaches_the_exits_up_to_its_own() -> None:
    """Losses ln 2 where undecided. Two words: the first leaves at exit 0 of 2, the second at exit 1."""
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 0, 0, 0] = np.log(3)  # the first word's right label has 3/4 at exit 0
    logits[0, 1, 0, 1] = 50.0  # and is far from right at exit 1, which must not count
    batch = {"labels": torch.zeros(2, dtype=torch.long), "is_first": torch.ones(1, 2, dtype=torch.bool)}
    batch["exits"] = torch.tensor([0, 1])
    wanted = (-np.log(0.75) + np.log(2) + 2 * np.log(2)) / (1 + 1 + 2)
    assert float(_loss((1, 2))(logits, batch)) == pytest.approx(wanted, abs=1e-6)


def test_what_is_kept_of_the_first_stage() -> None:
    logits = torch.randn(5, 3, 4)
    found = _uncertainty(logits)
    entropy = 1 - certainty(softmax(logits.numpy().reshape(-1, 4))).reshape(5, 3)
    np.testing.assert_allclose(found.numpy(), entropy, atol=1e-5)


@pytest.mark.parametrize("records", [SENTENCES, SPANS], ids=["tags", "spans"])
def test_self_sampling_learns_and_leaves_a_report(
    records: list[dict[str, Any]], trained: Trained, backbone: Path, tmp_path: Path
) -> None:
    rows, first = write(tmp_path / "rows.jsonl", records), trained(CASES[1])
    if records is SPANS:
        first = tmp_path / "first"
        exits(CASES[1], backbone, rows, first, "--epochs", 2, ok=True)
    result = self_sample(first, rows, tmp_path / "out", "--epochs", 8)
    assert result.status == 0, result.output
    report = report_of(tmp_path / "out")
    scores = report["scores"]
    assert {"layer_1", "mean_of_exits", "token_exit", "token_exit_depth", "chosen_by"} <= set(scores)
    assert scores["token_exit"] >= 0.9
    assert 1 / 3 <= scores["token_exit_depth"] <= 1
    if records is SPANS:
        assert scores["chosen_by"] == pytest.approx((scores["entity_f1"] + scores["token_exit_f1"]) / 2)
    else:
        assert scores["chosen_by"] == pytest.approx((scores["layer_3"] + scores["token_exit"]) / 2)
    assert report["options"]["ranges"].startswith("ExitRanges(windows=(1, 3), ")
    before, after = (load_file(folder / "model.safetensors") for folder in (first, tmp_path / "out"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert MultiExitTagger.from_pretrained(tmp_path / "out").layers == LAYERS


def test_crops(sentences: Path, tmp_path: Path) -> None:
    tiny.tagger(tmp_path / "tagger")
    done = self_sample(tmp_path / "tagger", sentences, tmp_path / "out", "--crops", 2, "--epochs", 1)
    assert done.status == 0, done.output
    assert report_of(tmp_path / "out")["options"]["crops"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--windows", "2"], "windows must be odd numbers of words, got (2,)"),
        (["--thresholds", "x"], "'--thresholds': must be numbers separated by commas, got x"),
        (["--layer-weights", "1,2"], "layer weights must be one per exit, 3, got 2"),
    ],
)
def test_bad_options(arguments: list[str], message: str, sentences: Path, tmp_path: Path) -> None:
    tiny.tagger(tmp_path / "tagger")
    refused(self_sample(tmp_path / "tagger", sentences, tmp_path / "out", *arguments), message)
