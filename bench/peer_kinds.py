"""What a user would pick instead of this engine: the same checkpoint, each in its usual form, and how to install it.

Each loader runs in a process of its own and imports what it needs there, so this module needs none of the libraries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.core.rows import FloatArray, IntArray
from cascade_bench.peer_process import Input, Job, Model, PeerError
from cascade_bench.peer_texts import Rows, in_batches

__all__ = ["CASCADE", "FULL", "KINDS", "PIPELINE", "Kind"]

FULL, CASCADE, PIPELINE = "full", "cascade", "transformers"
EXTRA = 'pip install "cascade-encoder[bench]"'


@dataclass(frozen=True)
class Kind:
    """A way to run the checkpoint.

    Attributes:
        key, name: for programs and for readers.
        load: makes the model, inside its own process.
        steps: `peer_files` that it needs, in order.
        needs: modules that must be installed.
        install: how.
        note: what a reader has to know to judge its figures.
        own: one of this engine's: it batches and sorts by itself.
    """

    key: str
    name: str
    load: Callable[[Job], Model]
    steps: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    install: str = ""
    note: str = ""
    own: bool = False

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose versions tell what ran, beside those that `machine.facts` names."""
        known = {"optimum.onnxruntime": "optimum-onnx", "openvino": "openvino", "nncf": "nncf"}
        known |= {"ctranslate2": "ctranslate2"}
        return tuple(known[name] for name in self.needs if name in known)

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return [name for name in self.needs if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is switched off
        return False


@dataclass(frozen=True)
class _Engine:
    """This engine, `Routed`. `answer`: labels or tags; `tiers`: which answered a text, or each word of a sentence."""

    answer: Callable[[Sequence[Input]], Sequence[Any]]
    tiers: Callable[[Input], IntArray]

    def __call__(self, texts: Sequence[Input], batch_size: int, /) -> Sequence[Any]:
        return self.answer(texts)

    def by_tier1(self, text: Input) -> bool:
        return bool((self.tiers(text) == 1).all())


def _engine(job: Job, *, whole: bool) -> Model:
    from cascade.pipelines.classifier import Classifier
    from cascade.pipelines.tagger import Tagger
    from cascade.policies.exits import never
    from cascade.policies.routing import defer_all

    if job.tagging:
        tagger = Tagger.from_pretrained(job.model, threads=job.threads)
        if whole:
            tagger = tagger.with_router(defer_all).with_exit_policy(never)
        return _Engine(
            lambda sentences: tagger.predict(sentences).tags,  # type: ignore[arg-type]  # all are lists
            lambda sentence: tagger.predict([sentence]).routes.words.tier,  # type: ignore[list-item]  # the same
        )
    classifier = Classifier.from_pretrained(job.model, threads=job.threads)
    if whole:
        classifier = classifier.with_router(defer_all).with_exit_policy(never)
    return _Engine(
        lambda texts: classifier.predict(texts).labels,
        lambda text: classifier.predict([text]).routes.tier,
    )


def _transformers(job: Job, *, compiled: bool = False) -> Model:
    from cascade_bench.peers import Peer, Pipeline
    from cascade_bench.tag_peers import TagPipeline

    pipeline: Pipeline | TagPipeline
    if job.tagging:
        pipeline = TagPipeline.load(job.checkpoint, threads=job.threads, max_length=job.max_length)
    else:
        pipeline = Pipeline.load(
            job.checkpoint, threads=job.threads, max_length=job.max_length, multi_label=job.multi_label
        )
    found: Peer = pipeline
    if compiled:
        pipeline.pipe.model.compile(dynamic=True)
        found.labels(job.texts()[:8], batch_size=4)  # it compiles now, or says why it cannot
    return lambda texts, batch_size: found.labels(texts, batch_size=batch_size)


def _optimum(job: Job, *, file: str) -> Model:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTModelForTokenClassification, pipeline
    from transformers import AutoTokenizer

    from cascade_bench.peers import Peer, Pipeline
    from cascade_bench.tag_peers import TagPipeline

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    kind = ORTModelForTokenClassification if job.tagging else ORTModelForSequenceClassification
    model = kind.from_pretrained(job.folder, file_name=file, provider="CPUExecutionProvider", session_options=options)
    tokenizer = AutoTokenizer.from_pretrained(job.checkpoint)
    tokenizer.model_max_length = job.max_length
    task = "token-classification" if job.tagging else "text-classification"
    pipe = pipeline(task, model=model, tokenizer=tokenizer)
    found: Peer = TagPipeline(pipe) if job.tagging else Pipeline(pipe, job.max_length, job.multi_label)
    return lambda texts, batch_size: found.labels(texts, batch_size=batch_size)


def _onnxruntime(job: Job, *, file: str) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(Path(job.folder) / file), options, providers=["CPUExecutionProvider"])

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        logits: FloatArray = session.run(["logits"], dict(feeds))[0]
        return logits

    return in_batches(Rows.read(job), run, [value.name for value in session.get_inputs()])


