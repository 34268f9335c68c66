"""Ray: labels as a step of a Dataset, `dataset.map_batches(CascadeLabels, ...)`, and jobs whose workers are tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from cascade.core.tables import predictions_table, tags_table
from cascade.exceptions import BundleError, CascadeError, DataError, need
from cascade.jobs.answers import AnyPipeline
from cascade.jobs.job import Job
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger

need("cascade.jobs.ray", "ray", "ray")

import ray  # noqa: E402
from ray.exceptions import RayError, RayTaskError  # noqa: E402

BATCH_SIZE = 4096
"""Rows of a batch for `map_batches`: rows of a batch are sorted by length and share batches of the model."""


class CascadeLabels:
    """A callable class for `Dataset.map_batches`: tables in, the same rows with columns of answers out.

    A bundle is loaded once by each actor, and runs on as many threads as Ray reserves for it. The batch's columns and
    its rows stay, in order. Blocks of a dataset come back in any order unless
    `ray.data.DataContext.get_current().execution_options.preserve_order = True`.

    Example:
        dataset.map_batches(
            CascadeLabels, fn_constructor_kwargs={"model": "models/sentiment"}, batch_format="pyarrow",
            batch_size=BATCH_SIZE, num_cpus=2, compute=ray.data.ActorPoolStrategy(min_size=1, max_size=8))

    Args:
        model: a bundle, which each node has at that path, or a Hub id.
        text_column: of texts; for a tagger lists of words where they are lists.
        pair_column: of the second texts.
        routes: also the column `route`.
        threads: per actor; as many as Ray reserves (`num_cpus`) if left out.
        revision: branch, tag or commit on the Hub.
    """

    def __init__(
        self,
        model: str,
        *,
        text_column: str = "text",
        pair_column: str | None = None,
        routes: bool = False,
        threads: int | None = None,
        revision: str | None = None,
    ) -> None:
        if threads is None:
            threads = max(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)), 1)
        self._pipeline = load(model, threads=threads, revision=revision)
        self._columns = [text_column] if pair_column is None else [text_column, pair_column]
        self._routes = routes

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with its answers.

        A column that is missing, or a name that is taken already, is a `DataError`; a text that cannot be read an
        `InputError`.
        """
        missing = [name for name in self._columns if name not in batch.column_names]
        if missing:
            raise DataError(
                f"a batch must have a column {missing[0]!r}, got {', '.join(batch.column_names) or 'none'}; "
                "give its name as text_column or pair_column"
            )
        texts, *pairs = (batch[name].to_pylist() for name in self._columns)
        items: list[Any] = list(zip(texts, *pairs, strict=True)) if pairs else texts
        pipeline = self._pipeline
        if isinstance(pipeline, Tagger):
            words = bool(items) and isinstance(items[0], list)
            found = tags_table((pipeline.predict if words else pipeline.predict_texts)(items), routes=self._routes)
        else:
            found = predictions_table(pipeline.predict(items), routes=self._routes)
        for name in found.column_names:
            if name in batch.column_names:
                raise DataError(f"a batch must not have a column {name!r}, which answers get; rename or drop it first")
            batch = batch.append_column(name, found[name])
        return batch


def work_on_ray(work: Callable[[Job, AnyPipeline], None], job: Job, pipeline: AnyPipeline, workers: int) -> None:
    """Let tasks on the cluster of `RAY_ADDRESS`, or of this machine, work on the parts, on the pipeline's threads each.

    Each node must have the inputs, the output's folder and the bundle at the same paths. What a node that is lost was
    doing, Ray gives to another, which goes on from what was answered. What a worker raises ends all; a node that lacks
    the bundle, or another thing that the pipeline is made of, is a `BundleError`.
    """
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="ERROR")
    task = ray.remote(num_cpus=pipeline.threads, max_retries=-1)(work)
    waiting = [task.remote(job, pipeline) for _ in range(workers)]
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            ray.get(done)
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, CascadeError | OSError):
            raise cause from None
        if not isinstance(cause, RayError):
            raise
        told = " ".join(str(cause).partition("\ntraceback:")[0].split())[-300:]
        raise BundleError(f"each node must have {pipeline.bundle.folder}, with this version, but: {told}") from None
    finally:
        for one in waiting:
            ray.cancel(one, force=True)
