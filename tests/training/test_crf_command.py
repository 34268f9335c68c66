"""`cascade-train crf`: decoders of a bundle, measured, and one of them written into it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cascade.pipelines.tagger import Tagger
from cascade.policies.decoding import Crf, Viterbi, argmax
from cascade.training.models.crf import fit_crf
from tests.models import tiny
from tests.models.toy_tags import TAGS, tag_bundle
from tests.training.commands import refused, train


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tag_bundle(tmp_path / "bundle").folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Random words whose tags alternate, whatever they are: only transitions know what comes next."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        words = rng.choice(tiny.WORDS, rng.integers(2, 9)).tolist()
        rows.append({"tokens": words, "tags": [("B-PER", "I-PER", "O")[place % 3] for place in range(len(words))]})
    file = tmp_path / "some.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_decoders_are_measured(model: Path, data: Path) -> None:
    before = (model / "cascade.json").read_bytes()
    result = train("crf", model, "--train", data, "--threads", 1, ok=True)
    shown = {line.split()[0]: line for line in result.output.splitlines()}
    accuracy = {name: float(shown[name].split("accuracy ")[1].split(",")[0]) for name in list(shown)[:3]}
    assert list(accuracy) == ["argmax", "viterbi", "crf"]
    assert accuracy["crf"] > accuracy["argmax"] + 20
    assert "entity f1 " in shown["crf"]
    assert (model / "cascade.json").read_bytes() == before


@pytest.mark.parametrize("name", ["viterbi", "crf", "argmax"])
def test_one_of_them_is_written(model: Path, data: Path, name: str) -> None:
    plain = Tagger.from_pretrained(model, threads=1)
    options = ("--write", name, "--threads", 1)
    result = train("crf", model, "--train", data, "--eval", data, *options, ok=True)
    sentences = [json.loads(line) for line in data.read_text().splitlines()]
    made = plain.predict([row["tokens"] for row in sentences])
    targets = np.array([TAGS.index(tag) for row in sentences for tag in row["tags"]])
    fitted = fit_crf(np.log(made.probabilities), targets, made.offsets)
    wanted = {"viterbi": Viterbi(TAGS), "crf": Crf(*fitted), "argmax": argmax}[name]
    assert Tagger.from_pretrained(model, threads=1).decoding == wanted
    assert f"it decodes with {wanted!r}" in result.output


def test_labels_without_a_scheme_have_no_viterbi(tmp_path: Path, data: Path) -> None:
    model = tag_bundle(tmp_path / "pos", labels=("X", "Y", "Z")).folder
    lines = data.read_text().replace("B-PER", "X").replace("I-PER", "Y").replace('"O"', '"Z"')
    data.write_text(lines)
    result = train("crf", model, "--train", data, "--threads", 1, ok=True)
    assert [line.split()[0] for line in result.output.splitlines()[:2]] == ["argmax", "crf"]
    assert "entity" not in result.output
    refused(train("crf", model, "--train", data, "--write", "viterbi"), "labels must be named in BIO or BIOES")


def test_bad_use(model: Path, data: Path, tmp_path: Path) -> None:
    refused(train("crf", model, "--train", tmp_path / "none.jsonl"), "none.jsonl")
    refused(
        train("crf", "some/where", "--train", data, "--write", "crf"), "--write needs a bundle in a folder, got some"
    )
    data.write_text('{"tokens": ["a"], "tags": ["Q"]}\n')
    refused(train("crf", model, "--train", data), "example 1 has the label 'Q', which the model does not have")
