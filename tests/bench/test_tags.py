"""What runs on tagged sentences: contenders, rivals at equal accuracy, operating points that were run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.calibration import leave
from cascade.exceptions import DataError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import AtExit, ExitPolicy, any_of, never
from cascade.policies.routing import defer_all
from cascade.policies.unit_exits import ExitByToken, SentenceExit, TokenExit
from cascade_bench import interleaving, rivals, tag_operating, taggers
from cascade_bench.statistics import Interval
from cascade_bench.table import Row, Table, measure
from cascade_bench.tag_data import Tagged, entity_f1, read_tagged
from cascade_bench.verdicts import verdicts
from tests.models.tagged import GRID, labelled, sentences
from tests.models.toy_tags import LAYERS, TAGS, tag_bundle


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass per turn: these tests look at what is printed, not at seconds."""
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy = {"policy": "TokenExit", "threshold": 0.3, "window": 3}
    return tag_bundle(tmp_path_factory.mktemp("bundles") / "tags", exit_policy=policy, max_length=128).folder


@pytest.fixture(scope="module")
def tagger(model: Path) -> Tagger:
    return Tagger.from_pretrained(model, threads=1)


@pytest.fixture(scope="module")
def data(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tagger, tmp_path_factory.mktemp("data"), "dev.jsonl", count=60, seed=4)


@pytest.fixture(scope="module")
def more(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tagger, tmp_path_factory.mktemp("data"), "train.jsonl", count=120, seed=5)


def test_contenders_are_what_they_are_called(tagger: Tagger) -> None:
    some = sentences(40)
    policies: dict[str, ExitPolicy] = {taggers.SENTENCE: SentenceExit(0.4), taggers.BY_TOKEN: ExitByToken((1,))}
    who = taggers.tag_contenders(tagger, policies)
    assert [one.key for one in who] == ["full", "cut-2", "cut-1", "tier1", "exits", "sentence", "by-token", "cascade"]
    found = {one.key: one.run(some) for one in who}
    assert found["full"].mean_layer == 3
    assert found["cut-1"].mean_layer == 1
    assert (found["tier1"].deferred, found["tier1"].mean_layer) == (0, None)
    routes = tagger.with_router(defer_all).predict(some).routes.words
    assert found["exits"].deferred == 1
    assert found["exits"].mean_layer == pytest.approx(routes.exit_layer.mean())
    assert found["exits"].labels == tagger.with_router(defer_all).predict(some).tags
    assert 1 < routes.exit_layer.mean() < 3
    second = tagger.predict(some).routes.words.tier == 2
    assert found["cascade"].deferred == pytest.approx(second.mean())
    assert 0 < second.mean() < 1
    names = {one.key: one.name for one in who}
    assert names["exits"] == "tier 2 with token exit"
    assert names["by-token"] == "tier 2 with exits fixed per token id"
    capped = tagger.with_exit_policy(any_of(AtExit(2), TokenExit(0.1)))
    assert taggers.tag_contenders(capped)[4].name == "tier 2 with token exit"
    assert taggers.tag_contenders(tagger.with_exit_policy(never))[4].name == "tier 2 with exits"


def accuracy(tagger: Tagger, policy: Any, data: Tagged) -> float:
    made = tagger.with_router(defer_all).with_exit_policy(policy).predict(data.sentences)
    return data.right(made.tags) / len(data)


def test_rivals_are_at_least_as_accurate_and_no_deeper_than_needed(tagger: Tagger, data: Path, more: Path) -> None:
    here, there = (read_tagged(str(file), TAGS) for file in (data, more))
    said: list[str] = []
    found = rivals.rivals(tagger, here, table_data=there, progress=said.append)
    target = accuracy(tagger, tagger.exit_policy, here)
    assert list(found) == ["sentence", "by-token"]
    for policy in found.values():
        assert accuracy(tagger, policy, here) >= target
    seen = rivals.see(tagger, here)
    candidates = rivals.points([SentenceExit(0.2), SentenceExit(0.4)], seen)
    assert len({one.exit_policy for one in candidates}) == 2 * len(LAYERS)
    for one in candidates:  # the replay is exact where sentences leave whole
        assert accuracy(tagger, one.exit_policy, here) == pytest.approx(one.accuracy)
    assert "choosing sentence" in said
    assert list(rivals.rivals(tagger, here)) == ["sentence"]


def test_a_rival_steps_back_until_it_is_accurate_enough(tagger: Tagger, data: Path) -> None:
    seen = rivals.see(tagger, read_tagged(str(data), TAGS))
    deep = SentenceExit(0.0)
    candidates = rivals.points([deep, SentenceExit(0.2), SentenceExit(0.4)], seen)
    target = np.median([one.accuracy for one in candidates])
    ran: list[float] = []

    def worse(point: Any) -> tuple[float, float]:  # by 2 points than replayed, unless it is full depth
        ran.append(point.accuracy)
        return point.accuracy - 0.02 * (point.exit_policy != deep), 1.0

    chosen = rivals.chosen(candidates, float(target), worse)
    best = next(one for one in candidates if one.exit_policy == chosen)
    assert worse(best)[0] >= target
    assert len(ran) > 1
    impossible = rivals.chosen(candidates, 1.0, worse)
    assert next(one for one in candidates if one.exit_policy == impossible).accuracy == max(
        one.accuracy for one in candidates
    )


