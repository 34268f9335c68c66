"""`cascade calibrate` with a guarantee: what is certified, written, warned of and refused."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from cascade import Classifier
from cascade.bundle.certificate import Certificate
from cascade.bundle.manifest import MANIFEST_FILE
from cascade.cli.calibrate import run as calibrate_run
from cascade.policies.exits import Margin, never
from cascade.policies.routing import defer_all
from tests.cli.calibrate.conftest import make, manifest, write
from tests.models.cli import Command, lines


def test_a_certificate_is_written_and_holds(run: Command, model: Path, data: Path, tmp_path: Path) -> None:
    folder, report = tmp_path / "certified", tmp_path / "report.json"
    done = run.well("calibrate", model, "--data", data, "--max-drop", "0.2", "--output", folder, "--json", report)
    assert done.out.startswith(f"{model}, 600 examples of data.jsonl: 120 chose the path, 480 tested it\n")
    assert "accuracy is at most 20 points below that of tier 2 at full depth, with a confidence of 95 %" in done.out
    assert done.out.endswith(f"Written to {folder}, with the certificate (see cascade inspect).\n")
    certified = Classifier.from_pretrained(folder, threads=1)
    certificate = certified.certificate
    assert isinstance(certificate, Certificate)
    assert certificate.ask == {"ask": "MaxDrop", "bound": 0.2, "per_class": False}
    assert (certificate.examples, certificate.data.chosen_on, certificate.unit) == (480, 120, "text")
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
    given, unlike = lines(data.read_text()), "these examples are of another kind than those of the bundle's profile"
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
    classifier.with_exit_policy(Margin(0.5)).save_pretrained(tmp_path / "margin")
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
        (("--agreement", "0.3", "--per-class"), "for every label separately"),
        (("--max-drop", "0.3", "--confidence", "0.8"), "with a confidence of 80 %"),
    ],
)
def test_ways_of_asking(
    run: Command, model: Path, data: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    before = (model / MANIFEST_FILE).read_bytes()
    done = run.well("calibrate", model, "--data", data, *arguments)
    assert said in done.out
    assert "certified" in done.out
    assert "predicted speed-up" in done.out
    assert "Nothing was written: --write makes this the default of MODEL, --output FOLDER of a copy.\n" in done.out
    assert (model / MANIFEST_FILE).read_bytes() == before


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
        "or ask for --agreement\n"
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
    assert "Warning: the bundle was made with a file of the same name; " in done.out
    written["figures"] = {"training": [{"sha256": hashlib.sha256(data.read_bytes()).hexdigest()}]}
    (folder / MANIFEST_FILE).write_text(json.dumps(written))
    done = run("calibrate", folder, "--data", data, "--max-drop", "0.3")
    assert "Warning: the bundle was made with these very examples, " in done.out
