"""Jobs on a Ray cluster of two nodes of this machine: one that is lost, and one that lacks the bundle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascade import Classifier
from cascade.exceptions import BundleError
from cascade.jobs.running import predict_tables
from cascade.jobs.settings import Settings
from tests.jobs.making import seen, texts, write

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

from ray.cluster_utils import Cluster  # noqa: E402  # which only Ray brings

ROWS = 100_000  # enough for both nodes to have begun before one has done it all


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes with a CPU each."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_a_job_goes_on_without_a_node_that_is_lost(clf: Classifier, tmp_path: Path, cluster: Any) -> None:
    inputs = [write(tmp_path / "a.parquet", {"id": range(ROWS), "text": texts(ROWS)}, 1000)]
    settings = Settings(keep=("id",), part_rows=1000)
    predict_tables(clf, inputs, tmp_path / "alone", settings)
    lost, ended = threading.Event(), threading.Event()

    def lose() -> None:
        while not ended.wait(0.01):
            if len(list((tmp_path / "shared").rglob("*.lease"))) == 2:  # both nodes are at work
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                return lost.set()
        return None

    loser = threading.Thread(target=lose)
    loser.start()
    try:
        counts = predict_tables(clf, inputs, tmp_path / "shared", settings, workers=2, on_ray=True)
    finally:
        ended.set()
        loser.join()
    assert lost.is_set()
    assert counts.rows == ROWS
    assert seen(tmp_path / "shared") == seen(tmp_path / "alone")


def test_nodes_without_the_bundle(clf: Classifier, tmp_path: Path, cluster: Any) -> None:
    clf.save_pretrained(tmp_path / "bundle")
    own = Classifier.from_pretrained(tmp_path / "bundle", threads=1)
    (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    inputs = [write(tmp_path / "a.parquet", {"text": texts(10)})]
    with pytest.raises(
        BundleError, match=r"each node must have \S+bundle, with this version, but: .*there is no folder"
    ):
        predict_tables(own, inputs, tmp_path / "out", workers=2, on_ray=True)
