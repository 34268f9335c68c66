"""What a user would pick instead of this engine: the same checkpoint, each in its usual form, and how to install it.

Each loader runs in a process of its own and imports what it needs there, so this module needs none of the libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.core.rows import FloatArray
from cascade.exceptions import installed
from cascade.pipelines.loading import load
from cascade_bench.systems.conversion import Padded, converted, in_batches
from cascade_bench.systems.local import CASCADE, FULL, TRANSFORMERS, answered, whole
from cascade_bench.systems.process import Answerer, Job, WorkerError
from cascade_bench.systems.worker import obey

EXTRA = 'pip install "cascade-encoder[bench]"'
PACKAGES = {"optimum.onnxruntime": "optimum-onnx", "openvino": "openvino", "nncf": "nncf"}


@dataclass(frozen=True)
class Baseline:
    """A way to run the checkpoint in a process of its own.

    Attributes:
        load: makes the model, inside its own process. `needs`: modules; `install`: how to install them.
        note: what readers have to know to judge its figures.
        own: one of this engine's: it batches and sorts by itself.
    """

    key: str
    name: str
    load: Callable[[Job], Answerer]
    needs: tuple[str, ...] = ()
    install: str = ""
    note: str = ""
    own: bool = False

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose versions tell what ran, beside those that `machine.facts` names."""
        return tuple(PACKAGES[name] for name in self.needs if name in PACKAGES)

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return [name for name in self.needs if not installed(name)]


def _engine(job: Job, *, full: bool) -> Answerer:
    loaded = load(job.model, threads=job.threads)
    model = whole(loaded) if full else loaded
    return lambda items, _batch_size: answered(model, items).labels


def _transformers(job: Job) -> Answerer:
    from cascade_bench.systems.transformers_pipeline import TransformersPipeline

    pipeline = TransformersPipeline.load(
        job.checkpoint, threads=job.threads, max_length=job.max_length, multi_label=job.multi_label, tagging=job.tagging
    )
    return lambda items, batch_size: pipeline.labels(items, batch_size=batch_size)


def _optimum(job: Job, *, file: str) -> Answerer:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTModelForTokenClassification, pipeline
    from transformers import AutoTokenizer

    from cascade_bench.systems.transformers_pipeline import TransformersPipeline

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    converted(job, file)
    kind = ORTModelForTokenClassification if job.tagging else ORTModelForSequenceClassification
    model = kind.from_pretrained(job.folder, file_name=file, provider="CPUExecutionProvider", session_options=options)
    tokenizer = AutoTokenizer.from_pretrained(job.checkpoint)
    tokenizer.model_max_length = job.max_length
    task = "token-classification" if job.tagging else "text-classification"
    pipe = pipeline(task, model=model, tokenizer=tokenizer)
    found = TransformersPipeline(pipe, job.max_length, job.multi_label, job.tagging)
    return lambda items, batch_size: found.labels(items, batch_size=batch_size)


def _onnxruntime(job: Job, *, file: str) -> Answerer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(converted(job, file), options, providers=["CPUExecutionProvider"])

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        logits: FloatArray = session.run(["logits"], dict(feeds))[0]
        return logits

    return in_batches(Padded.read(job), run, [value.name for value in session.get_inputs()])


def _openvino(job: Job, *, file: str, precision: str) -> Answerer:
    import openvino

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise WorkerError("this CPU has no bf16")
    options = {"INFERENCE_NUM_THREADS": job.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(converted(job, file), "CPU", options)

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        return np.array(compiled(dict(feeds))[0])

    return in_batches(Padded.read(job), run, [value.any_name for value in compiled.inputs])


_TORCH = ("torch", "transformers")
_GRAPH, _VINO = ("onnx", *_TORCH), ("openvino", "onnx", *_TORCH)
_OPTIMUM, _OPTIMUM_PIP = ("optimum.onnxruntime", "onnx", *_TORCH), 'pip install "optimum-onnx[onnxruntime]"'
_FP32_FILE, _INT8_FILE = "model.onnx", "model_quantized.onnx"

_ALL = (
    Baseline(FULL, "cascade, tier 2 at full depth", lambda job: _engine(job, full=True), own=True),
    Baseline(CASCADE, "cascade as configured", lambda job: _engine(job, full=False), own=True),
    Baseline(TRANSFORMERS, "transformers pipeline, fp32", _transformers, _TORCH, EXTRA),
    Baseline("optimum", "optimum pipeline, fp32", partial(_optimum, file=_FP32_FILE), _OPTIMUM, _OPTIMUM_PIP),
    Baseline("optimum-int8", "optimum pipeline, int8 dynamic", partial(_optimum, file=_INT8_FILE), _OPTIMUM,
             _OPTIMUM_PIP),
    Baseline("onnxruntime", "bare ONNX Runtime, fp32", partial(_onnxruntime, file=_FP32_FILE), _GRAPH, EXTRA),
    Baseline("onnxruntime-int8", "bare ONNX Runtime, int8 dynamic", partial(_onnxruntime, file=_INT8_FILE), _GRAPH,
             EXTRA),
    Baseline("openvino", "OpenVINO, fp32", partial(_openvino, file=_FP32_FILE, precision="f32"), _VINO,
             "pip install openvino"),
    Baseline("openvino-bf16", "OpenVINO, bf16", partial(_openvino, file=_FP32_FILE, precision="bf16"), _VINO,
             "pip install openvino"),
    Baseline("openvino-int8", "OpenVINO, int8 static (NNCF)", partial(_openvino, file="int8.xml", precision="f32"),
             ("nncf", *_VINO), "pip install openvino nncf",
             "ranges from (up to 300 of) these very texts, in its favour"),
)  # fmt: skip

BASELINES: Mapping[str, Baseline] = {one.key: one for one in _ALL}
"""By key; the first two are this engine's own."""


def main() -> None:
    """The far end of a baseline, as a process."""
    obey({key: partial(_loaded, one) for key, one in BASELINES.items()})


def _loaded(one: Baseline, fields: dict[str, Any]) -> Answerer:
    return one.load(Job(**fields))
