"""A toy model in numpy, and a toy bundle of ONNX graphs: no torch, milliseconds.

Each answer depends on all tokens of its row, their types and positions, and on nothing else. Sums run in float64, so
that the order in which rows are multiplied does not show in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import Bundle
from cascade.bundle.tiers import MultiExitSpec, SingleExitSpec, StageSpec
from cascade.bundle.writing import write_bundle
from cascade.core.rows import Rows, Units
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.policies.settings import Policies
from cascade.runtime.backend import Array, FunctionBackend
from cascade.runtime.executor import Executor

WIDTH, HEADS, VOCABULARY = 6, 2, 40
SIZE = WIDTH // HEADS
STAGE_INPUTS = ("hidden", "head_gather", "bias", "head_scatter", "gather", "weights", "counts")
LAYERS = (2, 4, 5, 6)
SENTENCES = ("good bad film plot dull bright", "not very a the is was it we cry laugh")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *SENTENCES[0].split(), *SENTENCES[1].split())


@dataclass
class Toy:
    """Tiers of numpy, and what they were asked."""

    per_unit: ClassVar[bool] = False
    stage_inputs: ClassVar[Sequence[str]] = STAGE_INPUTS

    labels: int = 3
    exits: int = 4
    seed: int = 0
    calls: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.table = rng.normal(size=(VOCABULARY, WIDTH))
        self.types = rng.normal(size=(2, WIDTH))
        self.own = rng.normal(size=(self.exits, WIDTH, WIDTH))
        self.others = rng.normal(size=(self.exits, WIDTH, WIDTH))
        self.heads = 3 * rng.normal(size=(self.exits + 1, WIDTH, self.labels))

    def embed(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        position = 0.1 * np.cos(feeds["position_ids"])[:, None]
        hidden = self.table[feeds["input_ids"]] + self.types[feeds["token_type_ids"]] + position
        return {"hidden": hidden.round(5).astype(np.float32)}

    def stage(self, index: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.calls += 1
        self.tokens += len(feeds["hidden"])
        hidden, alive = feeds["hidden"].astype(np.float64), np.exp(feeds["bias"].astype(np.float64))
        # Attention in which all tokens of a row weigh the same: every head of every token gets its mean.
        heads = hidden.reshape(-1, SIZE)[feeds["head_gather"]]
        mean = (alive @ heads / alive.sum(axis=-1, keepdims=True)).round(9)
        seen = np.broadcast_to(mean, heads.shape).reshape(-1, SIZE)[feeds["head_scatter"]].reshape(-1, WIDTH)
        new = np.tanh((hidden @ self.own[index] + seen @ self.others[index]).round(6))
        pooled = (feeds["weights"].astype(np.float64) @ new[feeds["gather"]]).squeeze(1) / feeds["counts"]
        return {
            "hidden_out": new.astype(np.float32),
            "logits": (pooled @ self.heads[index]).round(5).astype(np.float32),
        }

    def padded(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        mask = feeds["attention_mask"][..., None]
        hidden = self.table[feeds["input_ids"]] + self.types[feeds["token_type_ids"]]
        mean = (hidden * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
        return {"logits": (mean @ self.heads[-1]).round(5).astype(np.float32)}

    def tier1(self, **options: object) -> SingleExit:
        backend = FunctionBackend(self.padded, ("input_ids", "attention_mask", "token_type_ids"), ("logits",))
        defaults = {"backend": backend, "labels": self.labels, "max_length": 64, "per_unit": self.per_unit}
        return SingleExit(**{**defaults, **of_threads(options)})  # type: ignore[arg-type]  # a test's own options

    def tier2(self, **options: object) -> MultiExit:
        def stage(index: int) -> FunctionBackend:
            function, inputs = (lambda feeds: self.stage(index, feeds)), tuple(self.stage_inputs)
            return FunctionBackend(function, inputs, ("hidden_out", "logits"))

        defaults = {
            "embed": FunctionBackend(self.embed, ("input_ids", "token_type_ids", "position_ids"), ("hidden",)),
            "stages": [stage(index) for index in range(self.exits)],
            "layers": LAYERS[: self.exits],
            "labels": self.labels,
            "heads": HEADS,
            "max_length": 64,
        }
        return MultiExit(**{**defaults, **of_threads(options)})  # type: ignore[arg-type]  # a test's own options


def of_threads(options: Mapping[str, object]) -> dict[str, object]:
    """Options of a tier, `threads` being those of an executor of its own."""
    found = dict(options)
    return found | {"executor": Executor(int(str(found.pop("threads"))))} if "threads" in found else found


def batch_of(lengths: Sequence[int], seed: int = 0) -> Units:
    """Random rows of these lengths, each one unit."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(np.asarray(lengths, dtype=np.int64)))).astype(np.int64)
    tokens = int(offsets[-1])
    return Units.whole(Rows(rng.integers(0, VOCABULARY, tokens), rng.integers(0, 2, tokens), offsets))


