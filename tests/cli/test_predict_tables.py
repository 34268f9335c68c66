from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cascade import Classifier, Tagger
from tests.jobs.making import texts, write
from tests.models.cli import Command, lines


def test_tables(run: Command, clf: Classifier, tmp_path: Path) -> None:
    given = texts(300)
    for name, begin in (("a.parquet", 0), ("b.parquet", 150)):
        write(tmp_path / "in" / name, {"id": range(begin, begin + 150), "body": given[begin : begin + 150]})
    options = (
        "--text-column",
        "body",
        "--keep",
        "id",
        "--routes",
        "--top-k",
        "1",
        "--threshold",
        "0.7",
        "--threads",
        "1",
    )
    out = tmp_path / "out"
    done = run.well(
        "predict", clf.bundle.folder, str(tmp_path / "in" / "*.parquet"), "--output", out, *options, "--progress"
    )
    assert (done.out, "300 rows in " in done.err, " deferred" in done.err) == ("", True, True)
    assert done.err.endswith(f"; {out} is whole\n")
    table = pq.read_table(out)
    assert table.column_names == ["id", "label", "score", "route", "top"]
    assert table["id"].to_pylist() == list(range(300))
    told = run.refused("predict", clf.bundle.folder, tmp_path / "in", "--output", out, *options[:-4])
    assert "policies of the job in" in told
    assert "--fresh" in told


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.arrow"])
def test_tables_of_words(run: Command, tagger: Tagger, tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, {"tokens": [["good", "film"], []], "text": ["bad film", ""]})
    run.well("predict", tagger.bundle.folder, file, "--output", tmp_path / "o.jsonl", "--keep", "text")
    assert [row["tokens"] for row in lines((tmp_path / "o.jsonl").read_text())] == [["good", "film"], []]
    run.well("predict", tagger.bundle.folder, file, "--text-column", "text", "--output", tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text().splitlines()[1].startswith('"[""bad"", ""film""]",')


def test_a_job_does_without_pandas(clf: Classifier, tmp_path: Path) -> None:
    """Importing it, as pyarrow does at the first array, and pyarrow.compute take half of the time of a start."""
    file = write(tmp_path / "a.parquet", {"id": range(9), "text": texts(9)})
    program = (
        "import sys\nfrom cascade.cli import main\n"
        "try: main()\nfinally: print({*sys.modules} & {'pandas', 'pyarrow.compute'})"
    )
    command = [sys.executable, "-c", program, "predict", str(clf.bundle.folder), str(file)]
    options = ["--output", str(tmp_path / "out"), "--keep", "id", "--routes"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert ended.stdout == "set()\n", ended.stderr


def test_lines_stay_lines(run: Command, clf: Classifier, tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"text": ["good"]})
    run.well("predict", clf.bundle.folder, file, "--output", tmp_path / "o.jsonl")
    assert json.loads((tmp_path / "o.jsonl").read_text())["line"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "o.jsonl"]


def test_what_jobs_do_not_take(run: Command, clf: Classifier, tmp_path: Path) -> None:
    file, bundle = write(tmp_path / "a.parquet", {"text": ["good"]}), clf.bundle.folder
    assert "--output must be given where several files" in run.refused("predict", bundle, file, file)
    assert "--keep must be used with files, got standard input" in run.refused("predict", bundle, "--keep", "id")
    told = run.refused("predict", bundle, file, "--output", tmp_path / "o.parquet", "--shadow", "0.1")
    assert "--shadow must be used with lines" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet"]
