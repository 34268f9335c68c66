"""`cascade predict` with a tagger: words and texts in, lines of tags or entities out."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascade.bundle.opening import Bundle, open_bundle
from cascade.cli.predict.lines import entities, tags, write
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.text.entities import AggregationStrategy
from cascade.text.reading import Example
from tests.models.cli import Command, lines

SENTENCES = [["the", "film", "is", "good"], [], ["goodfilm", "\u200b", "שלום"]]
TOKENS = "".join(json.dumps({"id": 1, "tokens": sentence}) + "\n" for sentence in SENTENCES)
TEXTS = ["the film is good!", "", "  café goodfilm"]


@pytest.fixture(scope="module")
def folder(tagger: Tagger) -> str:
    return str(tagger.bundle.folder)


def test_words(run: Command, folder: str, tagger: Tagger) -> None:
    done = run("predict", folder, "--format", "jsonl", "--threads", "1", stdin=TOKENS)
    tags = tagger.predict(SENTENCES).tags
    assert lines(done.out) == [
        {"line": number, "tokens": words, "tags": own} | ({} if words else {"empty": True})
        for number, (words, own) in enumerate(zip(SENTENCES, tags, strict=True), start=1)
    ]
    assert done.err.startswith("3 rows, 1 of them empty in ")
    assert done.err.endswith("% of 7 words deferred to tier 2\n")


def test_the_bundle_is_found_once(run: Command, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def find(model: str, **options: Any) -> Bundle:
        found.append(model)
        return open_bundle(model, **options)

    monkeypatch.setattr("cascade.pipelines.base.open_bundle", find)
    run.well("predict", folder, stdin="a film\n")
    assert found == [folder]


def test_routes_of_words(run: Command, folder: str, tagger: Tagger) -> None:
    out = lines(run("predict", folder, "--format", "jsonl", "--routes", stdin=TOKENS).out)
    expected = tagger.predict(SENTENCES)
    assert [line["tier"] for line in out] == [routes.tier.tolist() for routes in expected.routes]
    assert [line["exit"] for line in out] == [routes.exit_layer.tolist() for routes in expected.routes]
    assert out[0]["confidence"] == pytest.approx(expected.routes[0].confidence.tolist(), abs=1e-6)
    assert list(out[1]) == ["line", "tokens", "tags", "tier", "exit", "confidence", "empty"]
    assert out[1]["tags"] == out[1]["tier"] == []


def test_texts(run: Command, folder: str, tagger: Tagger) -> None:
    out = lines(run("predict", folder, stdin="\n".join(TEXTS) + "\n").out)
    assert [line["tokens"] for line in out] == [["the", "film", "is", "good", "!"], [], ["café", "goodfilm"]]
    assert [line["tags"] for line in out] == tagger.predict_texts(TEXTS).tags
    assert out[2]["spans"] == [[2, 6], [7, 15]]


def test_columns(run: Command, folder: str, tmp_path: Path) -> None:
    words = tmp_path / "words.jsonl"
    words.write_text('{"words": ["a", "film"], "tokens": ["bad"], "body": "dull plot it"}\n')
    table = tmp_path / "texts.csv"
    table.write_text('id,text\n1,"a film, bad"\n')
    for arguments, tokens in (
        ((words,), ["bad"]),
        ((words, "--tokens-column", "words"), ["a", "film"]),
        ((words, "--text-column", "body"), ["dull", "plot", "it"]),
        ((table,), ["a", "film", ",", "bad"]),
    ):
        assert [line["tokens"] for line in lines(run("predict", folder, *arguments).out)] == [tokens]


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_entities(run: Command, folder: str, tagger: Tagger, strategy: str) -> None:
    done = run("predict", folder, "--aggregation-strategy", strategy, stdin="\n".join(TEXTS) + "\n")
    out = lines(done.out)
    expected = tagger(TEXTS, aggregation_strategy=strategy)
    assert [line["text"] for line in out] == TEXTS
    for line, found in zip(out, expected, strict=True):
        assert line["entities"] == [{**entity, "score": round(entity["score"], 6)} for entity in found]
    assert any(line["entities"] for line in out)
    assert done.err.startswith("3 rows, 1 of them empty in ")


def test_policies(run: Command, folder: str) -> None:
    for options, tier, layers in (
        (("--threshold", "1", "--exit-threshold", "0"), [2, 2], [1, 1]),
        (("--budget", "0"), [1, 1], [0, 0]),
    ):
        (line,) = lines(run("predict", folder, "--routes", *options, stdin="the film\n").out)
        assert (line["tier"], line["exit"]) == (tier, layers)


def test_bad_lines(run: Command, folder: str) -> None:
    broken = '{"tokens": ["the"]}\n{"tokens": "film"}\n{"tokens": ["film"]}\n'
    said = run("predict", folder, "--format", "jsonl", stdin=broken)
    assert said.status == 2
    assert "line 2: column 'tokens' must be a list of words, got str ('film')" in said.err
    done = run("predict", folder, "--format", "jsonl", "--on-error", "null", "--routes", stdin=broken)
    out = lines(done.out)
    empty = {"tokens": None, "tags": None, "tier": None, "exit": None, "confidence": None}
    assert out[1] == {"line": 2, **empty}
    assert [line["tokens"] for line in out] == [["the"], None, ["film"]]
    assert "3 rows, 1 of them unreadable in " in done.err


def test_bad_lines_among_texts(run: Command, folder: str) -> None:
    broken = '{"text": "film"}\n{"text": 3}\n'
    options = ("--format", "jsonl", "--text-column", "text", "--on-error", "null")
    assert lines(run("predict", folder, *options, stdin=broken).out)[1] == {
        "line": 2, "tokens": None, "tags": None, "spans": None
    }  # fmt: skip
    out = lines(run("predict", folder, *options, "--aggregation-strategy", "simple", stdin=broken).out)
    assert out[1] == {"line": 2, "text": None, "entities": None}


def test_any_word_and_any_text(run: Command, folder: str) -> None:
    odd = json.dumps({"tokens": ["\ud83d", "", "\u200b", "x" * 5000, "مرحبا"], "text": "\ud83d film"}) + "\n"
    out = lines(run("predict", folder, "--format", "jsonl", stdin=odd).out)
    assert len(out[0]["tags"]) == 5
    out = lines(run("predict", folder, "--format", "jsonl", "--text-column", "text", stdin=odd).out)
    assert out[0]["tokens"] == ["film"]
    assert out[0]["spans"] == [[2, 6]]
    odd = json.dumps({"text": "k\udb33\u07e0 film"}) + "\n"
    done = run("predict", folder, "--format", "jsonl", "--aggregation-strategy", "simple", stdin=odd)
    assert lines(done.out)[0]["text"] == "k\udb33\u07e0 film"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--top-k", "2"), "--top-k must be used with classifiers, but .* is a tagger; leave it out"),
        (("--top-k", "2", "--pair-column", "b"), "--top-k and --pair-column must be used with class.*; leave them out"),
        (("--tokens-column", "a", "--text-column", "b"), "--tokens-column and --text-column exclude each other"),
        (("--tokens-column", "a", "--aggregation-strategy", "max"), "--tokens-column and --aggregation-strategy ex"),
        (("--routes", "--aggregation-strategy", "max"), "--routes and --aggregation-strategy exclude each other"),
        (("--aggregation-strategy", "words"), "aggregation-strategy.*see cascade predict --help"),
        (("--threshold", "2"), r"threshold must be in \[0, 1\], got 2.0"),
    ],
)
def test_bad_use_is_one_line(run: Command, folder: str, arguments: tuple[str, ...], message: str) -> None:
    assert re.search(message, run.refused("predict", folder, *arguments))


@pytest.mark.parametrize("option", ["--tokens-column", "--aggregation-strategy"])
def test_options_of_taggers_with_a_classifier(run: Command, clf: Classifier, option: str) -> None:
    folder = clf.bundle.folder
    said = run.refused("predict", folder, option, "max")
    assert f"{option} must be used with taggers, but {folder} is a classifier; leave it out" in said


@pytest.mark.parametrize(("strategy", "words"), [(None, True), (None, False), ("simple", False)])
def test_memory_does_not_grow_with_the_file(tagger: Tagger, strategy: str | None, words: bool) -> None:
    read = 0

    def examples() -> Iterator[Example]:
        nonlocal read
        for read in range(1, 6001):
            text, tokens = (None, ["film"]) if words else ("film", None)
            yield Example(line=read, text=text, label=None, record={}, tokens=tokens)

    ahead: list[int] = []

    class Out(io.StringIO):
        def write(self, line: str) -> int:
            ahead.append(read - len(ahead))
            return len(line)

    lines = tags(tagger, words=words) if strategy is None else entities(tagger, AggregationStrategy(strategy))
    write(examples(), Out(), lines)
    assert len(ahead) == 6000
    assert max(ahead) <= 4097  # what a stream holds back, however long the machine takes for it
