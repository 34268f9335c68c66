"""The recipes of docs/python.md run, with toy bundles in the place of the trained ones, where libraries are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cascade import Classifier, Tagger
from tests.models.toy import toy_bundle
from tests.models.toy_tags import tag_bundle
from tests.test_docs import blocks
from tests.test_floors import ROOT

PAGE = ROOT / "docs" / "python.md"
TEXTS = ["a gripping film", "dull"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("bundles")
    labels = ("negative", "positive")
    return {"sentiment": toy_bundle(made / "texts", labels=labels).folder, "pos": tag_bundle(made / "words").folder}


def ran(start: str, folders: dict[str, Path]) -> dict[str, Any]:
    """The names that a block leaves behind; it is the one that begins so."""
    [code] = [block for block in blocks(PAGE, "python") if block.startswith(start)]
    code = re.sub(r'"models/(\w+)"', lambda found: repr(str(folders[found[1]])), code)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


@pytest.fixture
def expected(folders: dict[str, Path]) -> list[Any]:
    return Classifier.from_pretrained(folders["sentiment"], threads=1).predict(TEXTS).labels


def test_one_import_is_all_that_changes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.txt").write_text("good film\nbad\n")
    assert ran("from cascade import pipeline", folders)["answer"].keys() == {"label", "score"}


def test_columns_and_tables(folders: dict[str, Path], expected: list[Any]) -> None:
    pytest.importorskip("pandas")
    names = ran("import cascade\nimport pyarrow", folders)
    assert names["table"].column_names == ["label", "score", "route"]
    assert names["frame"].label.tolist() == [row["label"] for row in names["rows"]] == expected


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_a_search(folders: dict[str, Path]) -> None:
    pytest.importorskip("sklearn")
    assert ran("from cascade.pipelines.estimator", folders)["found"].best_params_["threshold"] in (0.8, 0.9)


def test_polars(folders: dict[str, Path], capsys: pytest.CaptureFixture[str], expected: list[Any]) -> None:
    pytest.importorskip("polars")
    frame = ran("# polars", folders)["frame"]
    assert frame.columns == ["review"]
    assert "shape: (2, 3)" in capsys.readouterr().out


def test_duckdb(folders: dict[str, Path], expected: list[Any]) -> None:
    duckdb = pytest.importorskip("duckdb")
    ran("# duckdb", folders)
    found = duckdb.sql("select label(text) from (values ('a gripping film'), ('dull')) as reviews(text)").fetchall()
    assert [label for (label,) in found] == expected


def test_datasets(folders: dict[str, Path], expected: list[Any]) -> None:
    pytest.importorskip("datasets")
    assert ran("# datasets", folders)["labelled"]["label"][:] == expected


def test_frames_by_parts(folders: dict[str, Path], expected: list[Any]) -> None:
    pandas = pytest.importorskip("pandas")
    names = ran("import cascade\n\n\ndef labelled", folders)
    frame, classifier = pandas.DataFrame({"text": TEXTS}), Classifier.from_pretrained(folders["sentiment"], threads=1)
    [made] = names["labelled"]([frame])
    assert made.label.tolist() == names["labelled_part"](frame, classifier).label.tolist() == expected


def test_spacy(folders: dict[str, Path]) -> None:
    pytest.importorskip("spacy")
    nlp = ran("# spacy", folders)["nlp"]
    texts = ["good film , bad plot", "", "we laugh"]
    found = [[(one.start_char, one.end_char, one.label_) for one in doc.ents] for doc in nlp.pipe(texts, batch_size=2)]
    tagged = Tagger.from_pretrained(folders["pos"], threads=1)(texts, aggregation_strategy="simple")
    assert found == [[(one["start"], one["end"], one["entity_group"]) for one in own] for own in tagged]
    assert any(found)
    assert [(one.start_char, one.label_) for one in nlp(texts[0]).ents] == [
        (begin, label) for begin, _, label in found[0]
    ]


def test_presidio(folders: dict[str, Path]) -> None:
    pytest.importorskip("presidio_analyzer")
    made = ran("# presidio_analyzer", folders)["recognizer"]
    tagged = Tagger.from_pretrained(folders["pos"], threads=1)("good film , bad plot", aggregation_strategy="simple")
    kind = tagged[0]["entity_group"]
    found = made.analyze("good film , bad plot", [kind])
    assert [(one.start, one.end) for one in found] == [
        (one["start"], one["end"]) for one in tagged if one["entity_group"] == kind
    ]
