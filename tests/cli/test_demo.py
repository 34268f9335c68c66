from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import click
import pytest

from cascade.cli import main
from cascade.cli.demo import command, showing
from cascade.cli.demo.showing import Comparison, Sentence, compare, sentences, split_sentences
from cascade.cli.show import choose
from cascade.core.results import Route
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all, defer_none
from tests.models.cli import Command, FakeClassifier
from tests.models.toy import toy_bundle
from tests.models.toy_tags import tag_bundle


class Ticking:
    """A clock on which the full second tier takes 4 seconds, the cascade 1 (times `factor`)."""

    def __init__(self, factor: float = 1.0) -> None:
        self.now = 0.0
        self.factor = factor

    def __call__(self) -> float:
        return self.now

    def pass_by(self, classifier: FakeClassifier) -> None:
        self.now += 4.0 if classifier.router is defer_all else 1.0 * self.factor


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders, and a classifier that needs no files in them."""

    class Loaded:
        @staticmethod
        def from_pretrained(folder: Path, *, threads: int | None) -> FakeClassifier:
            names = {sentence.label for sentence in sentences(folder.name)}
            return FakeClassifier(labels=tuple(sorted(names)))

    monkeypatch.setattr(command, "Classifier", Loaded)
    for name in ("sentiment", "intents"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_the_sentences_are_many_hard_and_distinct() -> None:
    reviews, queries, tagged = sentences("sentiment"), sentences("intents"), split_sentences()
    assert len(reviews) >= 120
    of_kind = Counter(sentence.kind for sentence in reviews)
    assert min(of_kind[kind] for kind in ("plain", "negation", "irony", "mixed", "long")) >= 15
    assert min(Counter(sentence.label for sentence in reviews).values()) >= 55
    assert "oos" in {query.label for query in queries}
    assert len({query.label for query in queries}) >= 40
    assert len(tagged) >= 40
    for given in ([sentence.text for sentence in reviews + queries], [" ".join(sentence) for sentence in tagged]):
        assert len(set(given)) == len(given)
        assert min(len(text.split()) for text in given) <= 4
        assert max(len(text.split()) for text in given) >= 15


def test_shows_both_bundles(run: Command, models: Path) -> None:
    done = run.well("demo", "--models", str(models))
    assert "sentiment: 130 sentences, 2 labels" in done.out
    assert "intents: 60 sentences" in done.out
    assert re.search(r"tier 2, layer 2 of 3", done.out)
    assert re.search(r"full second tier alone +[\d.]+ m?s", done.out)
    assert len(re.findall(r"(The|Here the) cascade", done.out)) == 2
    assert "\x1b" not in done.out
    (models / "intents").rmdir()
    assert "intents: " not in run("demo", "--models", str(models)).out


def test_no_bundles(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "SHIPPED", ())
    assert run.refused("demo") == (
        "Error: the demo needs models/sentiment, models/intents or models/pos, found none; "
        "give the folder that they are in with --models DIR\n"
    )


def test_what_was_shipped_is_shown_where_there_are_no_models(
    run: Command, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "models" / "others").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(command, "SHIPPED", (tmp_path / "nothing", models))
    assert f"\nYour own texts: cascade predict {models}/sentiment texts.txt\n" in run.well("demo").out


def test_bundle_of_other_labels(run: Command, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cascade.cli.demo.command.Classifier.from_pretrained", lambda folder, threads: FakeClassifier(labels=("0", "1"))
    )
    said = run.refused("demo", "--models", models)
    assert "must know the labels of the demo's sentences, lacks: negative, positive;" in said


TEXTS = [
    Sentence("good", "positive", "plain"),
    Sentence("a film that is not good", "negative", "negation"),
    Sentence("bad", "negative", "plain"),
]


@pytest.mark.parametrize(
    ("factor", "begin"),
    [
        (1.0, "The cascade was 4.0 times faster than its full second tier alone"),
        (4.0, "Here the cascade is not faster than its full second tier alone: 4.0 s against 4.0 s, with 1 of 3 sent"),
    ],
)
def test_compare(factor: float, begin: str) -> None:
    clock = Ticking(factor)

    class Timed(FakeClassifier):
        def predict(self, texts):  # type: ignore[no-untyped-def]  # as FakeClassifier's
            clock.pass_by(self)
            return super().predict(texts)

    labels = [text.label for text in TEXTS]
    comparison, answers, full = compare(Timed(), [text.text for text in TEXTS], labels, clock=clock)
    assert answers.labels == full.labels == ["positive", "positive", "negative"]
    assert [route.tier for route in answers.routes] == [1, 2, 1]
    assert comparison == Comparison(
        "sentence", 3, full_seconds=4, cascade_seconds=factor, agree=3, deferred=1, full_right=2, cascade_right=2
    )
    assert comparison.verdict().startswith(begin)
    assert comparison.verdict().endswith(
        "; they gave the same answer to 3 of 3 sentences (100.0%), and the right one to 2 (cascade) and 2 "
        "(full second tier)."
    )


def test_choose_takes_one_of_each_key_first() -> None:
    assert choose(["plain", "plain", "irony"], 2) == [0, 2]
    assert choose(["plain", "plain", "irony", "plain"], 3) == [0, 1, 2]
    assert choose(["plain"] * 3, 14) == [0, 1, 2]


def test_labels_are_coloured_where_they_are_wrong(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = FakeClassifier().predict([sentence.text for sentence in TEXTS])
    shown = showing._examples(TEXTS, answers, 3)
    assert click.style("positive", fg="red") + " (wrong)" in shown
    assert click.style("negative", fg="green") in shown


def test_tags_words_where_there_is_a_tagger(run: Command, models: Path) -> None:
    tag_bundle(models / "pos", max_length=64)
    out = run("demo", "--models", str(models), "--threads", "1").out
    assert "sentiment: 130 sentences" in out
    assert "pos: 48 sentences, 548 words, 5 tags" in out
    assert re.search(r"\ntier 1  (layer [123]|tier 1)  ", out)
    assert re.search(r"\ntier 2, layer [123] of 3 +\d+ +[\d.]+%", out)
    assert re.search(r"full second tier alone +[\d.]+ m?s +[\d.]+ ms\n", out)
    assert re.search(r"they gave the same answer to \d+ of 548 words \([\d.]+%\)\.\n\nYour own texts: ", out)
    assert "\x1b" not in out


def test_a_classifier_in_the_place_of_the_tagger(run: Command, tmp_path: Path) -> None:
    toy_bundle(tmp_path / "pos")
    assert "Tagger must have a bundle for token-classification" in run.refused("demo", "--models", tmp_path)


def test_words_above_tags_above_depths() -> None:
    cells = [("A", "DET", "tier 1", "cyan"), ("gripping", "ADJ", "layer 2", "red"), ("film", "NOUN", "tier 1", "cyan")]
    blocks = list(showing._interlinear(cells, 20))
    assert [click.unstyle(block).splitlines() for block in blocks] == [
        ["A       gripping", "DET     ADJ", "tier 1  layer 2"],
        ["film", "NOUN", "tier 1"],
    ]
    assert click.style("A", fg="cyan", bold=True) in blocks[0]
    assert click.style("layer 2", fg="red") in blocks[0]
    assert len(list(showing._interlinear(cells, 1))) == 3
    assert [showing._colour(Route(2, layer, 1.0), 6) for layer in (1, 6)] == ["green", "red"]


def test_compare_taggers(tmp_path: Path) -> None:
    tagger = Tagger.from_pretrained(tag_bundle(tmp_path / "tagger").folder, threads=1)
    clock = iter(float(second) for second in (0, 8, *(second for turn in range(9) for second in (0, 4, 0, 1))))
    comparison, answers, full = compare(tagger.with_router(defer_none), [["a", "film"], []], clock=lambda: next(clock))
    assert full.tags == tagger.with_router(defer_all).with_exit_policy(never).predict([["a", "film"], []]).tags
    agree = sum(one == other for one, other in zip(answers.tags[0], full.tags[0], strict=True))
    assert comparison == Comparison("word", 2, full_seconds=4, cascade_seconds=1, agree=agree, deferred=0)
    assert comparison.verdict().endswith(f"the same answer to {agree} of 2 words ({agree / 2:.1%}).")


@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("1", False)])
def test_colours_unless_asked_for_none(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", variable)
    monkeypatch.setattr("click._compat.isatty", lambda stream: True)
    monkeypatch.delenv("TERM", raising=False)
    with pytest.raises(SystemExit):
        main(["demo", "--models", str(models)])
    assert ("\x1b" in capsys.readouterr().out) is coloured