def _openvino(job: Job, *, file: str, precision: str) -> Model:
    import openvino

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise PeerError("this CPU has no bf16")
    options = {"INFERENCE_NUM_THREADS": job.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(str(Path(job.folder) / file), "CPU", options)

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        return np.array(compiled(dict(feeds))[0])

    return in_batches(Rows.read(job), run, [value.any_name for value in compiled.inputs])


def _ctranslate2(job: Job) -> Model:
    import ctranslate2

    folder = Path(job.folder)
    encoder = ctranslate2.Encoder(
        str(folder / "ctranslate2"), device="cpu", compute_type="int8", inter_threads=1, intra_threads=job.threads
    )
    with np.load(folder / "head.npz", allow_pickle=False) as stored:
        head = dict(stored)
    if str(head["activation"]) not in ACTIVATIONS:
        raise PeerError(f"its head must use one of {', '.join(ACTIVATIONS)}, was: {head['activation']}")
    activation = ACTIVATIONS[str(head["activation"])]
    rows = Rows.read(job)

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        lengths = feeds["attention_mask"].sum(axis=1)
        ids = [row[:count].tolist() for row, count in zip(feeds["input_ids"], lengths, strict=True)]
        types = [row[:count].tolist() for row, count in zip(feeds["token_type_ids"], lengths, strict=True)]
        hidden = np.array(
            encoder.forward_batch(
                ids, token_type_ids=types if np.any(feeds["token_type_ids"]) else None
            ).last_hidden_state
        )
        mask = feeds["attention_mask"][:, : hidden.shape[1], None].astype(np.float32)
        pooled = hidden[:, 0] if str(head["pooling"]) == "first" else (hidden * mask).sum(1) / mask.sum(1)
        logits: FloatArray = activation(pooled @ head["dense"].T + head["dense_bias"]) @ head["out"].T
        logits += head["out_bias"]
        return logits

    return in_batches(rows, run)


ACTIVATIONS: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "tanh": np.tanh,
    "relu": lambda values: np.maximum(values, 0),
}

_ONNX, _INT8 = ("plain", "onnx"), ("plain", "onnx", "onnx-int8")
_TORCH = ("torch", "transformers")
_OPTIMUM = ("optimum.onnxruntime", "onnx", *_TORCH)
_CALIBRATED = "ranges from (up to 300 of) these very texts, in its favour"


def _kinds() -> Sequence[Kind]:
    return (
        Kind(FULL, "cascade, tier 2 at full depth", lambda job: _engine(job, whole=True), own=True),
        Kind(CASCADE, "cascade as configured", lambda job: _engine(job, whole=False), own=True),
        Kind(PIPELINE, "transformers pipeline, fp32", _transformers, (), _TORCH, EXTRA),
        Kind("compile", "transformers pipeline, torch.compile", lambda job: _transformers(job, compiled=True), (),
             _TORCH, EXTRA, "dynamic shapes; compiling does not count"),
        Kind("optimum", "optimum pipeline, fp32", lambda job: _optimum(job, file="model.onnx"), _ONNX, _OPTIMUM,
             'pip install "optimum-onnx[onnxruntime]"'),
        Kind("optimum-int8", "optimum pipeline, int8 dynamic",
             lambda job: _optimum(job, file="model_quantized.onnx"), _INT8, _OPTIMUM,
             'pip install "optimum-onnx[onnxruntime]"'),
        Kind("onnxruntime", "bare ONNX Runtime, fp32", lambda job: _onnxruntime(job, file="model.onnx"), _ONNX,
             ("onnx", *_TORCH), EXTRA),
        Kind("onnxruntime-int8", "bare ONNX Runtime, int8 dynamic",
             lambda job: _onnxruntime(job, file="model_quantized.onnx"), _INT8, ("onnx", *_TORCH), EXTRA),
        Kind("openvino", "OpenVINO, fp32", lambda job: _openvino(job, file="model.onnx", precision="f32"), _ONNX,
             ("openvino", "onnx", *_TORCH), "pip install openvino"),
        Kind("openvino-bf16", "OpenVINO, bf16", lambda job: _openvino(job, file="model.onnx", precision="bf16"),
             _ONNX, ("openvino", "onnx", *_TORCH), "pip install openvino"),
        Kind("openvino-int8", "OpenVINO, int8 static (NNCF)",
             lambda job: _openvino(job, file="int8.xml", precision="f32"), (*_ONNX, "openvino-int8"),
             ("openvino", "nncf", "onnx", *_TORCH), "pip install openvino nncf", _CALIBRATED),
        Kind("ctranslate2", "CTranslate2, int8", _ctranslate2, ("plain", "ctranslate2"),
             ("ctranslate2", *_TORCH), "pip install ctranslate2",
             "runs the encoder only: pooling and head are NumPy's, in fp32"),
    )  # fmt: skip


KINDS: Mapping[str, Kind] = {kind.key: kind for kind in _kinds()}
