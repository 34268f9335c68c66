"""Tier 2 in every form on tiny bundles: what is measured, what is said, what is refused. Timing means nothing here."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.core.results import Label
from cascade.exceptions import BundleError, OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.batching import FixedSize
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade_bench import precisions_export
from cascade_bench.cli import main
from cascade_bench.data import Labelled
from cascade_bench.precisions import BATCHINGS, FORMS, SHIPPED, Face, compare, load, stability
from cascade_bench.precisions_cli import as_markdown
from cascade_bench.precisions_export import run_exporter, write
from cascade_bench.tag_data import Tagged
from cascade_export import export_bundle
from tests.models import tiny, tiny_tagging

Command = Callable[..., tuple[int, str, str]]


def exporter_here(arguments: Sequence[str], progress: Callable[[str], object]) -> tuple[int, str]:
    """The exporter in this process: another one would spend its time on importing torch."""
    from cascade_export.forms_cli import main as forms

    said, steps = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(steps), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as end:
        forms(list(arguments))
    for step in steps.getvalue().splitlines():
        progress(step)
    return int(end.value.code or 0), said.getvalue()


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions_export, "run_exporter", exporter_here)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's `tier2` and `bundle`, a tagger's `tagger` and `tags`, and a file of each kind."""
    folder = tmp_path_factory.mktemp("made")
    tiny.tier2(folder / "tier2", depth=2)
    tiny.tier1_static(folder / "tier1")
    export_bundle(folder / "tier2", folder / "tier1", folder / "bundle")
    tiny.tagger(folder / "tagger", depth=2)
    tiny_tagging.tier1_static(folder / "tagger1")
    export_bundle(folder / "tagger", folder / "tagger1", folder / "tags")
    texts = [{"text": text, "label": tiny.LABELS[place % 2]} for place, text in enumerate(tiny.TEXTS)]
    pairs = zip(tiny_tagging.SENTENCES, tiny_tagging.TAGS, strict=True)
    sentences = [{"tokens": words, "tags": tags} for words, tags in pairs]
    for name, records in (("texts", texts), ("sentences", sentences)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder


@pytest.fixture(scope="module")
def faces(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Face]:
    """The classifier in all forms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precisions_export, "run_exporter", exporter_here)
        folder = tmp_path_factory.mktemp("forms")
        checkpoint, file = str(made / "tier2"), str(made / "texts.jsonl")
        found = write(made / "bundle", checkpoint, file, folder, percentile=99)
    return {form: load(path, tagging=False, threads=1) for form, path in {**found, SHIPPED: made / "bundle"}.items()}


def labelled(texts: Sequence[str] = tiny.TEXTS) -> Labelled:
    found = [(tiny.LABELS[place % 2],) for place in range(len(texts))]
    return Labelled.of(list(texts), found, tiny.LABELS)


def labels_of(face: Face, data: Labelled) -> list[Label]:
    assert isinstance(face, Classifier)
    return face.predict(data.texts).labels


def test_everything_runs_at_full_depth(made: Path) -> None:
    face = load(made / "bundle", tagging=False, threads=1)
    assert isinstance(face, Classifier)
    assert (face.router, face.exit_policy) == (defer_all, never)
    tagger = load(made / "tags", tagging=True, threads=1)
    assert isinstance(tagger, Tagger)
    assert (tagger.router, tagger.exit_policy) == (defer_all, never)


def test_a_line_for_every_form(faces: dict[str, Face]) -> None:
    seen: list[str] = []
    data = labelled(tiny.TEXTS + tiny.TEXTS[:3])  # in batches of 8 the last three are among themselves
    made = compare(faces, data, repeats=2, progress=seen.append)
    assert [line.form for line in made.lines] == list(FORMS)
    assert [line.row.name for line in made.lines] == list(FORMS.values())
    assert set(seen) > {f"other batches: {name}" for name in FORMS.values()}
    lines = {line.form: line for line in made.lines}
    assert (lines["fp32"].agreement, lines["fp32"].row.over_full.median) == (1, 1)
    assert lines["fp32"].stages == ("fp32", "fp32")
    assert lines["rows"].stages == ("int8", "int8")
    assert lines["fp32"].mebibytes > lines["static"].mebibytes > 0
    for line in made.lines:
        assert line.row.accuracy == data.right(labels_of(faces[line.form], data)) / 11
        assert len(line.row.seconds) == 2
        assert list(line.stability.accuracy) == list(BATCHINGS)
    assert lines["static"].stability.difference == pytest.approx(0, abs=1e-6)
    assert lines["rows"].stability.difference == pytest.approx(0, abs=1e-6)
    assert lines["dynamic"].stability.difference > 1e-5


def test_agreement_by_hand(faces: dict[str, Face]) -> None:
    """The share of equal labels."""
    data = labelled()
    answers = {form: labels_of(faces[form], data) for form in ("fp32", "dynamic")}
    same = sum(one == two for one, two in zip(answers["fp32"], answers["dynamic"], strict=True))
    found = compare({form: faces[form] for form in answers}, data, repeats=1)
    assert found.lines[1].agreement == same / 8


def test_answers_that_change_are_counted(faces: dict[str, Face], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batchings of which one names another label for the first text."""
    face, data = faces["fp32"], labelled()
    true = Classifier.predict
    seen: list[int] = []

    def predict(self: Classifier, texts: list[str]) -> object:
        made = true(self, texts)
        seen.append(self.tier2.batching.batch_size)  # type: ignore[attr-defined]  # `FixedSize`
        if seen[-1] == 3:
            made.labels[0] = "neither"
            made.probabilities[0, 0] += 0.25
        return made

    monkeypatch.setattr(Classifier, "predict", predict)
    found = stability(face, data, {f"{size}": FixedSize(size) for size in (2, 3, 4)})
    assert seen == [2, 3, 4]
    assert found.changed == 1 / 8
    assert found.difference == pytest.approx(0.25, abs=1e-5)
    right = found.accuracy["2"]
    assert found.accuracy == {"2": right, "3": pytest.approx(right, abs=1 / 8), "4": right}


def test_fp32_comes_first(faces: dict[str, Face]) -> None:
    with pytest.raises(OptionError, match=r"the first form must be fp32, were: \['static'\]; put it first"):
        compare({"static": faces["static"]}, labelled())


def test_a_tagger(made: Path, tmp_path: Path) -> None:
    bundle = open_bundle(made / "tags")
    folders = write(bundle.folder, str(made / "tagger"), str(made / "sentences.jsonl"), tmp_path, percentile=99)
    assert bundle.manifest.task == TAGGING
    found = {form: load(folders[form], tagging=True, threads=1) for form in ("fp32", "dynamic", "static")}
    sentences, tags = ([list(own) for own in given] for given in (tiny_tagging.SENTENCES, tiny_tagging.TAGS))
    data = Tagged.of(sentences, tags, bundle.manifest.labels)
    lines = compare(found, data, repeats=1).lines
    assert lines[0].row.accuracy == data.right(found["fp32"].predict(sentences).tags) / len(data)  # type: ignore[union-attr]
    assert lines[0].agreement == 1
    assert lines[2].stability.difference == pytest.approx(0, abs=1e-6)
    assert lines[2].stability.changed == 0


def test_what_the_exporter_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions_export, "run_exporter", lambda *_: (2, "a warning\nError: no room on the disk\n"))
    with pytest.raises(BundleError, match=r"in every form, but the exporter ended with: no room on the disk$"):
        write(tmp_path, "c", "f", tmp_path, percentile=99)
    monkeypatch.setattr(precisions_export, "run_exporter", lambda *_: (-9, ""))
    with pytest.raises(BundleError, match=r"but the exporter ended with: status -9$"):
        write(tmp_path, "c", "f", tmp_path, percentile=99)


