from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade import Classifier, DataError, Tagger
from cascade.bundle.certificate import Certificate
from cascade.bundle.manifest import MANIFEST_FILE
from cascade.calibration import observing
from cascade.calibration.certify import texts as certifying
from cascade.calibration.texts import TextAnswers
from cascade.cli.calibrate import plain as calibrate_plain
from cascade.cli.calibrate import run as calibrate_run
from cascade.cli.calibrate.data import labelled_texts
from cascade.core.confidence import margin
from cascade.policies.exits import never
from cascade.policies.routing import Threshold, defer_all, defer_none
from cascade.policies.unit_exits import TokenExit
from cascade.text.reading import Example
from tests.models.cli import Command, lines
from tests.models.recorded import costs_of
from tests.models.tagged import GRID, labelled
from tests.models.toy import WORDS, random_texts, toy_bundle
from tests.models.toy_tags import tag_bundle

LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    make(folder)
    return folder


@pytest.fixture(scope="module")
def examples(model: Path) -> list[dict[str, str]]:
    """Texts about which the tiers mostly agree, labelled as full depth answers but for a twentieth."""
    random = np.random.default_rng(0)
    texts = list(dict.fromkeys(" ".join(random.choice(WORDS[4:], random.integers(3, 9))) for _ in range(4000)))
    classifier = Classifier.from_pretrained(model, threads=1).with_exit_policy(never)
    full = classifier.with_router(defer_all).predict(texts).labels
    first = classifier.with_router(defer_none).predict(texts).labels
    kept = [row for row in range(len(texts)) if full[row] == first[row] or random.random() < 0.1][:600]
    assert len(kept) == 600
    return [
        {"text": texts[row], "label": str(random.choice(LABELS) if random.random() < 0.05 else full[row])}
        for row in kept
    ]


def make(folder: Path) -> None:
    """A bundle that is not sure of everything."""
    bundle = toy_bundle(folder.with_name(folder.name + "-sure"))
    Classifier.from_pretrained(bundle.folder, threads=1).with_temperatures(6.0, (6.0, 6.0, 6.0)).save_pretrained(folder)


@pytest.fixture
def data(tmp_path: Path, examples: list[dict[str, str]]) -> Path:
    return write(tmp_path / "data.jsonl", examples)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """With costs that do not depend on how fast this machine is: of so small graphs they say nothing."""

    def observe(*arguments: Any, **options: Any) -> TextAnswers:
        costs = costs_of(5e-5, (3e-4, 3e-4, 3e-4))
        return replace(observing.observe_texts(*arguments, **options), costs=costs)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(certifying, "observe_texts", observe)
    monkeypatch.setattr(calibrate_plain, "observe_texts", observe)
    return Command(capsys, monkeypatch)


def write(file: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text())
    return found


def test_a_certificate_is_written_and_holds(run: Command, model: Path, data: Path, tmp_path: Path) -> None:
    folder, report = tmp_path / "certified", tmp_path / "report.json"
    done = run.well("calibrate", model, "--data", data, "--max-drop", "0.2", "--output", folder, "--json", report)
    assert done.out.startswith(f"{model}, 600 examples of data.jsonl: 120 chose the path, 480 tested it\n")
    assert "accuracy is at most 20 points below that of tier 2 at full depth, with a confidence of 95 %" in done.out
    assert done.out.endswith(f"Written to {folder}, with the certificate (see cascade inspect).\n")
    certified = Classifier.from_pretrained(folder, threads=1)
    certificate = certified.certificate
    assert isinstance(certificate, Certificate)
    assert certificate.ask == {"ask": "MaxDrop", "bound": 0.2, "two_sided": False, "per_class": False}
    assert (certificate.examples, certificate.data.chosen_on, certificate.unit) == (480, 120, "text")
    assert certificate.events is not None
    assert certificate.upper_estimate <= 0.2
    assert 0 < len(certificate.safer) <= 12
    profile = certified.bundle.manifest.profile  # of half of the examples
    assert profile is not None
    assert (profile.texts, set(profile.edges)) == (300, {"depth", "length", "new"})
    written = json.loads(report.read_text())
    assert written["certified"] is True
    assert written["certificate"] == certificate.to_json()
    assert written["figures"]["harms"] == certificate.events
    assert written["path"][written["number"]]["tested"]["events"] == certificate.events
    assert written["policies"] == certified.policies.to_json()
    assert written["made"]["command"].startswith("cascade calibrate ")
    # Other texts are told from those of the calibration, the same ones are not.
    given, unlike = lines(data.read_text()), "these examples are of another kind than those that the bundle"
    longer = [{"text": f"{2 * (row['text'] + ' ')}never dull", "label": row["label"]} for row in given]
    for name, rows in (("data.jsonl", given), ("longer.jsonl", longer)):
        again = run.well("calibrate", folder, "--data", write(tmp_path / name, rows), "--agreement", "0.3")
        assert (unlike in again.out) == (name == "longer.jsonl"), again.out
    # What was replayed is what the written bundle does.
    order = np.random.default_rng(0).permutation(600)[120:]
    texts, truth = [given[row]["text"] for row in order], [given[row]["label"] for row in order]
    answers = certified.predict(texts)
    full = certified.with_router(defer_all).with_exit_policy(never).predict(texts)
    harms = sum(a != t == f for a, f, t in zip(answers.labels, full.labels, truth, strict=True))
    assert harms == certificate.events
    assert answers.stats.deferred / 480 == pytest.approx(written["figures"]["deferred"])


