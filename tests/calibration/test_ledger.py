"""The record of questions: what is the same question, what is about the same examples."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascade.calibration.certify import ledger
from cascade.calibration.certify.ledger import SKETCH, Ledger
from cascade.exceptions import OptionError

MODELS = {"a.onnx": "0" * 64}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def texts(start: int, stop: int) -> list[str]:
    return [f"text {number}" for number in range(start, stop)]


def asked(items: list[str], what: str, models: dict[str, str] = MODELS) -> int:
    question, lost = Ledger(models).ask(items, what)
    assert lost == ()
    assert question in Ledger(models)
    return question.number


def test_the_number_of_a_question() -> None:
    assert asked(texts(0, 1000), "a") == 1
    assert asked([f" {text} " for text in reversed(texts(0, 1000))], "a") == 1  # the same, whatever the order
    assert asked(texts(0, 1000), "b") == 2
    assert asked(texts(0, 1200), "a") == 3  # some were added
    assert asked(texts(5000, 6000), "a") == 1  # others
    assert asked(texts(0, 6000), "a") == 5  # all of them
    assert asked(texts(0, 1000), "b") == 2
    assert asked(texts(0, 1000), "a", {"a.onnx": "1" * 64}) == 1  # another model


def test_examples_are_the_same_however_many_are_added_but_for_a_few() -> None:
    assert asked(texts(0, 1000), "a") == 1
    assert asked(texts(990, 2000), "a") == 1  # ten are common to both
    assert asked(texts(0, 8000), "b") == 3
    assert max(len(one.sketch) for one in Ledger(MODELS).asked) == SKETCH


def test_questions_that_are_asked_at_one_instant_have_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    read = ledger._read

    def slowly(file: Path) -> list[ledger.Question]:
        found = read(file)
        time.sleep(0.01)
        return found

    monkeypatch.setattr(ledger, "_read", slowly)
    ledgers = [Ledger(MODELS) for _ in range(8)]
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda own, what: own.ask(texts(0, 100), what), ledgers, "abcdefgh"))
    assert sorted(question.number for question, _ in found) == list(range(1, 9))
    assert not [own for own, (question, _) in zip(ledgers, found, strict=True) if question in own]


def test_a_question_of_which_nothing_was_tested_does_not_count() -> None:
    assert asked(texts(0, 100), "a") == 1
    mine = Ledger(MODELS)
    for what, number in (("a", 1), ("b", 2)):
        question, _ = mine.ask(texts(0, 100), what)
        assert question.number == number
        mine.withdraw(question)
    assert [one.number for one in Ledger(MODELS).asked] == [1]  # what was there before stays


def test_a_record_that_cannot_be_kept(cache: Path) -> None:
    (cache / "cascade").write_text("no folder")
    question, (said,) = Ledger(MODELS).ask(texts(0, 30), "a")
    assert question.number == 1
    assert said.startswith("the next question about these examples will not be counted, as ")


@pytest.mark.parametrize("content", ["", "[1]", "{}x", '[{"key": "a", "sketch": [], "number": 0}]', "[" * 100_000])
def test_a_broken_record_is_refused(cache: Path, content: str) -> None:
    file = Ledger(MODELS).file
    assert file.is_relative_to(cache)
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(OptionError, match=r"must be as cascade wrote it, but .*; remove it"):
        Ledger(MODELS)
