"""Empty and blank items, inputs that lose tokens, pairs against single texts, special tokens that users type."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cascade
from cascade import Classifier, Tagger
from cascade.bundle.opening import Bundle
from cascade.engine.streaming import StreamOptions
from cascade.exceptions import BundleError, CascadeWarning, InputError
from cascade.policies.routing import defer_all
from cascade.text.texts import is_empty
from tests.models.toy import toy_bundle, toy_tokenizer
from tests.models.toy_tags import tag_bundle
from tests.pipelines.conftest import rewrite

BLANK = ["", " ", "\t\n", "\u3000", "\u2028", "good"]


@pytest.mark.parametrize(
    ("item", "empty"),
    [("", True), (" \t\u3000\n", True), ("a ", False), (("", " "), True), (("", "a"), False), ([], True), ([""], True)],
)
def test_what_is_empty(item: Any, empty: bool) -> None:
    assert is_empty(item) == empty


def test_empty_texts_are_answered_alike_and_counted(clf: Classifier) -> None:
    found = clf.predict(BLANK)
    assert found.stats.empty == 5
    assert clf.predict([("", " "), ("", "good"), {"text": ""}]).stats.empty == 2
    assert len(set(found.labels[:5])) == 1  # the tokenizer has no piece of a blank
    told: list[int] = []
    stream = list(clf.stream(BLANK, options=StreamOptions(2, on_stats=lambda stats: told.append(stats.empty))))
    assert sum(told) == 5
    for way in (stream, [clf.predict([text])[0] for text in BLANK]):
        np.testing.assert_allclose([one.probabilities for one in way], found.probabilities, atol=1e-6)
    assert [one["label"] for one in clf(BLANK)] == found.labels
    assert clf.with_router(defer_all).predict(BLANK).stats.empty == 5


def test_empty_sentences_are_counted(tagger: Tagger) -> None:
    assert tagger.predict([[], [" "], ["good"], ["", "bad"]]).stats.empty == 2
    found = tagger.predict_texts(BLANK)
    assert found.stats.empty == 5
    assert found.tags[:5] == [[]] * 5
    for strategy in ("none", "simple", "first", "average", "max"):
        assert tagger(BLANK, aggregation_strategy=strategy)[:5] == [[]] * 5
    assert [one.tags for one in tagger.stream_texts(BLANK)] == found.tags


def lines(folder: Path, name: str) -> Path:
    """The blank texts in a file of each kind."""
    file = folder / name
    if name.endswith(".txt"):
        file.write_text("\n \ngood\n", encoding="utf-8")
    elif name.endswith(".csv"):
        file.write_text('id,text\n1,\n2," "\n3,good\n', encoding="utf-8")
    elif name.endswith(".jsonl"):
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("", " ", "good")), encoding="utf-8")
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": ["", " ", "good"]}), file)
    return file


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    def run(*arguments: object, status: int = 0) -> list[dict[str, Any]]:
        from cascade.cli import main

        with pytest.raises(SystemExit) as end:
            main(["predict", *map(str, arguments)])
        seen = capsys.readouterr()
        assert end.value.code == status, seen.err
        return [json.loads(line) for line in seen.out.splitlines()] if status == 0 else [{"error": seen.err}]

    return run


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.parquet"])
def test_files_of_every_kind_say_what_is_empty(
    clf: Classifier, tagger: Tagger, predict: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    file, wanted = lines(tmp_path, name), clf.predict(["", " ", "good"]).labels
    found = predict(clf.bundle.folder, file)
    assert [line["label"] for line in found] == wanted
    assert [line.get("empty") for line in found] == [True, True, None]
    null = predict(clf.bundle.folder, file, "--on-empty", "null")
    assert [line["label"] for line in null] == [None, None, wanted[2]]
    assert [line.get("empty") for line in null] == [True, True, None]
    [refused] = predict(clf.bundle.folder, file, "--on-empty", "error", status=2)
    assert "must have a character that is no blank" in refused["error"]
    tags = predict(tagger.bundle.folder, file, "--text-column", "text")
    assert [line.get("empty") for line in tags] == [True, True, None]
    assert [line["tags"] for line in tags[:2]] == [[], []]


def test_what_loses_tokens_is_warned_of_once(clf: Classifier, tagger: Tagger) -> None:
    long = "good " * 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clf.predict([long]).stats.truncated == 0  # read in windows
        assert clf.with_truncation().predict([(long, "bad"), long]).stats.truncated == 2  # asked for
        list(clf.stream([(long, "bad")], options=StreamOptions(on_stats=lambda _: None)))  # told of
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            clf.predict([(long, "bad")])
        list(clf.stream([(long, "bad")] * 3, options=StreamOptions(1)))
    assert [one.filename == __file__ for one in caught].count(True) == 2
    for one in caught:
        assert one.category is CascadeWarning
        assert "must fit the model to be read whole, but some were cut" in str(one.message)


def test_pairs_and_single_texts_against_what_the_model_was_trained_on(tmp_path: Path) -> None:
    folder, pair = toy_bundle(tmp_path / "kinds").folder, {"text": "good", "text_pair": "bad"}
    for kind, fit, other in (("text", "good", ("good", "bad")), ("pair", pair, "good"), ("text", {"text": "a"}, pair)):
        rewrite(folder, inputs=kind)
        loaded = Classifier.from_pretrained(folder, threads=1)
        wanted = "a single text" if kind == "text" else "a pair of texts"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded.predict([fit, fit])
        said = f"each text should be {wanted}, which this model was trained on, but some are a"
        for ask in (loaded.predict, loaded, lambda texts, own=loaded: list(own.stream(texts))):
            with pytest.warns(CascadeWarning, match=said):
                ask([fit, other])
    rewrite(folder, inputs="both")
    with pytest.raises(BundleError, match='inputs must be text, pair or null, got "both"'):
        cascade.load(folder)


@pytest.mark.parametrize("make", [toy_bundle, tag_bundle])
def test_special_tokens_that_users_type_can_be_text(make: Callable[[Path], Bundle], tmp_path: Path) -> None:
    folder, typed = make(tmp_path / "special").folder, "good [SEP] bad[PAD]"
    file = folder / "tokenizer.json"
    inner = toy_tokenizer()
    inner.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    rewritten(folder, file.name, inner.to_str().encode())
    found = {}
    for as_text in (False, True):
        rewrite(folder, encode_special_tokens=as_text)
        loaded = cascade.load(folder, threads=1)
        encoders = [getattr(tier, "encoder", None) for tier in loaded.tiers]
        for own in (loaded.tokenizer, *filter(None, encoders)):
            tokenizer = getattr(own, "tokenizer", own)
            found[as_text] = tokenizer.encode([typed]).units.rows.ids.tolist()
            assert (3 in found[as_text][1:-1]) != as_text  # [SEP] in mid-text
            assert 0 in found[as_text] or as_text
            assert (tokenizer.words["[SEP]"] == (3,)) != as_text
    assert found[True] == loaded.tokenizer.encode(["good [ SEP ] bad [ PAD ]"]).units.rows.ids.tolist()
    manifests = [replace(loaded.bundle.manifest, encode_special_tokens=as_text) for as_text in (False, True)]
    assert manifests[0].models() != manifests[1].models()  # so a certificate is about one of them


def rewritten(folder: Path, name: str, contents: bytes) -> None:
    """Another file in a bundle, its record mended."""
    (folder / name).write_bytes(contents)
    rewrite(folder, "files", name, sha256=hashlib.sha256(contents).hexdigest(), bytes=len(contents))


def columns() -> list[Any]:
    import pyarrow as pa

    found = [pa.array(TEXTS), pa.chunked_array([TEXTS[:1], TEXTS[1:]]), np.array(TEXTS)]
    for library in ("pandas", "polars"):
        with contextlib.suppress(ImportError):
            found.append(importlib.import_module(library).Series(TEXTS))
    return found


TEXTS = ["good film", "bad", "a very dull plot"]


@pytest.mark.parametrize("column", columns(), ids=lambda column: f"{type(column).__module__}.{type(column).__name__}")
def test_columns_of_tables_are_texts(clf: Classifier, tagger: Tagger, column: Any) -> None:
    assert clf(column) == clf(TEXTS)
    assert clf.predict(column).labels == [one.label for one in clf.stream(column)] == clf.predict(TEXTS).labels
    assert tagger(column) == tagger(TEXTS)
    assert tagger.predict_texts(column).tags == [one.tags for one in tagger.stream_texts(column)]
    table = clf.predict(column).to_arrow(routes=True)
    assert table["label"].to_pylist() == clf.predict(TEXTS).labels
    assert [row["tags"] for row in tagger.predict_texts(column).to_dicts()] == tagger.predict_texts(TEXTS).tags


def test_columns_of_lists_are_sentences(tagger: Tagger) -> None:
    import pyarrow as pa

    words = [text.split() for text in TEXTS]
    assert tagger.predict(pa.array(words)).tags == tagger.predict(words).tags


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_null_is_refused_by_its_row(clf: Classifier, tagger: Tagger, missing: Any) -> None:
    for ask in (clf, clf.predict, tagger, tagger.predict_texts):
        with pytest.raises(InputError, match=r"a text must be a string, got a null as text 1; give .* or drop the row"):
            ask(["good", missing])


def test_a_table_is_no_column(clf: Classifier, tagger: Tagger) -> None:
    frame = pytest.importorskip("pandas").DataFrame({"text": TEXTS, "stars": [1, 2, 3]})
    for ask in (clf, clf.predict, clf.stream, tagger, tagger.predict_texts):
        with pytest.raises(InputError, match=r"got a DataFrame with the columns 'text', 'stars'; .* table\['text'\]"):
            ask(frame)
