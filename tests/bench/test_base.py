"""A model drawn by lot: it can be exported and answers; the table by hand. Peers run in test_bench_peer_process."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cascade.exceptions import BundleError, OptionError
from cascade.pipelines.classifier import Classifier
from cascade_bench import base as making
from cascade_bench.base import PEERS, Made, Shape, gains, make, measure
from cascade_bench.cli import main
from cascade_bench.data import Labelled
from cascade_bench.peer_kinds import KINDS, Kind
from cascade_bench.peer_process import Job
from cascade_bench.peer_turns import Absent
from cascade_bench.peers_table import PeerRow, PeerTable
from cascade_bench.statistics import Interval
from tests.models import tiny
from tests.models.toy import toy_bundle

SMALL = Shape(layers=2, width=16, heads=2)


def exported_here(arguments: Sequence[str], **_options: object) -> subprocess.CompletedProcess[str]:
    """The exporter in this process: another one would spend its time on importing torch."""
    from cascade_export.cli import main as export

    said = io.StringIO()
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said)
    with silent[0], silent[1], pytest.raises(SystemExit) as end:
        export(list(arguments[3:]))
    return subprocess.CompletedProcess(arguments, int(end.value.code or 0), "", said.getvalue())


def test_a_model_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade_bench.base.subprocess.run", exported_here)
    tiny.save_tokenizer(tmp_path)
    (tmp_path / "work").mkdir()
    seen: list[str] = []
    made = make(SMALL, tmp_path, tmp_path / "work", progress=seen.append)
    classifier = Classifier.from_pretrained(made.bundle, threads=1)
    assert classifier.tier2.layers == [1, 2]
    assert classifier.bundle.manifest.tier2.width == 16
    assert {stage.precision for stage in classifier.bundle.manifest.tier2.stages} == {"int8"}
    assert set(classifier.predict(list(tiny.TEXTS)).labels) <= {"no", "yes"}
    assert json.loads((made.checkpoint / "config.json").read_text())["intermediate_size"] == 64
    assert seen == ["drawing weights", "exporting"]


def test_an_exporter_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(arguments: Sequence[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 2, "", "a warning\nError: no room on the disk\n")

    monkeypatch.setattr("cascade_bench.base.subprocess.run", refused)
    tiny.save_tokenizer(tmp_path)
    with pytest.raises(BundleError, match="but cascade-export ended with: Error: no room on the disk"):
        make(SMALL, tmp_path, tmp_path / "work")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers must be a whole number of at least 1, was: 0"),
        ({"width": 10, "heads": 3}, "width must be a multiple of heads, were: 10 and 3; BERT base has 768 and 12"),
    ],
)
def test_impossible_shapes(options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Shape(**options)


def row(key: str, seconds: tuple[float | None, ...], *, by_length: bool = False) -> PeerRow:
    return PeerRow(
        kind=KINDS[key],
        by_length=by_length,
        batch_size=None if KINDS[key].own else 8,
        tried={},
        accuracy=0.0,
        agreement=None,
        seconds=seconds,
        passes=1,
        over_full=Interval(1, 1, 1, 1, 1),
        over_pipeline=None,
        load_seconds=0.0,
        peak_mib=100.0,
    )


def table() -> PeerTable:
    rows = (
        row("full", (1.0, 2.0, 1.0)),
        row("optimum-int8", (3.0, 4.0, None)),
        row("optimum-int8", (1.5, 2.0, 1.5), by_length=True),
    )
    absent = Absent(KINDS["onnxruntime-int8"], "it is tired", failed=True)
    return PeerTable(rows, (absent,), 4, [["a"], ["b"], ["c"]])


def test_gains_by_hand() -> None:
    found = gains(table())
    assert set(found) == {"optimum-int8", "optimum-int8-by-length"}
    assert found["optimum-int8"].median == pytest.approx(2.5)  # of 3 and 2
    assert found["optimum-int8-by-length"].median == pytest.approx(1.5)
    assert gains(PeerTable((row("optimum-int8", (1.0,)),), (), 1, [])) == {}


def test_who_is_run_and_on_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(kinds: Sequence[Kind], job: Job, data: Labelled, *, repeats: int, progress: object) -> PeerTable:
        assert [kind.key for kind in kinds] == list(PEERS)
        assert (job.model, job.checkpoint, job.threads) == (str(tmp_path / "b"), str(tmp_path / "c"), 2)
        assert data.inputs == ["one", ("two", "three")]
        return table()

    monkeypatch.setattr(making, "compare", seen)
    assert measure(Made(tmp_path / "c", tmp_path / "b"), ["one", ("two", "three")], tmp_path, threads=2) == table()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["base", *map(str, arguments)])
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return run


def test_the_command(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def made(shape: Shape, tokenizer: Path, folder: Path, *, progress: object) -> Made:
        assert shape == SMALL
        assert (tokenizer / "tokenizer.json").is_file()
        folders.append(folder)
        return Made(folder / "c", folder / "b")

    def measured(found: Made, texts: Sequence[object], folder: Path, **options: object) -> PeerTable:
        assert texts == ["good film", "a dull plot"]
        assert folder.is_dir()
        assert (options["threads"], options["repeats"]) == (1, 3)
        return table()

    monkeypatch.setattr(making, "make", made)
    monkeypatch.setattr(making, "measure", measured)
    model, file, written = toy_bundle(tmp_path / "bundle").folder, tmp_path / "texts.txt", tmp_path / "made.json"
    file.write_text("good film\na dull plot\nnot read\n")
    options = ["--layers", 2, "--width", 16, "--heads", 2, "--texts", 2, "--repeats", 3, "--threads", 1]
    status, out, err = run(model, "--data", file, *options, "--json", written)
    assert status == 0, err
    assert out.startswith("Random weights, 2 layers of width 16, 2 heads: only seconds mean something.")
    assert "2.50 [2.00, 3.00]" in out
    assert "bare ONNX Runtime, int8 dynamic: failed: it is tired." in out
    read = json.loads(written.read_text())
    assert [entry["name"] for entry in read["benchmarks"]] == ["full", "optimum-int8", "optimum-int8-by-length"]
    assert read["benchmarks"][1]["extra_info"]["full_depth_is_faster_by"]["median"] == pytest.approx(2.5)
    assert read["details"]["model"] == "random weights, 2 layers of width 16, 2 heads"
    assert not folders[0].exists()


def test_no_texts(run: Command, tmp_path: Path) -> None:
    model, file = toy_bundle(tmp_path / "bundle").folder, tmp_path / "texts.txt"
    file.write_text("")
    status, _, err = run(model, "--data", file, "--threads", 1)
    assert status == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