def random_texts(count: int, seed: int = 0, *, shortest: int = 1, longest: int = 8) -> list[str]:
    """Words that the toy knows, from `shortest` to below `longest` of them in a text."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[4:], rng.integers(shortest, longest))) for _ in range(count)]


def toy_tokenizer() -> Tokenizer:
    """Words to ids, `[CLS]` first, `[SEP]` last."""
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return inner


def toy_bundle(
    folder: Path,
    *,
    labels: Sequence[str] = ("negative", "neutral", "positive"),
    multi_label: bool = False,
    max_length: int = 16,
    router: Mapping[str, object] | None = None,
    exit_policy: Mapping[str, object] | None = None,
) -> Bundle:
    """A bundle of tiny graphs with random weights."""
    rng = np.random.default_rng(5)

    def weight(*shape: int) -> Array:
        return (2 * rng.normal(size=shape)).astype(np.float32)

    ids = {"input_ids": (TensorProto.INT64, ["rows", "longest"])}
    mask = {"attention_mask": (TensorProto.INT64, ["rows", "longest"])}
    logits = {"logits": (TensorProto.FLOAT, ["rows", len(labels)])}
    hidden = (TensorProto.FLOAT, ["tokens", WIDTH])
    read: Values = {
        "head_gather": (TensorProto.INT64, ["rows", HEADS, "longest"]),
        "bias": (TensorProto.FLOAT, ["rows", 1, 1, "longest"]),
        "head_scatter": (TensorProto.INT64, ["tokens", HEADS]),
        "gather": (TensorProto.INT64, ["rows", "longest"]),
        "weights": (TensorProto.FLOAT, ["rows", 1, "longest"]),
        "counts": (TensorProto.FLOAT, ["rows", 1]),
    }
    tier1 = _graph(
        [_node("Gather", "table input_ids", "tokens"), *_mean_of_tokens()],
        ids | mask,
        logits,
        {"table": weight(len(WORDS), WIDTH), "head": weight(WIDTH, len(labels))},
    )
    embed = embed_graph(weight(len(WORDS), WIDTH), weight(max_length, WIDTH) / 20)
    stages = [
        _graph(
            [
                _node("MatMul", "hidden own", "linear"),
                _node("Tanh", "linear", "hidden_out"),
                _node("Gather", "hidden gather", "tokens"),
                _node("MatMul", "weights tokens", "sums"),
                _node("Squeeze", "sums middle", "sum"),
                _node("Div", "sum counts", "mean"),
                _node("MatMul", "mean head", "logits"),
            ],
            {"hidden": hidden, **read},
            {"hidden_out": hidden, **logits},
            {"own": weight(WIDTH, WIDTH), "head": weight(WIDTH, len(labels))},
        )
        for _ in range(3)
    ]
    return written(
        folder,
        {"onnx/model.onnx": tier1, "tier2/embed.onnx": embed, "tokenizer.json": toy_tokenizer().to_str().encode()},
        stages,
        task="text-classification",
        labels=labels,
        multi_label=multi_label,
        max_length=max_length,
        policies={"router": router, "exit_policy": exit_policy},
    )


def embed_graph(table: Array, places: Array) -> bytes:
    """The first graph of a tier with exits: what ids and positions look up."""
    return _graph(
        [
            _node("Gather", "table input_ids", "words"),
            _node("Gather", "places position_ids", "positions"),
            _node("Add", "words positions", "hidden"),
        ],
        {"input_ids": (TensorProto.INT64, ["tokens"]), "position_ids": (TensorProto.INT64, ["tokens"])},
        {"hidden": (TensorProto.FLOAT, ["tokens", WIDTH])},
        {"table": table, "places": places},
    )


def written(
    folder: Path,
    files: Mapping[str, bytes],
    stages: Sequence[bytes],
    *,
    task: str,
    labels: Sequence[str],
    max_length: int,
    policies: Mapping[str, Mapping[str, object] | None],
    multi_label: bool = False,
) -> Bundle:
    """A bundle of two tiers, with a stage per layer; routers and exits of which nothing is said have a threshold."""
    paths = [f"tier2/stage_{number:02}.onnx" for number in range(len(stages))]
    tiers = (
        SingleExitSpec("onnx/model.onnx", max_length, model="static"),
        MultiExitSpec(
            embed="tier2/embed.onnx",
            stages=tuple(StageSpec(file=file, layer=layer) for layer, file in enumerate(paths, start=1)),
            width=WIDTH,
            heads=HEADS,
            max_length=max_length,
        ),
    )
    settings: dict[str, object] = {
        "routers": [policies.get("router") or {"policy": "Threshold", "threshold": 0.9}],
        "exits": [
            {"policy": "never"},
            policies.get("exit_policy") or {"policy": "MaxProbability", "threshold": 0.9},
        ],
        "blend": [0.0],
        "temperatures": [[1.0], [1.0] * len(stages)],
    }
    more = {name: policies[name] for name in ("windows", "decoding") if policies.get(name)}
    manifest = Manifest(
        task=task,
        problem_type=("multi" if multi_label else "single") + "_label_classification",
        labels=tuple(labels),
        tiers=tiers,
        policies=Policies.from_json(settings | more),
        library_version="0",
    )
    return write_bundle(folder, {**files, **dict(zip(paths, stages, strict=True))}, manifest)


Values = Mapping[str, tuple[Any, Sequence[Any]]]  # types of elements and shapes, untyped in onnx


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def _mean_of_tokens() -> list[onnx.NodeProto]:
    return [
        _node("Cast", "attention_mask", "floats", to=TensorProto.FLOAT),
        _node("Unsqueeze", "floats last", "column"),
        _node("Mul", "tokens column", "alive"),
        _node("ReduceSum", "alive middle", "sum", keepdims=0),
        _node("ReduceSum", "column middle", "count", keepdims=0),
        _node("Div", "sum count", "mean"),
        _node("MatMul", "mean head", "logits"),
    ]


def _graph(nodes: Sequence[onnx.NodeProto], inputs: Values, outputs: Values, weights: Mapping[str, Array]) -> bytes:
    constants = {**weights, "last": np.array([2]), "middle": np.array([1])}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        list(nodes),
        "toy",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    serialized: bytes = model.SerializeToString()
    return serialized
