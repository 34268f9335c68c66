"""A checkpoint in the formats that baselines read: made once per comparison, each in a process that ends afterwards.

   plain         plain.json: labels and padding; tokenizer.json
   onnx          model.onnx: fp32, padded, opset 17
   onnx-int8     model_quantized.onnx: ONNX Runtime's dynamic quantisation, a scale per channel of the weights
   openvino-int8 int8.xml: static, NNCF's recipe for transformers, ranges from the texts themselves
Needs the `bench` extra, and the last one the baseline's own packages.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from cascade_bench.systems.padded import Padded
from cascade_bench.systems.process import Job

OPSET = 17
CALIBRATION = 300  # texts from which NNCF takes ranges


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

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(**dict(zip(names, inputs, strict=True))).logits
            return logits

    ids, mask = torch.tensor([[5, 6, 7], [6, 5, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter announces that it is the older one
        torch.onnx.export(
            Plain().eval(),
            (ids, mask, torch.zeros_like(ids))[: len(names)],
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


STEPS: Mapping[str, Callable[[Job], None]] = {
    "plain": _plain,
    "onnx": _onnx,
    "onnx-int8": _onnx_int8,
    "openvino-int8": _openvino_int8,
}
"""What makes files, by name; later ones read what earlier ones made."""
