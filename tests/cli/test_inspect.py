from __future__ import annotations

import base64
import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import open_bundle
from cascade.bundle.profile import SLOTS, Profile
from cascade.bundle.tiers import MultiExitSpec, SingleExitSpec, StageSpec
from cascade.bundle.writing import write_bundle
from cascade.pipelines import parts
from cascade.policies import MaxProbability, Policies, Threshold, any_of, defer_none, never
from tests.models.certificates import certificate_of
from tests.models.cli import Command
from tests.models.toy_tags import TAGS, tag_bundle

LABELS = tuple(f"label{number}" for number in range(10))
MANIFEST = Manifest(
    task="text-classification",
    problem_type="single_label_classification",
    labels=LABELS,
    tiers=(
        SingleExitSpec("onnx/model_quantized.onnx", 128, "static", "int8"),
        MultiExitSpec(
            embed="tier2/embed.onnx",
            stages=(StageSpec("tier2/stage_00.onnx", 1, "int8"), StageSpec("tier2/stage_01.onnx", 3)),
            width=384,
            heads=12,
            max_length=512,
        ),
    ),
    policies=Policies((Threshold(0.9),), (never, any_of(MaxProbability(0.95), never)), ((1.25,), (0.5, 1.0))),
    library_version="0.1.0",
    figures={"dev": {"accuracy": 0.912345, "exits": [0.5, 1]}, "rows": 872},
)
FILES = {
    "onnx/model_quantized.onnx": b"1" * 2048,
    "tier2/embed.onnx": b"2",
    "tier2/stage_00.onnx": b"3",
    "tier2/stage_01.onnx": b"4",
    "tokenizer.json": b"{}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", FILES, MANIFEST)
    return tmp_path / "bundle"


def test_says(run: Command, folder: Path) -> None:
    out = run("inspect", str(folder)).out
    for words in (
        "text-classification, one label each",
        "10: label0, label1, label2, label3, label4, label5, label6, label7 and 2 more",
        "Threshold(threshold=0.9",
        "any_of(MaxProbability(threshold=0.95), never)",
        "certificate  none",
        "2.0 KiB in 5 files, hashes verified",
        "up to 128 tokens in tier 1, 512 tokens in tier 2",
        "dev.accuracy  0.9123",
        "dev.exits     0.5, 1",
        "rows          872",
    ):
        assert words in out
    assert not [words for words in ("windows", "trained on", "long texts", "special tokens", "profile") if words in out]
    assert "decoding" not in out


@pytest.mark.parametrize(
    ("form", "lacks", "said"), [("int8", True, True), ("int8", False, False), ("int7", True, False)]
)
def test_a_form_that_is_slow_on_this_cpu(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, lacks: bool, said: bool
) -> None:
    monkeypatch.setattr(parts, "lacks_vnni", lambda: lacks)
    stages = tuple(replace(stage, precision=form) for stage in MANIFEST.tier2.stages)
    tiers = (replace(MANIFEST.tier1, precision="fp32"), replace(MANIFEST.tier2, stages=stages))
    write_bundle(tmp_path / "bundle", FILES, replace(MANIFEST, tiers=tiers))
    told = "on this CPU  weights of 8 bits, slow without VNNI: cascade-export --for avx2 makes faster ones\n"
    assert (told in run("inspect", str(tmp_path / "bundle")).out) is said


