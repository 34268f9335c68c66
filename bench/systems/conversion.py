"""A checkpoint in the formats that baselines read, and texts as the padded rows that a bare graph reads.

Files are made once per comparison, when one is asked for, each in a process that ends afterwards:

   plain.json            labels and padding; beside it tokenizer.json
   model.onnx            fp32, padded, opset 17
   model_quantized.onnx  ONNX Runtime's dynamic quantisation, a scale per channel of the weights
   int8.xml              static, NNCF's recipe for transformers, ranges from the texts themselves
They need the `bench` extra, and the last one the baseline's own packages. A word has the tag of its first piece; one
that the tokenizer drops, or beyond the length read, the first label.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tokenizers

from cascade_bench.systems.process import Answerer, Item, Job

OPSET = 17
CALIBRATION = 300  # texts from which NNCF takes ranges

Graph: TypeAlias = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]
"""Padded rows by name to logits."""


@dataclass(frozen=True, eq=False)
class Padded:
    """Items to padded rows, logits to answers. `multi_label`: the labels are independent yes/no decisions."""

    tokenizer: tokenizers.Tokenizer
    labels: Sequence[str]
    multi_label: bool = False
    tagging: bool = False

    @staticmethod
    def read(job: Job) -> Padded:
        """As `plain` wrote it."""
        folder = Path(job.folder)
        facts = json.loads((folder / "plain.json").read_text(encoding="utf-8"))
        inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        inner.enable_truncation(job.max_length)
        inner.enable_padding(pad_id=facts["pad_id"], pad_token=facts["pad_token"])
        return Padded(inner, facts["labels"], job.multi_label, job.tagging)

    def encoded(self, items: Sequence[Item]) -> list[tokenizers.Encoding]:
        """The tokenizer's own rows."""
        return list(self.tokenizer.encode_batch(list(items), is_pretokenized=self.tagging))

    @staticmethod
    def feeds(made: Sequence[tokenizers.Encoding]) -> dict[str, npt.NDArray[np.int64]]:
        """Ids, mask and types of shape `(rows, longest)`."""
        names = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return {name: np.array([getattr(row, own) for row in made], np.int64) for name, own in names.items()}

    def answers(
        self, logits: npt.NDArray[np.float32], made: Sequence[tokenizers.Encoding], items: Sequence[Item]
    ) -> list[Any]:
        """Labels from logits of shape `(rows, labels)`; tags from those of shape `(rows, longest, labels)`."""
        if self.multi_label:
            return [tuple(name for name, value in zip(self.labels, row, strict=True) if value >= 0) for row in logits]
        best = logits.argmax(axis=-1).tolist()
        if not self.tagging:
            return [self.labels[number] for number in best]
        tags = []
        for numbers, row, words in zip(best, made, items, strict=True):
            own = [self.labels[0]] * len(words)
            before = None
            for place, word in enumerate(row.word_ids):
                if word is not None and word != before:
                    own[word] = self.labels[numbers[place]]
                before = word
            tags.append(own)
        return tags


def in_batches(padded: Padded, run: Graph, names: Sequence[str] | None = None) -> Answerer:
    """A graph as a system. `names`: of its inputs; all that `Padded.feeds` gives if left out."""

    def model(items: Sequence[Item], batch_size: int) -> list[Any]:
        answers: list[Any] = []
        for begin in range(0, len(items), batch_size):
            some = items[begin : begin + batch_size]
            made = padded.encoded(some)
            feeds = padded.feeds(made)
            answers += padded.answers(run({name: feeds[name] for name in names or feeds}), made, some)
        return answers

    return model


def _plain(job: Job) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from cascade_bench.systems.transformers_pipeline import loading

    folder = Path(job.folder)
    with loading(job.checkpoint, threads=job.threads):
        config = AutoConfig.from_pretrained(job.checkpoint)
        tokenizer = AutoTokenizer.from_pretrained(job.checkpoint, use_fast=True)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    config.save_pretrained(folder)
    names = [config.id2label[number] for number in range(config.num_labels)]
    facts = {"labels": names, "pad_id": tokenizer.pad_token_id, "pad_token": tokenizer.pad_token}
    facts["types"] = "token_type_ids" in tokenizer.model_input_names
    (folder / "plain.json").write_text(json.dumps(facts), encoding="utf-8")


def _onnx(job: Job) -> None:
    import torch

    from cascade_bench.systems.transformers_pipeline import last_exit, loading

    with loading(job.checkpoint, threads=job.threads):
        model = last_exit(job.checkpoint, tagging=job.tagging)
    types = json.loads((Path(job.folder) / "plain.json").read_text(encoding="utf-8"))["types"]
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    grid = {name: {0: "rows", 1: "longest"} for name in names}

    ids, mask = torch.tensor([[5, 6, 7], [6, 5, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter announces that it is the older one
        torch.onnx.export(
            model,
            (dict(zip(names, (ids, mask, torch.zeros_like(ids)), strict=False)),),
            str(Path(job.folder) / "model.onnx"),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**grid, "logits": grid["input_ids"] if job.tagging else {0: "rows"}},
        )


def _onnx_int8(job: Job) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folder = Path(job.folder)
    inferred = folder / "model_inferred.onnx"
    quant_pre_process(str(folder / "model.onnx"), str(inferred), skip_symbolic_shape=True)
    quantize_dynamic(str(inferred), str(folder / "model_quantized.onnx"), per_channel=True, weight_type=QuantType.QInt8)
    inferred.unlink()


def _openvino_int8(job: Job) -> None:
    import nncf
    import openvino

    folder = Path(job.folder)
    model = openvino.Core().read_model(str(folder / "model.onnx"))
    rows = Padded.read(job)
    names = [value.any_name for value in model.inputs]
    texts = job.items()[:CALIBRATION]
    samples = [{name: rows.feeds(rows.encoded([text]))[name] for name in names} for text in texts]
    made = nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
    openvino.save_model(made, str(folder / "int8.xml"), compress_to_fp16=False)


MAKERS: Mapping[str, Callable[[Job], None]] = {
    "plain.json": _plain,
    "model.onnx": _onnx,
    "model_quantized.onnx": _onnx_int8,
    "int8.xml": _openvino_int8,
}
"""What makes files, by their names; the first two are read by the others."""


def converted(job: Job, name: str) -> str:
    """The path of a file, made unless it is there."""
    for own in dict.fromkeys((*list(MAKERS)[:2], name)):
        if not Path(job.folder, own).exists():
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:  # it ends, with the memory that this took
                alone.submit(MAKERS[own], job).result()
    return str(Path(job.folder, name))
