from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import click
import numpy as np
import pytest

from cascade.cli import main
from cascade.cli.demo import command
from cascade.cli.demo.command import compare, sentences, times
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
            return FakeClassifier(labels=tuple(sorted(set(sentences(folder.name)[1]))))

    monkeypatch.setattr(command, "Classifier", Loaded)
    for name in ("sentiment", "intents"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_the_sentences_are_many_hard_and_distinct() -> None:
    (reviews, labels), (queries, intents), (tagged, none) = map(sentences, ("sentiment", "intents", "pos"))
    assert len(reviews) == len(labels) >= 120
    lines = (Path(command.__file__).parent / "sentiment.jsonl").read_text(encoding="utf-8").splitlines()
    of_kind = Counter(json.loads(line)["kind"] for line in lines)
    assert min(of_kind[kind] for kind in ("plain", "negation", "irony", "mixed", "long")) >= 15
    assert min(Counter(labels).values()) >= 55
    assert "oos" in intents
    assert len(set(intents)) >= 40
    assert len(tagged) >= 40
    assert not none
    for given in (reviews + queries, [" ".join(sentence) for sentence in tagged]):
        assert len(set(given)) == len(given)
        assert min(len(text.split()) for text in given) <= 4
        assert max(len(text.split()) for text in given) >= 15


def test_shows_both_bundles(run: Command, models: Path) -> None:
    done = run.well("demo", "--models", str(models))
    assert "sentiment: 130 sentences, 2 labels" in done.out
    assert "intents: 60 sentences" in done.out
    assert re.search(r"tier 2, layer 2 of 3", done.out)
    assert re.search(r"\ndecided in +sentences +share\n", done.out)
    assert re.search(r"full second tier alone +[\d.]+ m?s +[\d.]+ ms +[\d.]+%\n", done.out)
    assert len(re.findall(r"The cascade was [\d.]+ times as fast", done.out)) == 2
    assert "\x1b" not in done.out
    (models / "intents").rmdir()
    assert "intents: " not in run("demo", "--models", str(models)).out


def test_no_bundles(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "SHIPPED", ())
    assert run.refused("demo") == (
        "Error: the demo needs models/sentiment, models/intents or models/pos, found none; "
        "give --models, their folder\n"
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


TEXTS = ["good", "a film that is not good", "bad"]
LABELS = ["positive", "negative", "negative"]


@pytest.mark.parametrize(("factor", "faster"), [(1.0, "4.0"), (4.0, "1.0"), (5.0, "0.8")])
def test_compare(factor: float, faster: str) -> None:
    clock = Ticking(factor)

    class Timed(FakeClassifier):
        def predict(self, texts):  # type: ignore[no-untyped-def]  # as FakeClassifier's
            clock.pass_by(self)
            return super().predict(texts)

    answers, full, seconds = compare(Timed(), TEXTS, clock=clock)
    assert answers.labels == full.labels == ["positive", "positive", "negative"]
    assert [route.tier for route in answers.routes] == [1, 2, 1]
    assert seconds.tolist() == [factor, 4]
    shown, said = times("sentence", answers.labels, full.labels, LABELS, seconds)
    assert re.search(r"\nfull second tier alone +4\.0 s +1333\.33 ms +66\.7%$", shown)
    assert said == (
        f"The cascade was {faster} times as fast as its full second tier alone; they gave the same answer to 3 of 3 "
        "sentences (100.0%)."
    )


def test_labels_are_coloured_where_they_are_wrong() -> None:
    shown = command._texts(TEXTS, LABELS, FakeClassifier().predict(TEXTS), 3)
    assert click.style("positive", fg="red") + " (wrong)" in shown
    assert click.style("negative", fg="green") in shown


def test_tags_words_where_there_is_a_tagger(run: Command, models: Path) -> None:
    tag_bundle(models / "pos", max_length=64)
    out = run("demo", "--models", str(models), "--threads", "1").out
    assert "sentiment: 130 sentences" in out
    assert "pos: 48 sentences, 548 words, 5 tags" in out
    assert re.search(r"\n(layer [123]|tier 1)  +(layer [123]|tier 1)  ", out)
    assert re.search(r"\ntier 2, layer [123] of 3 +\d+ +[\d.]+%", out)
    assert re.search(r"full second tier alone +[\d.]+ m?s +[\d.]+ ms\n", out)
    assert re.search(r"they gave the same answer to \d+ of 548 words \([\d.]+%\)\.\n\nYour own texts: ", out)
    assert "\x1b" not in out


def test_a_classifier_in_the_place_of_the_tagger(run: Command, tmp_path: Path) -> None:
    toy_bundle(tmp_path / "pos")
    assert "Tagger must have a bundle for token-classification" in run.refused("demo", "--models", tmp_path)


def test_words_above_tags_above_depths(tmp_path: Path) -> None:
    words = [*["a", "gripping", "film", "with", "a", "good", "plot", "and", "no", "dull", "moment"]]
    answers = Tagger.from_pretrained(tag_bundle(tmp_path / "tagger").folder, threads=1).predict([words])
    first, second = (block.splitlines() for block in command._sentences([words], answers, 3))
    assert [click.unstyle(block[0]).split() for block in (first, second)] == [words[:8], words[8:]]
    assert (first[1].split() + second[1].split()) == answers.tags[0]
    assert re.fullmatch(r"((tier 1|layer [123]) *){8}", first[2])
    assert [command._colour(Route(*place, 1.0), 6) for place in ((1, 0), (2, 1), (2, 6))] == ["cyan", "green", "red"]


def test_compare_taggers(tmp_path: Path) -> None:
    tagger = Tagger.from_pretrained(tag_bundle(tmp_path / "tagger").folder, threads=1)
    clock = iter(float(second) for second in (0, 1, 0, 4) * 3)
    answers, full, seconds = compare(tagger.with_router(defer_none), [["a", "film"], []], clock=lambda: next(clock))
    assert full.tags == tagger.with_router(defer_all).with_exit_policy(never).predict([["a", "film"], []]).tags
    assert set(answers.routes.words.tier.tolist()) == {1}
    assert seconds.tolist() == [1, 4]
    shown, said = times("word", ["A", "B"], ["A", "C"], [], np.array([1.0, 4.0]))
    assert "right" not in shown
    assert said.endswith("the same answer to 1 of 2 words (50.0%).")


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