def test_what_is_said_of_texts(run: Command, tmp_path: Path) -> None:
    profile = Profile(texts=12, edges={}, known=base64.b64encode(bytes(SLOTS // 8)).decode())
    manifest = replace(MANIFEST, truncation=True, encode_special_tokens=True, inputs="pair", profile=profile)
    write_bundle(tmp_path / "bundle", FILES, manifest)
    out = run("inspect", str(tmp_path / "bundle")).out
    for line in (
        "trained on      pairs of texts\n",
        "long texts      cut, as transformers cuts them\n",
        "special tokens  of a text are read as characters\n",
        "profile         of 12 texts, for a monitor\n",
    ):
        assert line in out


def test_a_tagger(run: Command, tmp_path: Path) -> None:
    bundle = tag_bundle(tmp_path / "tags", exit_policy={"policy": "TokenExit", "threshold": 0.1, "window": 3})
    out = run("inspect", str(bundle.folder)).out
    assert "task         token-classification, a tag for each word\n" in out
    assert "exit policy  TokenExit(threshold=0.1, window=3)\n" in out
    assert "windows      Windows(margin=3, whole=0.6)\n" in out
    assert "decoding     argmax\n" in out
    bundle = tag_bundle(
        tmp_path / "others",
        windows={"policy": "Windows", "margin": 0, "whole": 0.0},
        decoding={"policy": "Viterbi", "labels": list(TAGS)},
    )
    out = run("inspect", str(bundle.folder)).out
    assert "windows      Windows(margin=0, whole=0.0)\n" in out
    assert "decoding     Viterbi(5 labels)\n" in out
    described = json.loads(run("inspect", str(bundle.folder), "--json").out)
    assert described["policies"]["windows"]["margin"] == 0


def test_a_line_per_graph(run: Command, folder: Path) -> None:
    lines = [line.split() for line in run("inspect", str(folder)).out.splitlines()]
    assert ["tier", "1", "static", "int8", "1.250", "2.0", "KiB", "onnx/model_quantized.onnx"] in lines
    assert ["tier", "2", "embed", "1", "B", "tier2/embed.onnx"] in lines
    assert ["layer", "1", "int8", "0.500", "1", "B", "tier2/stage_00.onnx"] in lines
    assert ["layers", "2-3", "fp32", "1.000", "1", "B", "tier2/stage_01.onnx"] in lines


def test_several_labels_and_no_figures(run: Command, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", FILES, replace(MANIFEST, problem_type="multi_label_classification", figures={}))
    out = run("inspect", str(tmp_path / "bundle")).out
    assert "several labels at once" in out
    assert "figures" not in out
    assert "\ncertificate\n" not in out


def test_a_certificate_in_plain_sentences(run: Command, folder: Path, tmp_path: Path) -> None:
    certificate = certificate_of(open_bundle(folder).manifest, warnings=("3 examples are there twice",))
    write_bundle(tmp_path / "new", FILES, replace(MANIFEST, certificate=certificate))
    out = run("inspect", str(tmp_path / "new")).out
    assert "certificate  yes\n" in out
    said = out.split("\ncertificate\n")[1].split("\n\nfigures\n")[0]
    assert max(map(len, said.splitlines())) <= 100
    sentences = said.replace("\n  ", " ").splitlines()
    assert [" ".join(sentence.split()) for sentence in sentences] == certificate.described()
    described = json.loads(run("inspect", str(tmp_path / "new"), "--json").out)
    assert described["certificate"] == certificate.to_json()
    assert described["certificate_doubts"] == []


def test_nothing_of_a_bundle_acts_upon_the_terminal(run: Command, folder: Path, tmp_path: Path) -> None:
    bad, safe = "\x1b]0;x\x07\u202e\n", r"\x1b]0;x\x07\u202e"
    tiers = (replace(MANIFEST.tier1, model=bad, precision=bad), MANIFEST.tier2)
    manifest = replace(
        MANIFEST, labels=(*LABELS[1:], "\u202e\n"), tiers=tiers, library_version=bad, figures={bad: {bad: bad}}
    )
    certificate = certificate_of(open_bundle(folder).manifest, claim=bad, method=bad, warnings=(bad,))
    write_bundle(tmp_path / "new", FILES, replace(manifest, certificate=certificate))
    for arguments in (["--json"], []):
        out = run("inspect", str(tmp_path / "new"), *arguments).out
        assert not [one for one in out if one != "\n" and unicodedata.category(one) in ("Cc", "Cf")]
    assert out.count(safe) >= 7


def test_a_certificate_of_another_bundle(run: Command, folder: Path, tmp_path: Path) -> None:
    certificate = certificate_of(open_bundle(folder).manifest)
    policies = replace(MANIFEST.policies, blend=(0.5,))
    write_bundle(tmp_path / "new", FILES, replace(MANIFEST, policies=policies, certificate=certificate))
    out = run("inspect", str(tmp_path / "new")).out
    assert "certificate  not about this bundle\n" in out
    said = " ".join(out.split("\ncertificate\n")[1].split())
    assert said.startswith(
        "It is not about this bundle, so nothing is claimed of it; calibrate again. What differs: blend must be "
        "(0.0,) as certified, got (0.5,). What it said of another: Claim, at a confidence of 95 %: "
    )
    described = json.loads(run("inspect", str(tmp_path / "new"), "--json").out)
    assert described["certificate_doubts"] == ["blend must be (0.0,) as certified, got (0.5,)"]


def test_three_tiers(run: Command, tmp_path: Path) -> None:
    one, two = MANIFEST.tiers
    policies = Policies(
        (Threshold(0.9), defer_none), (never, any_of(MaxProbability(0.95), never), never), ((1.25,), (0.5, 1.0), (2.0,))
    )
    write_bundle(tmp_path / "new", FILES, replace(MANIFEST, tiers=(one, two, one), policies=policies))
    out = run("inspect", str(tmp_path / "new")).out
    for words in ("router 2         defer_none", "exits of tier 2  any_of(", "128 tokens in tier 3", "tier 3  static"):
        assert words in out


def test_json(run: Command, folder: Path) -> None:
    described = json.loads(run("inspect", str(folder), "--json").out)
    assert (described["certificate"], described["certificate_doubts"]) == (None, [])
    assert described["total_bytes"] == sum(map(len, FILES.values()))
    assert described["tiers"][1]["stages"][1]["layer"] == 3
    assert Manifest.from_json((folder / "cascade.json").read_text()).labels == tuple(described["labels"])


def test_a_flipped_byte(run: Command, folder: Path) -> None:
    (folder / "tier2/embed.onnx").write_bytes(b"x")
    assert "tier2/embed.onnx was altered" in run.refused("inspect", folder)
