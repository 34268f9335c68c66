"""`cascade-export`: both tasks, from files to bundles; errors in one line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import cascade_export
from cascade.bundle.opening import open_bundle
from cascade.policies.exits import MaxProbability
from cascade.policies.routing import Threshold
from cascade.policies.unit_exits import TokenExit
from cascade_export import export as export_module
from cascade_export.cli import main
from tests.models import tiny
from tests.models.tiny_tagging import SENTENCES, TAGS


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def write(file: Path, records: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


def test_round_trip(tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"text": text, "label": tiny.LABELS[i % 2]} for i, text in enumerate(tiny.TEXTS)]
    file = write(tmp_path / "calibration.jsonl", records)
    arguments = ["--tier2", tiers / "tier2", "--tier1", tiers / "static", "--output", tmp_path / "out"]
    more = ["--calibration", file, "--threshold", 0.8, "--exit-threshold", 0.7, "--no-fp32", "--max-length", 40]
    more += ["--encode-special-tokens"]
    status = run(*arguments, *more)
    seen = capsys.readouterr()
    assert status == 0, seen.err
    assert "tier 2, layer 2: int8, agrees with fp32 on" in seen.out
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.policies.routers == (Threshold(0.8),)
    assert manifest.policies.exits[1] == MaxProbability(0.7)
    assert "onnx/model.onnx" not in manifest.files
    assert (manifest.encode_special_tokens, manifest.inputs) == (True, "text")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["split_special_tokens"] is True
    known = {"source": file.name, "texts": 8, "labelled": True}
    known["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    assert manifest.figures["calibration"] == known
    assert run(*arguments) == 2
    assert "must be a new or empty folder" in capsys.readouterr().err
    assert {manifest.tier1.precision, *(stage.precision for stage in manifest.tier2.stages)} == {"int8"}
    assert run(*arguments, "--overwrite", "--for", "avx2") == 0
    manifest = open_bundle(tmp_path / "out").manifest
    assert {manifest.tier1.precision, *(stage.precision for stage in manifest.tier2.stages)} == {"int7"}
    assert run(*arguments, "--overwrite", "--for", "z80") == 2
    assert "'z80' is not one of 'any', 'avx2'" in capsys.readouterr().err
    assert run(*arguments, "--overwrite", "--int8", "none") == 0
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.tier1.precision == "fp32"
    assert (manifest.encode_special_tokens, manifest.inputs) == (False, None)  # the project's own samples say nothing


def test_round_trip_of_a_tagger(tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"words": own, "upos": tags} for own, tags in zip(SENTENCES, TAGS, strict=True)]
    file = write(tmp_path / "dev.jsonl", records)
    status = run(
        *("--tier2", tiers / "tagger", "--tier1", tiers / "tag-static", "--output", tmp_path / "out"),
        *("--calibration", file, "--tokens-column", "words", "--label-column", "upos"),
        *("--threshold", 0.8, "--exit-threshold", 0.1),
    )
    assert status == 0, capsys.readouterr().err
    assert "tier 2, layer 2: int8, agrees with fp32 on" in capsys.readouterr().out
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.policies.routers == (Threshold(0.8),)
    assert manifest.policies.exits[1] == TokenExit(0.1)
    assert manifest.figures["calibration"]["source"] == "dev.jsonl"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"words": ["a"], "tags": ["X"]}, "'tokens'"),
        ({"tokens": ["a", "b"], "tags": ["X"]}, "one tag per word"),
        ({"tokens": ["a"], "tags": ["ADJ"]}, "has the label 'ADJ'"),
    ],
)
def test_bad_calibration_data_are_named(
    tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], message: str
) -> None:
    file, out = write(tmp_path / "dev.jsonl", [record]), tmp_path / "out"
    status = run("--tier2", tiers / "tagger", "--tier1", tiers / "tag-static", "--output", out, "--calibration", file)
    assert status == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "dev.jsonl" in last
    assert message in last
    assert not out.exists()


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_a_tagger_is_calibrated_on_plain_words(
    tiers: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"words.{kind}"
    if kind == "txt":
        file.write_text("".join(" ".join(own) + "\n" for own in SENTENCES), encoding="utf-8")
    else:
        write(file, [{"tokens": own} for own in SENTENCES])
    out = tmp_path / "out"
    status = run("--tier2", tiers / "tagger", "--tier1", tiers / "tag-static", "--output", out, "--calibration", file)
    assert status == 0, capsys.readouterr().err
    known = {"source": file.name, "texts": 8, "labelled": False, "words": sum(map(len, SENTENCES))}
    assert known.items() <= open_bundle(out).manifest.figures["calibration"].items()


def test_one_tier(tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--tier2", tiers / "tier2", "--output", tmp_path / "out", "--exit-threshold", 0.7) == 0
    assert "tier 1, layer 2: int8, agrees with fp32 on" in capsys.readouterr().out
    assert open_bundle(tmp_path / "out").manifest.policies.exits == (MaxProbability(0.7),)


def test_errors_take_one_line(tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run("--tier2", tmp_path / "no", "--tier1", tiers / "static", "--output", tmp_path / "out")
    assert status == 2
    seen = capsys.readouterr().err
    assert seen.strip().splitlines()[-1].startswith("Error: tier 2 must be")
    assert "Traceback" not in seen


def test_it_can_be_interrupted(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "export_bundle", interrupted)
    status = run("--tier2", tiers / "tier2", "--tier1", tiers / "static", "--output", tmp_path / "out")
    assert status == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == "Interrupted."
    assert not (tmp_path / "out").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "cascade-export --tier2 runs/sentiment-exits" in capsys.readouterr().out


def test_the_extra_is_named_where_it_is_missing() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name: None if name in ('torch', 'onnx') else real(name)\n"
        "from cascade_export.cli import main\n"
        "main(['--tier2', 'a', '--tier1', 'b', '--output', 'c'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "Error: cascade_export needs the extra export, but onnx, torch is missing; pip install "
        '"cascade-encoder[export]"'
    )


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cascade_export.nonsense  # noqa: B018  # asking is the test
