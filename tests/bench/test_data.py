"""Files of texts and of sentences: what is right about them, and faults that become notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascade.exceptions import DataError
from cascade.pipelines.loading import load
from cascade.text.labelled import Columns
from cascade_bench.systems.local import Model, answered, whole
from cascade_bench.table.data import Data, read_data, read_items
from tests.bench.conftest import labelled_lines, texts, write_lines
from tests.models.tagged import sentences
from tests.models.toy import toy_bundle


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


def test_texts(classifier: Model, file: Path) -> None:
    lines = labelled_lines(classifier, texts())
    found = read_data(str(write_lines(file, lines)), classifier)
    assert (len(found), found.unit, found.metric, found.notes) == (40, "texts", "accuracy", ())
    assert list(found.right) == [line["label"] for line in lines]
    assert found.accuracy(found.right) == 1
    assert found.accuracy(["none"] * 40) == 0
    assert found.f1(found.right) is None
    assert read_items(str(file)) == list(found.items) == texts()


def test_labels_as_the_model_spells_them(classifier: Model, file: Path) -> None:
    names = [f"LABEL_{number}" for number in range(len(classifier.labels))]
    manifest = replace(classifier.bundle.manifest, labels=tuple(names))
    other: Any = replace(classifier, bundle=replace(classifier.bundle, manifest=manifest))
    lines = [{"text": text, "label": place % 2} for place, text in enumerate(texts())]
    assert list(read_data(str(write_lines(file, lines)), other).right) == [f"LABEL_{n % 2}" for n in range(40)]


def test_sentences(tagger: Model, file: Path) -> None:
    lines = [{"tokens": [], "tags": []}, *labelled_lines(tagger, sentences(40))]
    found = read_data(str(write_lines(file, lines)), tagger)
    assert (len(found), found.unit, found.bio) == (sum(map(len, sentences(40))), "words", True)
    assert found.items == sentences(40)
    assert found.f1(found.right) == 1
    other = [list(own) for own in found.right]
    other[0][0] = "O"
    assert found.accuracy(other) == pytest.approx(1 - 1 / len(found))
    assert read_items(str(file), words=True)[1:] == sentences(40)


def test_entity_f1_counts_whole_entities() -> None:
    # Two entities; one is found, one is cut short: precision and recall are 1/2.
    tagged = Data([["a", "b", "c"], ["d"]], [["B-PER", "I-PER", "O"], ["B-LOC"]], words=True, bio=True)
    assert tagged.f1([["B-PER", "O", "O"], ["B-LOC"]]) == pytest.approx(0.5)


def test_several_labels_columns_and_pairs(tmp_path: Path, classifier: Model, file: Path) -> None:
    model = load(toy_bundle(tmp_path / "multi", multi_label=True).folder, threads=1)
    labels: list[Any] = [["positive", "negative"], [], ["neutral"]]
    lines = [{"text": text, "label": label} for text, label in zip(texts(3), labels, strict=True)]
    found = read_data(str(write_lines(file, lines)), model)
    assert found.right == [("negative", "positive"), (), ("neutral",)]
    assert found.accuracy([("negative", "positive"), (), ("positive",)]) == pytest.approx(2 / 3)
    table = tmp_path / "pairs.csv"
    table.write_text("one,two,answer\na,b,positive\nc,d,negative\n")
    columns = Columns(text_column="one", pair_column="two", label_column="answer")
    pairs = read_data(str(table), classifier, columns=columns)
    assert (pairs.items, pairs.right) == ([("a", "b"), ("c", "d")], ["positive", "negative"])


def test_without_labels_agreement_takes_their_place(classifier: Model, tagger: Model, file: Path) -> None:
    given = read_data(str(write_lines(file, [{"text": text} for text in texts()])), classifier)
    assert (given.labelled, given.metric) == (False, "agreement")
    assert given.notes == ("The file has no labels: agreement with tier 2 at full depth is reported, not accuracy.",)
    assert given.right == answered(whole(classifier), texts()).labels
    words = read_data(str(write_lines(file, [{"tokens": some} for some in sentences(40)])), tagger)
    assert words.right == answered(whole(tagger), sentences(40)).labels


def test_labels_that_the_bundle_does_not_know_are_left_out(classifier: Model, file: Path) -> None:
    lines = labelled_lines(classifier, texts())
    lines[3]["label"], lines[5]["label"], lines[9]["label"] = "sarcastic", "sarcastic", ["positive", "negative"]
    del lines[7]["label"]
    given = read_data(str(write_lines(file, lines)), classifier)
    assert (len(given), given.labelled) == (36, True)
    (note,) = given.notes
    assert note.startswith("4 of 40 rows are left out: labels that the bundle does not know ('sarcastic').")
    numbers = [{"text": text, "label": number} for number, text in enumerate(texts())]
    given = read_data(str(write_lines(file, numbers)), classifier)
    assert not given.labelled
    assert "No row has a label that the bundle knows ('0', '1', '2', ...): agreement" in given.notes[0]


def test_tags_that_do_not_fit_their_words(tagger: Model, file: Path) -> None:
    lines = labelled_lines(tagger, sentences(40))
    lines[1]["tags"] = lines[1]["tags"][1:]
    lines[2]["tags"][0] = "B-XYZ"
    given = read_data(str(write_lines(file, lines)), tagger)
    assert len(given.items) == 38
    assert "2 of 40 rows are left out: labels that the bundle does not know ('B-XYZ')" in given.notes[0]


def test_one_class_only(classifier: Model, tagger: Model, file: Path) -> None:
    given = read_data(str(write_lines(file, [{"text": text, "label": "positive"} for text in texts()])), classifier)
    assert given.notes == ("Every row is labelled positive: a constant answer is right on 100 %.",)
    lines = [{"tokens": some, "tags": ["O"] * len(some)} for some in sentences(40)]
    words = read_data(str(write_lines(file, lines)), tagger)
    assert words.notes == ("Every word is labelled O: a constant answer is right on 100 %.",)


@pytest.mark.parametrize(("count", "said"), [(29, True), (30, False)])
def test_few_rows(classifier: Model, file: Path, count: int, said: bool) -> None:
    given = read_data(str(write_lines(file, labelled_lines(classifier, texts(count)))), classifier)
    assert any("too wide to tell settings apart" in note for note in given.notes) == said


def test_files_that_hold_nothing(classifier: Model, tagger: Model, file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one example"):
        read_data(str(write_lines(file, [])), classifier)
    with pytest.raises(DataError, match="at least one word"):
        read_data(str(write_lines(file, [{"tokens": [], "tags": []}])), tagger)
    with pytest.raises(DataError, match="it is missing"):
        read_data(str(tmp_path / "none.jsonl"), classifier)
    with pytest.raises(DataError, match="line 1: there must be a column 'text'"):
        read_data(str(write_lines(file, [{"sentence": "good"}])), classifier)
