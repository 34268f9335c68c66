"""Ray on a cluster of this machine alone: labels in a Dataset, jobs on tasks, and what is lost on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascade import Classifier, Tagger
from cascade.exceptions import BundleNotFoundError, DataError
from cascade.jobs.running import predict_tables
from cascade.jobs.settings import Settings
from tests.jobs.making import seen, texts, write

ray = pytest.importorskip("ray.data") and pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

from cascade.jobs.ray import CascadeLabels  # noqa: E402  # which raises without Ray


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Three CPUs, however many there are: two actors and who reads for them."""
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    yield
    ray.shutdown()


def test_a_dataset_keeps_its_columns_and_rows_and_gets_the_labels_of_one_process(clf: Classifier) -> None:
    given = texts(900)
    blocks = [pa.table({"id": range(n, n + 100), "review": given[n : n + 100]}) for n in range(0, 900, 100)]
    labelled = ray.data.from_arrow(blocks).map_batches(
        CascadeLabels,
        fn_constructor_kwargs={"model": str(clf.bundle.folder), "text_column": "review", "routes": True},
        batch_format="pyarrow",
        batch_size=128,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    found = labelled.to_pandas()
    wanted = clf.predict(given)
    assert list(found.columns) == ["id", "review", "label", "score", "route"]
    assert found["id"].tolist() == list(range(900))
    assert found["label"].tolist() == list(wanted.labels)
    assert [route["tier"] for route in found["route"]] == wanted.routes.tier.tolist()


def test_a_batch_of_words_and_of_texts_for_a_tagger(tagger: Tagger) -> None:
    labels = CascadeLabels(str(tagger.bundle.folder), text_column="words", threads=1)
    words = [text.split() for text in texts(20)]
    assert labels(pa.table({"words": words}))["tags"].to_pylist() == tagger.predict(words).tags
    spans = labels(pa.table({"words": texts(20)}))["spans"].to_pylist()
    assert len(spans) == 20


def test_columns_that_are_missing_or_taken(clf: Classifier) -> None:
    labels = CascadeLabels(str(clf.bundle.folder), threads=1)
    with pytest.raises(DataError, match=r"a batch must have a column 'text', got a, b; give its name as text_column"):
        labels(pa.table({"a": ["x"], "b": ["y"]}))
    with pytest.raises(DataError, match=r"a batch must not have a column 'label', which answers get; rename"):
        labels(pa.table({"text": ["x"], "label": ["y"]}))


def test_pairs(clf: Classifier) -> None:
    labels = CascadeLabels(str(clf.bundle.folder), pair_column="other", threads=1)
    found = labels(pa.table({"text": ["good", "bad"], "other": ["film", "film"]}))
    assert found["label"].to_pylist() == clf.predict([("good", "film"), ("bad", "film")]).labels


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    given = texts(3000)
    return [write(tmp_path / "a.parquet", {"id": range(3000), "text": given}, 100)]


def test_a_job_on_tasks_is_that_of_one_process_though_workers_are_killed(
    clf: Classifier, inputs: list[Path], tmp_path: Path
) -> None:
    settings = Settings(keep=("id",), part_rows=150)
    predict_tables(clf, inputs, tmp_path / "alone", settings)
    ended, killed = threading.Event(), list[int]()

    def kill() -> None:
        while len(killed) < 2 and not ended.wait(0.005):
            for lease in (tmp_path / "shared").rglob("*.lease"):
                with suppress(OSError):  # it is gone
                    killed.append(int(lease.read_text(encoding="utf-8").split()[1]))
                    os.kill(killed[-1], signal.SIGKILL)
                    time.sleep(0.2)
                    break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        counts = predict_tables(clf, inputs, tmp_path / "shared", settings, workers=2, on_ray=True)
    finally:
        ended.set()
        killer.join()
    assert killed
    assert counts.rows == 3000
    assert seen(tmp_path / "shared") == seen(tmp_path / "alone")
    rows = pq.read_table(tmp_path / "shared")["id"].to_pylist()
    assert rows == list(range(3000))


def test_what_a_worker_raises(clf: Classifier, tmp_path: Path) -> None:
    bad = [write(tmp_path / "a.parquet", {"text": ["good", None]})]
    with pytest.raises(DataError, match=r"a.parquet, row 2: column 'text' must"):
        predict_tables(clf, bad, tmp_path / "out", workers=2, on_ray=True)
    with pytest.raises(BundleNotFoundError):
        CascadeLabels(str(tmp_path / "no bundle"), threads=1)
