"""`cascade certify`: thresholds for scores of any models, certified, and what a file of them must hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.calibration.certify.claims import Claim, MaxDrop
from cascade.calibration.certify.outcomes import Certified
from cascade.calibration.certify.scores import THAN, Scores
from cascade.exceptions import DataError
from tests.models.cli import Command

LABELS = ("no", "yes")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def judged(count: int, *, tiers: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of tiers that are right as often as they say, the last one on 99 of a hundred; each ten times as dear."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        gold, row = int(rng.integers(2)), dict[str, Any](id=f"{seed}-{number}")
        for tier in range(1, tiers + 1):
            score = 0.99 if tier == tiers else float(1 - 0.5 * rng.random() ** (2 + 3 * tier))
            row |= {f"label_{tier}": LABELS[gold if rng.random() < score else 1 - gold], f"score_{tier}": score}
            row |= {f"price_{tier}": 10.0**tier}
        rows.append({**row, "gold": LABELS[gold]})
    return rows


def as_pair(row: dict[str, Any]) -> dict[str, Any]:
    """A row of two tiers by the short names."""
    renamed = {"label": row["label_1"], "score": row["score_1"], "reference": row["label_2"], "price": 100.0}
    return {"id": row["id"], **renamed, "gold": row["gold"]}


def written(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def thresholds(report: dict[str, Any]) -> list[float | None]:
    return [router.get("threshold") for router in report["policies"]["routers"]]


def test_thresholds_are_certified_and_counted_as_they_are_used(tmp_path: Path, run: Command) -> None:
    rows = [as_pair(row) for row in judged(3000)]
    done = run.well("certify", written(tmp_path / "judged.jsonl", rows), "--output", tmp_path / "report.json")
    assert done.out.startswith("2 tiers, 3,000 examples of judged.jsonl: 600 chose the path, 2,400 tested it\n")
    assert "accuracy is at most 1 point below that of the reference, with a confidence of 95 %" in done.out
    assert "a row, tier 2 alone 100: " in done.out
    assert "times as cheap" in done.out
    assert "temperatures" not in done.out
    report = json.loads((tmp_path / "report.json").read_text())
    [threshold] = thresholds(report)
    assert threshold is not None
    figures = report["figures"]
    # By hand, on the rows that tested: above the threshold the label is taken.
    order = np.random.default_rng(0).permutation(3000)[600:]
    taken = [rows[number] for number in order.tolist()]
    deferred = [row["score"] < threshold for row in taken]
    said = [row["reference"] if asked else row["label"] for row, asked in zip(taken, deferred, strict=True)]
    harms = sum(one != row["gold"] == row["reference"] for one, row in zip(said, taken, strict=True))
    assert (figures["harms"], figures["deferred"]) == (harms, pytest.approx(np.mean(deferred)))
    assert figures["seconds"] == pytest.approx(100 * np.mean(deferred))
    assert 0.1 < figures["deferred"] < 0.9
    assert report["path"][report["number"]]["tested"]["p_value"] <= report["claim"]["confidence"]
    assert report["made"]["file"] == "judged.jsonl"


def test_questions_about_the_same_rows_share_one_error(tmp_path: Path, run: Command) -> None:
    file = written(tmp_path / "judged.jsonl", [as_pair(row) for row in judged(2000)])
    assert "number 1 about these examples, tested at a level of 4 %" in run("certify", file).out
    assert "number 1 about these examples" in run("certify", file).out  # the same question again
    assert "number 2 about these examples, tested at a level of 0.6" in run("certify", file, "--seed", "1").out
    other = written(tmp_path / "other.jsonl", [as_pair(row) for row in judged(2000, seed=1)])
    assert "number 1 about these examples" in run("certify", other).out


def test_any_number_of_tiers(tmp_path: Path, run: Command) -> None:
    file = written(tmp_path / "three.jsonl", judged(3000, tiers=3))
    done = run.well("certify", file, "--max-drop", "0.02", "--output", tmp_path / "report.json")
    assert done.out.startswith("3 tiers, ")
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(thresholds(report)) == 2
    assert report["figures"]["speed_up"] > 1.2
    assert sum(share for share, _ in report["figures"]["answered"]) == pytest.approx(1)


def test_a_tier_that_does_not_pay_is_not_asked(tmp_path: Path, run: Command) -> None:
    rows = [{**row, "price_2": 999.0} for row in judged(3000, tiers=3)]
    done = run.well("certify", written(tmp_path / "three.jsonl", rows), "--max-drop", "0.02")
    assert "tier 2 is not run" in done.out


def test_agreement_needs_no_gold_and_gold_alone_is_a_reference(tmp_path: Path, run: Command) -> None:
    rows = [as_pair(row) for row in judged(2000)]
    without = [{name: value for name, value in row.items() if name not in ("gold", "price")} for row in rows]
    file = written(tmp_path / "rows.jsonl", without)
    assert (
        "the answer differs from that of the reference for at most 5 %"
        in run.well("certify", file, "--agreement", "0.05").out
    )
    assert "--max-drop needs the column 'gold', but" in run("certify", file).err
    alone = [{name: value for name, value in row.items() if name != "reference"} for row in rows]
    assert "harm" in run.well("certify", written(tmp_path / "gold.jsonl", alone), "--max-drop", "0.05").out


def test_what_cannot_be_certified_ends_with_status_1(tmp_path: Path, run: Command) -> None:
    done = run("certify", written(tmp_path / "few.jsonl", [as_pair(row) for row in judged(100)]))
    assert done.status == 1
    assert "examples needed" in done.out
    assert "number 1 about" in run("certify", tmp_path / "few.jsonl", "--seed", "3").out  # nothing was tested


def test_probabilities_stand_for_a_label_and_its_score() -> None:
    rows = [as_pair(row) for row in judged(300)]
    others = [
        {**row, "label": None, "score": None, "probabilities": {row["label"]: row["score"], "odd": 0.1}} for row in rows
    ]
    one, other = (Scores.of(enumerate(some, 1)).answers.tiers[0].probabilities for some in (rows, others))
    assert one.max(axis=2).tolist() == other.max(axis=2).tolist()
    assert Scores.of(enumerate(others, 1)).labels == LABELS


def test_csv_and_parquet(tmp_path: Path, run: Command) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    table = pa.Table.from_pylist([as_pair(row) for row in judged(2000)])
    csv.write_csv(table, tmp_path / "rows.csv")
    parquet.write_table(table, tmp_path / "rows.parquet")
    first, second = (
        run.well("certify", tmp_path / f"rows.{kind}", "--max-drop", "0.03").out for kind in ("csv", "parquet")
    )
    assert first.split("\n")[4:] == second.split("\n")[4:]  # but for the name of the file


def test_copies_count_once() -> None:
    rows = [as_pair(row) for row in judged(600)]
    scores = Scores.of(enumerate([*rows, *rows[:50]], 1))
    with pytest.warns(match="50 of 650 rows are copies of others and were left out: each counts once"):
        found = scores.certified(Claim(MaxDrop(0.1), than=THAN))
    assert isinstance(found, Certified)
    assert len(found.chosen_on) + len(found.tested_on) == 600
    unknown = Scores.of(enumerate(({**row, "id": None} for row in rows), 1))  # no id makes no copy
    assert unknown.certified(Claim(MaxDrop(0.1), than=THAN)).warnings == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 1.5}, r"line 2: column 'score' must be a number in \[0, 1\], got 1.5; correct it"),
        ({"score": "high"}, r"line 2: column 'score' must be a number in \[0, 1\], got 'high'"),
        ({"score": None}, r"line 2: column 'score' must be a number in \[0, 1\], got None"),
        ({"label": ""}, "line 2: column 'label' must be a label, got ''; add it, or leave the row out"),
        ({"gold": float("nan")}, "line 2: column 'gold' must be a label, got nan"),
        ({"price": -1}, "line 2: column 'price' must be a number of at least 0, got -1"),
        ({"price": float("inf")}, "line 2: column 'price' must be a number of at least 0, got inf"),
    ],
)
def test_what_a_row_must_hold(change: dict[str, Any], message: str) -> None:
    rows = [as_pair(row) for row in judged(3)]
    rows[1] |= change
    with pytest.raises(DataError, match=message):
        Scores.of(enumerate(rows, 1))


def test_what_a_file_must_hold(tmp_path: Path, run: Command) -> None:
    rows = judged(50, tiers=3)
    free = [{name: value for name, value in row.items() if not name.startswith("price")} for row in rows]
    for some, message in (
        (free, "line 1: column 'price_1' must be a number of at least 0, got None"),
        ([{**row, "price_3": 0} for row in rows], "the reference must have a price, got 0 for all in 'price_3'"),
        ([{"text": "no scores"}], "line 1: column 'label' must be a label, got None"),
    ):
        done = run("certify", written(tmp_path / "rows.jsonl", some))
        assert (done.status, message in done.err) == (2, True), done.err
    done = run("certify", written(tmp_path / "rows.jsonl", rows), "--max-drop", "0.1", "--agreement", "0.1")
    assert "--max-drop and --agreement exclude each other" in done.err
    assert "must be a file of examples, but it is missing" in run("certify", tmp_path / "none.jsonl").err