def test_write_replaces_the_bundle_itself(run: Command, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    make(folder)
    run.well("calibrate", folder, "--data", data, "--agreement", "0.2", "--write", "--no-progress")
    assert manifest(folder)["certificate"]["ask"] == {"ask": "Agreement", "bound": 0.2, "per_class": False}
    again = run("calibrate", folder, "--data", data, "--agreement", "0.3", "--progress")
    assert "number 2 about these examples, tested at a level of 0.608 %" in again.out
    assert "these examples certified this bundle before" not in again.out
    assert "all tiers" in again.err


def test_what_was_asked_elsewhere_is_told(
    run: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    make(folder)
    run.well("calibrate", folder, "--data", data, "--agreement", "0.2", "--write")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    again = run("calibrate", folder, "--data", data, "--agreement", "0.3")
    assert "Warning: these examples certified this bundle before" in again.out


def test_questions_about_the_same_examples_share_the_error(
    run: Command, model: Path, data: Path, examples: list[dict[str, str]], tmp_path: Path
) -> None:
    def asked(file: Path, *options: str) -> str:
        out = run("calibrate", model, "--data", file, "--agreement", "0.3", *options).out
        return next(line.split(",")[0].split()[2] for line in out.splitlines() if line.startswith("question "))

    assert asked(data) == asked(data) == "1"  # the same question
    assert asked(data, "--seed", "1") == "2"
    more = write(tmp_path / "more.jsonl", [*examples, *({**one, "text": one["text"] + " good"} for one in examples)])
    assert asked(more) == "3"
    other = [{**one, "text": f"bad {one['text']} fine"} for one in examples]
    assert asked(write(tmp_path / "other.jsonl", other)) == "1"
    # Nothing is tested where examples are too few, so nothing is spent.
    for bound in ("0.001", "0.002"):
        refused = run("calibrate", model, "--data", data, "--max-drop", bound)
        assert "number 4 about these examples" in refused.out
    written = run.well("calibrate", model, "--data", data, "--agreement", "0.4", "--output", tmp_path / "certified")
    assert "tested at a level of 0.0675 %" in written.out
    method = manifest(tmp_path / "certified")["certificate"]["method"]
    assert "question 4 about these examples, at a level of 0.0675 %: all questions share 5 %" in method
    # Other kinds of policies make another path of the same models.
    classifier = Classifier.from_pretrained(model, threads=1)
    classifier.with_router(Threshold(threshold=0.5, measure=margin)).save_pretrained(tmp_path / "margin")
    done = run("calibrate", tmp_path / "margin", "--data", data, "--agreement", "0.3")
    assert "number 5 about these examples" in done.out


def test_a_refusal_says_how_many_examples_it_takes(run: Command, model: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "certified"
    done = run("calibrate", model, "--data", data, "--max-drop", "0.001", "--output", str(folder))
    assert done.status == 1
    assert "480 texts are left to test with, and even without a single event it takes 3218" in done.out
    assert "examples needed  about 4,023 in all" in done.out
    assert done.out.endswith("Nothing was written.\n")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-drop", "0.3", "--two-sided"), "accuracy differs by at most 30 points from"),
        (("--agreement", "0.3", "--per-class"), "for every label separately"),
        (("--max-drop", "0.3", "--confidence", "0.8"), "with a confidence of 80 %"),
    ],
)
def test_ways_of_asking(
    run: Command, model: Path, data: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    before, png = (model / MANIFEST_FILE).read_bytes(), tmp_path / "a.png"
    done = run.well("calibrate", model, "--data", data, *arguments, "--png", png)
    assert said in done.out
    assert "certified" in done.out
    assert "predicted speed-up" in done.out
    assert "Nothing was written: --write makes this the default of MODEL, --output FOLDER of a copy.\n" in done.out
    assert (model / MANIFEST_FILE).read_bytes() == before
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", [("--budget", "0.4"), ("--latency", "5s")])
def test_deferral_without_a_guarantee(
    run: Command, model: Path, data: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "out"
    done = run.well("calibrate", model, "--data", data, *arguments, "--output", str(folder))
    assert done.out.startswith(f"{model}, 600 examples of data.jsonl, no guarantee: all of them choose")
    assert f"Written to {folder}, without a certificate." in done.out
    written = Classifier.from_pretrained(folder, threads=1)
    assert repr(written.router) in done.out
    assert written.certificate is None
    if "--budget" in arguments:
        texts = [line["text"] for line in lines(data.read_text())]
        assert written.predict(texts).stats.deferred / 600 == pytest.approx(0.4, abs=0.03)


def test_thresholds_without_a_guarantee(run: Command, data: Path, tmp_path: Path) -> None:
    folder, report = tmp_path / "mine", tmp_path / "report.json"
    make(folder)
    command = ("calibrate", folder, "--data", data, "--no-guarantee", "--max-drop", "0.03")
    done = run.well(*command, "--write", "--json", str(report))
    rows = [line for line in done.out.splitlines() if line.startswith("->")]
    assert [row.split()[1] for row in rows] == ["3.00"]
    assert "Full tier 2: " in done.out
    written = json.loads(report.read_text())
    assert written["guarantee"] is False
    assert written["point"]["drop"] <= 0.03 + 1e-9
    classifier = Classifier.from_pretrained(folder, threads=1)
    assert classifier.policies.to_json() == written["policies"]
    note = manifest(folder)["figures"]["operating_point"]
    assert (note["data"], note["asked"]) == ("data.jsonl", "--max-drop 0.03")
    # What was replayed is what the written bundle does.
    given = lines(data.read_text())
    made = classifier.predict([line["text"] for line in given]).labels
    right = sum(a == line["label"] for a, line in zip(made, given, strict=True))
    assert right / 600 == pytest.approx(written["point"]["accuracy"])
    again = run("calibrate", folder, "--data", data, "--max-drop", "0.2")
    assert "Warning: the bundle was made with a file of the same name (figures.operating_point.data)" in again.out


def test_the_bundle_is_written_whatever_the_reports_stumble_over(
    run: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report = tmp_path / "certified", tmp_path / "report.json"

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("cascade.runtime.host.version", missing)
    command = ("calibrate", model, "--data", data, "--max-drop", "0.2", "--output", str(folder))
    run.well(*command, "--json", str(report))
    assert json.loads(report.read_text())["made"]["onnxruntime"] == "unknown"

    def broken(*_arguments: object, **_options: object) -> None:
        raise OSError("the report cannot be written")

    monkeypatch.setattr(calibrate_run, "write", broken)
    again = (*command[:-1], str(tmp_path / "again"), "--json", str(report))
    assert run(*again).status == 2
    assert Classifier.from_pretrained(tmp_path / "again", threads=1).certificate is not None


def test_no_labels_are_needed_for_agreement(
    run: Command, model: Path, examples: list[dict[str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("".join(example["text"] + "\n" for example in examples))
    done = run.well("calibrate", model, "--data", file, "--agreement", "0.3")
    assert "accuracy  " not in done.out
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(file.read_bytes(),), daemon=True).start()
    piped = run.well("calibrate", model, "--data", tmp_path / "pipe", "--agreement", "0.3")
    assert piped.out.replace("pipe.txt", "texts.txt") == done.out
    assert run.refused("calibrate", model, "--data", file) == (
        f"Error: --max-drop needs labels, but {file} has none in the column 'label'; name another with --label-column, "
        "or ask for --agreement, which needs none\n"
    )


def test_doubtful_examples_stand_in_the_certificate(
    run: Command, model: Path, examples: list[dict[str, str]], tmp_path: Path
) -> None:
    some = [example for example in examples if example["label"] != "neutral"]
    file = write(tmp_path / "some.jsonl", [*some, *some[:7]])
    folder = tmp_path / "certified"
    done = run.well("calibrate", model, "--data", file, "--max-drop", "0.3", "--output", str(folder))
    assert done.out.startswith(f"{model}, {len(some)} examples of some.jsonl: ")
    copies = f"7 of {len(some) + 7} texts are copies of others and were left out"
    assert f"Warning: {copies}" in done.out
    assert "Warning: there is no example of neutral: nothing was tested of it." in done.out
    certificate = manifest(folder)["certificate"]
    assert [one.split(":")[0] for one in certificate["warnings"]] == ["there is no example of neutral", copies]
    assert certificate["data"]["examples"] == len(some)
    few = run.refused("calibrate", model, "--data", write(tmp_path / "few.jsonl", examples[:12] * 100))
    assert "there must be at least 20 distinct examples, got 12" in few
    done = run("calibrate", model, "--data", file, "--max-drop", "0.3", "--per-class")
    assert done.status == 1
    assert "texts of every class are needed to test with, fewer are left of 'neutral' (0)" in done.out


def test_a_bundle_that_knows_the_file(run: Command, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    make(folder)
    written = manifest(folder)
    written["figures"] = {"calibration": {"source": "data.jsonl"}}
    (folder / MANIFEST_FILE).write_text(json.dumps(written))
    done = run("calibrate", folder, "--data", data, "--max-drop", "0.3")
    assert "Warning: the bundle was made with a file of the same name (figures.calibration.source)" in done.out
    written["figures"] = {"training": [{"sha256": hashlib.sha256(data.read_bytes()).hexdigest()}]}
    (folder / MANIFEST_FILE).write_text(json.dumps(written))
    done = run("calibrate", folder, "--data", data, "--max-drop", "0.3")
    assert "Warning: the bundle was made with these very examples (figures.training.sha256)" in done.out


def test_columns(run: Command, model: Path, examples: list[dict[str, str]], tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", [{"said": one["text"], "meant": one["label"]} for one in examples])
    arguments = ("calibrate", model, "--data", file, "--max-drop", "0.3", "--text-column", "said")
    run.well(*arguments, "--label-column", "meant")
    assert "has none in the column 'label'" in run(*arguments).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-drop", "0.1", "--budget", "0.2"), "--max-drop and --budget exclude each other; ask for one of them"),
        (("--agreement", "0.1", "--two-sided"), "--two-sided must be used with a bound on the drop, got --agreement"),
        (("--latency", "5ms", "--per-class"), "with --max-drop or --agreement, got --latency without a guarantee"),
        (("--agreement", "0.1", "--no-guarantee"), "--no-guarantee must be used with --max-drop, got --agreement"),
        (("--budget", "0.1", "--png", "x.png"), "--png must be used with a guarantee, got --budget"),
        (("--no-guarantee", "--f1"), "--f1 must be used with taggers, but"),
        (("--latency", "5"), "a time must be a number with its unit (us, ms or s), got '5'; write 5ms"),
        (("--max-drop", "1.5"), "--max-drop must be above 0 and below 1, got 1.5"),
        (("--confidence", "1"), "--confidence must be above 0 and below 1, got 1.0"),
        (("--tokens-column", "x"), "--tokens-column must be used with taggers, but"),
        (("--write", "--output", "x"), "--write and --output exclude each other, both were given; leave one out"),
        (("--json", "missing/x.json"), "--json must be a file in a folder that is there, got missing/x.json"),
    ],
)
def test_bad_use(run: Command, model: Path, data: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in run.refused("calibrate", model, "--data", data, *arguments)


def test_bad_places(run: Command, model: Path, data: Path, tmp_path: Path) -> None:
    said = run.refused("calibrate", model, "--data", tmp_path / "none.jsonl")
    assert said == f"Error: --data must be a file of examples, got {tmp_path}/none.jsonl; check the path\n"
    said = run.refused("calibrate", model, "--data", data, "--output", model)
    assert said == f"Error: --output must not be there yet, got {model}; choose another folder\n"
    said = run.refused("calibrate", "somebody/model", "--data", data, "--write")
    assert said.startswith("Error: --write needs a bundle in a folder, got somebody/model; give --output FOLDER")
    before = data.read_bytes()
    for option in ("--json", "--png"):
        said = run.refused("calibrate", model, "--data", data, option, data)
        assert said.startswith("Error: an output must be another file than the input, got ")
        assert data.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "good", "label": "great"}, "labels must be the bundle's (negative, neutral, positive), got 'great'"),
        ({"text": "good"}, "every text must have a label, or none, got 1 of 601 without; label them, or take them out"),
        ({"text": "good", "label": ["negative", "neutral"]}, "there must be exactly one label, got 2"),
        ({"label": "neutral"}, "there must be a column 'text'"),
    ],
)
def test_bad_lines(
    run: Command, model: Path, examples: list[Any], tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "bad.jsonl", [*examples, line])
    said = run.refused("calibrate", model, "--data", file)
    assert f"{file}, line 601: " in said
    assert message in said


def test_several_labels_as_files_have_them() -> None:
    names, file = ("LABEL_0", "b, c"), Path("f")

    def truth(labels: list[Any], labels_of: tuple[str, ...] = names, several: bool = True) -> Any:
        read = [Example(line, "x", label, {}) for line, label in enumerate(labels, 1)]
        return labelled_texts(read, file, labels_of, multi_label=several).truth.tolist()

    assert truth([("1", "0"), ("0", "1")]) == [[1, 0], [0, 1]]
    assert truth(["b, c", ("LABEL_0", "b, c"), ()]) == [[0, 1], [1, 1], [0, 0]]
    assert truth(["1", "0"], ("LABEL_0", "LABEL_1"), several=False) == [1, 0]
    assert truth(["1", "0"], ("toxic",)) == [[1], [0]]
    with pytest.raises(DataError, match="got 'LABEL_0,b, c'; give --label-separator if these are several, rename"):
        truth(["LABEL_0,b, c"])
    with pytest.raises(DataError, match=r"without; write \[\], or in a csv give --label-separator, where none applies"):
        truth(["LABEL_0", None])


def test_a_tagger(run: Command, tagger: Tagger, tmp_path: Path) -> None:
    folder, words = tagger.bundle.folder, [text.split() for text in random_texts(80, shortest=2, longest=7)]
    tags = tagger.with_router(defer_all).with_exit_policy(never).predict(words).tags
    tagged = [{"tokens": some, "tags": given} for some, given in zip(words, tags, strict=True)]
    file = write(tmp_path / "tagged.jsonl", tagged)
    done = run("calibrate", folder, "--data", file, "--max-drop", "0.01")
    assert done.status == 1
    assert "accuracy of sentences is at most 1 point below" in done.out
    assert "examples needed  about " in done.out
    budget = run.well("calibrate", folder, "--data", file, "--budget", "0.2")
    assert "no guarantee" in budget.out
    bare = write(tmp_path / "bare.jsonl", [{"tokens": some} for some in words])
    said = run.refused("calibrate", folder, "--data", bare)
    assert f"--max-drop needs tags, but {bare} has none in the column 'tags'" in said
    mixed = write(tmp_path / "mixed.jsonl", [*tagged, {"tokens": ["good"]}])
    said = run("calibrate", folder, "--data", mixed).err
    assert "line 81: every sentence must have tags, or none, got 1 of 81" in said
    assert "must be used with classifiers" in run("calibrate", folder, "--data", file, "--per-class").err
    # The windows of token exits are chosen, so other ones make no other question.
    for window in (1, 3):
        tagger.with_exit_policy(TokenExit(0.2, window=window)).save_pretrained(tmp_path / f"{window}")
        done = run("calibrate", tmp_path / f"{window}", "--data", file, "--agreement", "0.5")
        assert "number 1 about these examples" in done.out


def test_thresholds_of_a_tagger_without_a_guarantee(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report = tmp_path / "tagger", tmp_path / "report.json"
    tagger = Tagger.from_pretrained(tag_bundle(folder).folder, threads=1)
    file = labelled(tagger, tmp_path, "tagged.jsonl", count=60, seed=3)
    monkeypatch.setattr(calibrate_plain, "WordGrid", lambda **options: replace(GRID, **options))
    command = ("calibrate", folder, "--data", file, "--no-guarantee", "--max-drop", "0.1", "--f1", "--write")
    done = run.well(*command, "--json", str(report))
    assert "entity F1" in done.out
    assert [line.split()[1] for line in done.out.splitlines() if line.startswith("->")] == ["kept"]
    written = json.loads(report.read_text())
    again = Tagger.from_pretrained(folder, threads=1)
    assert again.policies.to_json() == written["policies"]
    assert written["metric"] == "entity F1"
    assert written["drop"] <= 0.1