def test_the_exporter_runs_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys; print(sys.argv[1]); print('more'); print('Error: no', file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(precisions_export, "EXPORTER", program)
    seen: list[str] = []
    assert run_exporter(["first"], seen.append) == (2, "Error: no\n")
    assert seen == ["first", "more"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["precisions", *map(str, arguments)])
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return run


def test_the_command(made: Path, run: Command, tmp_path: Path) -> None:
    file, written = made / "texts.jsonl", tmp_path / "made.json"
    given = [made / "bundle", "--checkpoint", made / "tier2", "--calibration", file, "--data", file, "--threads", 1]
    status, out, err = run(*given, "--texts", 5, "--repeats", 2, "--percentile", 99, "--json", written)
    assert status == 0, err
    head, *rows = out.splitlines()[:8]
    assert head.split("  ")[0] == "tier 2"
    assert [row.split("  ")[0] for row in rows] == list(FORMS.values())
    assert "As shipped: 2 of 2 stages int8. No answer changed with its batch in: fp32; int8" in out
    assert "5 texts, tokenisation included, full depth, 2 interleaved repeats" in out
    assert "Percentile ranges hold 99 % of" in out
    read = json.loads(written.read_text())
    assert [entry["name"] for entry in read["benchmarks"]] == list(FORMS)
    assert read["benchmarks"][0]["extra_info"]["agreement_with_fp32"] == 1
    assert read["benchmarks"][2]["extra_info"]["stages"] == ["int8", "int8"]
    assert read["batches"] == list(BATCHINGS)
    assert read["details"]["percentile"] == 99


def test_the_command_on_a_tagger(made: Path, run: Command) -> None:
    file = made / "sentences.jsonl"
    given = [made / "tags", "--checkpoint", made / "tagger", "--calibration", file, "--data", file, "--threads", 1]
    status, out, err = run(*given, "--texts", 4, "--repeats", 1, "--markdown")
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("| tier 2 | accuracy | points | as fp32 | seconds | words/s | over fp32 |")
    assert [line.split(" | ")[0] for line in lines[2:9]] == [f"| {name}" for name in FORMS.values()]
    assert f"{sum(map(len, tiny_tagging.SENTENCES[:4]))} words, tokenisation included" in out


def test_nobody_is_steady(faces: dict[str, Face]) -> None:
    made = compare({form: faces[form] for form in ("fp32", SHIPPED)}, labelled(), repeats=1)
    shaken = [replace(line, stability=replace(line.stability, changed=0.1)) for line in made.lines]
    facts = {"cpu": {"model": "some", "count": 1, "cgroup_quota": None, "flags": []}, "threads": 1, "versions": {}}
    facts |= {"python_version": "3", "git": None}
    shown = as_markdown(replace(made, lines=tuple(shaken)), facts, percentile=99.5)
    assert "No answer changed with its batch in: none." in shown
    assert "| 10.00% |" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--percentile", 50], "--percentile must be above 50 and at most 100, was: 50.0; 99.99 is usual"),
        (["--checkpoint", Path(__file__).parent], "but the exporter ended with: tier 2 must be a checkpoint of"),
        (["--calibration", "none.jsonl"], "in every form, but the exporter ended with: none.jsonl"),
        (["--data", "none.jsonl"], "none.jsonl"),
    ],
)
def test_bad_use(made: Path, run: Command, options: list[object], message: str) -> None:
    file = made / "texts.jsonl"
    given = [made / "bundle", "--checkpoint", made / "tier2", "--calibration", file, "--data", file, *options]
    status, _, err = run(*given, "--threads", 1)
    assert status == 2
    assert message in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