def test_tables_of_exits_by_token(tagger: Tagger, data: Path) -> None:
    # Token id 7: right 3 times in 4 from the first exit on, always from the second; id 9, seen once: right at the last.
    seen = rivals.see(tagger, read_tagged(str(data), TAGS))
    words = seen.words.select(np.flatnonzero(seen.words.counts > 4)[:1])
    words = words.spans(np.array([0]), np.array([0]), np.array([5]))
    words.rows.ids[words.first_token] = [7, 7, 7, 7, 9]
    right = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 1]], dtype=bool)
    learned = rivals.Seen(words, seen.probabilities[:5], right, LAYERS)
    tables = {
        share: table.layers for share, table in zip(rivals.SHARES, rivals.exits_by_token(learned, words), strict=True)
    }
    assert {share: (table[7], table[9], table[8]) for share, table in tables.items() if share in (0.7, 0.8)} == {
        0.7: (1, 3, 3),  # unseen ids do as the one that was seen once
        0.8: (2, 3, 3),
    }
    assert len(tables[0.7]) == 10


def row(key: str, seconds: float, accuracy: float, cut: int | None = None) -> Row:
    once = Interval(1, 1, 1, 1, 1)
    return Row(key, f"the {key}", cut, accuracy, 0, None, None, (seconds,) * 7, once, None)


def test_verdicts_name_every_rival() -> None:
    rows = (
        row("full", 4.0, 0.95, 6),
        row("cut-3", 2.0, 0.94, 3),
        row("exits", 1.0, 0.93),
        row("sentence", 1.5, 0.93),
        row("by-token", 0.5, 0.93),
        row("cascade", 0.25, 0.92),
    )
    first, second = verdicts(Table(rows, 10, interleaving.Turns({}, {}, []), "words"))
    assert first.startswith("The cascade is right on 92.00% and takes 0.25 s for 10 words; the fastest fixed depth")
    assert second == (
        "The exits is right on 93.00% and takes 1 s; beside the cut-3 (94.00%, 2 s) it is 2.00 times faster "
        "[2.00, 2.00]; beside the sentence (93.00%, 1.5 s) it is 1.50 times faster [1.50, 1.50]; beside the by-token "
        "(93.00%, 0.5 s) it is slower, 0.50 times as fast [0.50, 0.50]."
    )


def test_measured_words(tagger: Tagger, data: Path) -> None:
    here = read_tagged(str(data), TAGS)
    table = measure(taggers.tag_contenders(tagger), here, repeats=1, pause=0)
    assert (table.unit, table.count) == ("words", len(here))
    made = tagger.predict(here.sentences)
    cascade = table.row("cascade")
    assert cascade.accuracy == here.right(made.tags) / len(here)
    assert cascade.f1 == pytest.approx(entity_f1(here.tags, made.tags))


def test_what_was_chosen_keeps_the_bound(tagger: Tagger, data: Path) -> None:
    here = read_tagged(str(data), TAGS)
    found = tag_operating.operate(tagger, here, max_drop=0.05, grid=GRID, tier1_share=0.1)
    assert found.full == accuracy(tagger, never, here)
    for one in found.tried:
        point = one.point
        some = tagger.with_router(point.router).with_windows(point.windows).with_exit_policy(point.exit_policy)
        assert one.score == here.right(some.predict(here.sentences).tags) / len(here)
        assert one.within == (one.score >= found.full - 0.05 - 1e-9)
    assert found.best.score >= found.full - 0.05 - 1e-9
    kinds = tag_operating.kinds(found.points, 0.05)
    assert isinstance(kinds["tier 2 cut"].exit_policy, AtExit | type(never))
    assert kinds["cascade"].cost <= kinds["tier 2 with exits"].cost <= kinds["tier 2 cut"].cost
    slow = tag_operating.Operating(found.points, found.full, 0.0, found.tried)  # nothing is faster than nothing
    assert (slow.best.point.router, slow.best.point.exit_policy, slow.best.score) == (defer_all, never, found.full)


def test_entity_f1_can_be_bounded(tagger: Tagger, data: Path) -> None:
    here = read_tagged(str(data), TAGS)
    found = tag_operating.operate(tagger, here, max_drop=0.1, f1=True, grid=GRID, tier1_share=0.1)
    whole = tagger.with_router(defer_all).with_exit_policy(never).predict(here.sentences)
    assert found.full == entity_f1(here.tags, whole.tags)
    assert all(one.within == (one.score >= found.full - 0.1 - 1e-9) for one in found.tried)
    with pytest.raises(OptionError, match="entity F1 needs BIO tags, the bundle's are none; leave out --f1"):
        tag_operating.operate(tagger, Tagged([["a"]], [["X"]], np.array([0])), max_drop=0.1, f1=True)


def test_sentences_that_fit_no_tier(tagger: Tagger) -> None:
    long = Tagged([["good"] * 200], [["O"] * 200], np.zeros(200, dtype=np.int64))
    with pytest.raises(DataError, match="there must be a sentence with words of at most 128 tokens, was none"):
        rivals.see(tagger, long)
    both = Tagged([["good"] * 200, ["bad"]], [["O"] * 200, ["O"]], np.zeros(201, dtype=np.int64))
    seen = rivals.see(tagger, both)
    assert len(seen.words) == 1
    assert leave(never, seen.probabilities, seen.words, LAYERS).tolist() == [2]


def test_tier_2_alone_may_have_an_exit_policy_of_its_own(tagger: Tagger) -> None:
    policy = any_of(TokenExit(0.5), AtExit(tagger.tier2.layers[0]))
    by_key = {one.key: one for one in taggers.tag_contenders(tagger, exit_policy=policy)}
    sentences = [["some", "words"]]
    assert by_key["exits"].name == "tier 2 with token exit"
    alone = by_key["exits"].run(sentences)
    assert alone.mean_layer == tagger.tier2.layers[0]
    assert by_key["full"].run(sentences).mean_layer == tagger.tier2.layers[-1]
