from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click
import pytest

from cascade.cli import demo as module
from cascade.cli import demo_tags, main
from cascade.cli.demo import Comparison, Sentence, compare, sentences, verdict
from cascade.cli.demo_tags import TagComparison
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
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders, and a classifier that needs no files in them."""

    class Loaded:
        @staticmethod
        def from_pretrained(folder: Path, *, threads: int | None) -> FakeClassifier:
            names = {sentence.label for sentence in sentences(folder.name)}
            return FakeClassifier(labels=tuple(sorted(names)))

    monkeypatch.setattr(module, "Classifier", Loaded)
    for name in ("sentiment", "intents"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_enough_sentences_and_hard_ones() -> None:
    of_kind = Counter(sentence.kind for sentence in sentences("sentiment"))
    assert sum(of_kind.values()) >= 120
    assert min(of_kind[kind] for kind in ("plain", "negation", "irony", "mixed", "long")) >= 15
    of_label = Counter(sentence.label for sentence in sentences("sentiment"))
    assert set(of_label) == {"negative", "positive"}
    assert min(of_label.values()) >= 55
    lengths = [len(sentence.text.split()) for sentence in sentences("sentiment")]
    assert min(lengths) <= 3
    assert 35 <= max(lengths) <= 45


def test_enough_queries() -> None:
    queries = sentences("intents")
    assert len(queries) >= 40
    assert len({query.label for query in queries}) >= 40
    assert "oos" in {query.label for query in queries}


@pytest.mark.parametrize("name", ["sentiment", "intents"])
def test_no_sentence_twice(name: str) -> None:
    texts = [sentence.text for sentence in sentences(name)]
    assert len(set(texts)) == len(texts)


def test_shows_both_bundles(run: Command, models: Path) -> None:
    done = run("demo", "--models", str(models))
    assert done.status == 0
    assert "sentiment: 130 sentences, 2 labels" in done.out
    assert "intents: 60 sentences" in done.out
    assert re.search(r"tier 2, layer 2 of 3", done.out)
    assert re.search(r"full second tier alone +[\d.]+ m?s", done.out)
    assert len(re.findall(r"(The|Here the) cascade", done.out)) == 2


def test_shows_what_is_there(run: Command, models: Path) -> None:
    (models / "intents").rmdir()
    out = run("demo", "--models", str(models)).out
    assert "sentiment: " in out
    assert "intents: " not in out


def test_no_colours_in_a_file(run: Command, models: Path) -> None:
    assert "\x1b" not in run("demo", "--models", str(models)).out


def test_no_bundles(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("demo")
    assert done.status == 2
    assert done.err == (
        "Error: the demo needs models/sentiment, models/intents or models/pos, found none; "
        "run it from the root of the repository, or give the folder with --models DIR\n"
    )


def test_bundle_of_other_labels(run: Command, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cascade.cli.demo.Classifier.from_pretrained", lambda folder, threads: FakeClassifier(labels=("0", "1"))
    )
    done = run("demo", "--models", str(models))
    assert done.status == 2
    assert "must know the labels of the demo's sentences, lacks: negative, positive;" in done.err


TEXTS = [
    Sentence("good", "positive", "plain"),
    Sentence("a film that is not good", "negative", "negation"),
    Sentence("bad", "negative", "plain"),
]


def compared(clock: Ticking) -> Comparison:
    class Timed(FakeClassifier):
        def predict(self, texts):  # type: ignore[no-untyped-def]  # as FakeClassifier's
            clock.pass_by(self)
            return super().predict(texts)

    timed = Timed()
    comparison, answers, full = compare(timed, timed.with_router(defer_all), TEXTS, clock=clock)  # type: ignore[arg-type]  # fakes
    assert answers.labels == full.labels == ["positive", "positive", "negative"]
    assert [route.tier for route in answers.routes] == [1, 2, 1]
    return comparison


def test_compare() -> None:
    assert compared(Ticking()) == Comparison(
        count=3, full_seconds=4.0, cascade_seconds=1.0, full_right=2, cascade_right=2, agree=3, deferred=1
    )


def test_verdict_when_it_pays() -> None:
    assert verdict(compared(Ticking())) == (
        "The cascade was 4.0 times faster than its full second tier alone; they gave the same answer to 3 of 3 "
        "sentences, and the right one to 2 (cascade) and 2 (full second tier)."
    )


def test_verdict_when_it_does_not_pay() -> None:
    assert verdict(compared(Ticking(factor=4.0))) == (
        "Here the cascade is not faster than its full second tier alone: 4.0 s against 4.0 s, with 1 of 3 sentences "
        "sent to tier 2; they gave the same answer to 3 of 3 sentences, and the right one to 2 (cascade) and 2 "
        "(full second tier)."
    )


def test_choose_takes_one_of_each_key_first() -> None:
    assert choose(["plain", "plain", "irony"], 2) == [0, 2]
    assert choose(["plain", "plain", "irony", "plain"], 3) == [0, 1, 2]
    assert choose(["plain"] * 3, 14) == [0, 1, 2]


def test_labels_are_coloured_where_they_are_wrong(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = FakeClassifier().predict([sentence.text for sentence in TEXTS])
    shown = module._examples(TEXTS, answers, 3)
    assert click.style("positive", fg="red") + " (wrong)" in shown
    assert click.style("negative", fg="green") in shown


@pytest.fixture
def tagger(tmp_path: Path) -> Tagger:
    return Tagger.from_pretrained(tag_bundle(tmp_path / "tagger").folder, threads=1)


def test_sentences_to_tag() -> None:
    words = demo_tags.sentences()
    assert len(words) >= 40
    assert len({tuple(sentence) for sentence in words}) == len(words)
    lengths = [len(sentence) for sentence in words]
    assert min(lengths) <= 4
    assert max(lengths) >= 15


def test_tags_words_where_there_is_a_tagger(run: Command, models: Path) -> None:
    tag_bundle(models / "pos", max_length=64)
    out = run("demo", "--models", str(models), "--threads", "1").out
    assert "sentiment: 130 sentences" in out
    assert "pos: 48 sentences, 548 words, 5 tags" in out
    assert re.search(r"\ntier 1  (layer [123]|tier 1)  ", out)
    assert re.search(r"\ntier 2, layer [123] of 3 +\d+ +[\d.]+%", out)
    assert re.search(r"full second tier alone +[\d.]+ m?s +[\d,]+\n", out)
    assert re.search(r"they gave the same tag to \d+ of 548 words \([\d.]+%\)\.\n$", out)
    assert "\x1b" not in out


def test_tags_alone(run: Command, tmp_path: Path) -> None:
    tag_bundle(tmp_path / "models" / "pos", max_length=64)
    out = run("demo", "--models", str(tmp_path / "models")).out
    assert out.startswith("pos: ")


def test_a_classifier_in_the_place_of_the_tagger(run: Command, tmp_path: Path) -> None:
    toy_bundle(tmp_path / "pos")
    done = run("demo", "--models", str(tmp_path))
    assert done.status == 2
    assert "Tagger must have a bundle for token-classification" in done.err


def test_words_above_tags_above_depths() -> None:
    cells = [("A", "DET", "tier 1", "cyan"), ("gripping", "ADJ", "layer 2", "red"), ("film", "NOUN", "tier 1", "cyan")]
    blocks = list(demo_tags._interlinear(cells, 20))
    assert [click.unstyle(block).splitlines() for block in blocks] == [
        ["A       gripping", "DET     ADJ", "tier 1  layer 2"],
        ["film", "NOUN", "tier 1"],
    ]
    assert click.style("A", fg="cyan", bold=True) in blocks[0]
    assert click.style("layer 2", fg="red") in blocks[0]
    assert len(list(demo_tags._interlinear(cells, 1))) == 3


def test_depths_have_names_and_colours() -> None:
    assert demo_tags.depth(Route(1, 0, 0.9)) == "tier 1"
    assert demo_tags.depth(Route(2, 3, 0.9)) == "layer 3"
    assert [demo_tags._colour(Route(2, layer, 1.0), 6) for layer in (1, 6)] == ["green", "red"]
    assert demo_tags._colour(Route(1, 0, 1.0), 6) == "cyan"


def test_compare_taggers(tagger: Tagger) -> None:
    clock = iter(float(second) for second in (0, 8, *(second for turn in range(9) for second in (0, 4, 0, 1))))
    comparison, answers = demo_tags.compare(
        tagger.with_router(defer_none), [["a", "film"], []], clock=lambda: next(clock)
    )
    assert (comparison.full_seconds, comparison.cascade_seconds) == (4, 1)
    assert (comparison.sentences, comparison.words, comparison.deferred) == (2, 2, 0)
    full = tagger.with_router(defer_all).with_exit_policy(never).predict([["a", "film"]]).tags[0]
    assert comparison.agree == sum(one == other for one, other in zip(answers.tags[0], full, strict=True))


def test_verdicts_on_tags() -> None:
    seen = TagComparison(sentences=2, words=40, full_seconds=3.0, cascade_seconds=1.0, agree=38, deferred=4)
    assert demo_tags.verdict(seen) == (
        "The cascade was 3.0 times faster than its full second tier alone; "
        "they gave the same tag to 38 of 40 words (95.0%)."
    )
    assert demo_tags.verdict(replace(seen, full_seconds=1.0)) == (
        "Here the cascade is not faster than its full second tier alone: 1.0 s against 1.0 s, with 4 of 40 words sent "
        "to tier 2; they gave the same tag to 38 of 40 words (95.0%)."
    )


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
