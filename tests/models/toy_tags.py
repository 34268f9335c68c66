"""A toy bundle of a tagger: ONNX graphs with the interface of real ones and random weights, in milliseconds.

Tier 1 tags each piece by itself; a layer of tier 2 adds the mean state of the sentence, of halted pieces too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from onnx import TensorProto

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import Bundle
from cascade.runtime.backend import Array
from tests.models.toy import HEADS, SIZE, WIDTH, Values, _graph, _node, embed_graph, written
from tests.models.words import wordpiece

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LAYERS = (1, 2, 3)


def tag_bundle(
    folder: Path,
    *,
    labels: Sequence[str] = TAGS,
    tokenizer: tokenizers.Tokenizer | None = None,
    max_length: int = 24,
    router: Mapping[str, object] | None = None,
    exit_policy: Mapping[str, object] | None = None,
    windows: Mapping[str, object] | None = None,
    decoding: Mapping[str, object] | None = None,
) -> Bundle:
    """A bundle of tiny graphs with random weights."""
    inner = tokenizer or wordpiece()
    size = inner.get_vocab_size()
    rng = np.random.default_rng(5)

    def weight(*shape: int) -> Array:
        return (2 * rng.normal(size=shape)).astype(np.float32)

    whole = {name: (TensorProto.INT64, ["rows", "longest"]) for name in ("input_ids", "attention_mask")}
    tier1 = _graph(
        [
            _node("Gather", "table input_ids", "tokens"),
            _node("Cast", "attention_mask", "floats", to=TensorProto.FLOAT),
            _node("Unsqueeze", "floats last", "column"),
            _node("Mul", "tokens column", "alive"),
            _node("MatMul", "alive head", "logits"),
        ],
        whole,
        {"logits": (TensorProto.FLOAT, ["rows", "longest", len(labels)])},
        {"table": weight(size, WIDTH), "head": weight(WIDTH, len(labels))},
    )
    embed = embed_graph(weight(size, WIDTH), weight(max_length, WIDTH) / 20)
    return written(
        folder,
        {"onnx/model.onnx": tier1, "tier2/embed.onnx": embed, "tokenizer.json": inner.to_str().encode()},
        [_stage(weight, len(labels)) for _ in LAYERS],
        task=TAGGING,
        labels=labels,
        max_length=max_length,
        policies={
            "router": router,
            "exit_policy": exit_policy,
            "windows": windows or {"policy": "Windows"},
            "decoding": decoding or {"policy": "argmax"},
        },
    )


def _stage(weight: Callable[..., Array], labels: int) -> bytes:
    inputs: Values = {
        "hidden": (TensorProto.FLOAT, ["tokens", WIDTH]),
        "head_gather": (TensorProto.INT64, ["rows", HEADS, "longest"]),
        "bias": (TensorProto.FLOAT, ["rows", 1, 1, "longest"]),
        "active": (TensorProto.INT64, ["actives"]),
        "query_head_gather": (TensorProto.INT64, ["rows", HEADS, "longest_active"]),
        "head_scatter": (TensorProto.INT64, ["actives", HEADS]),
        "words": (TensorProto.INT64, ["words"]),
    }
    outputs: Values = {
        "hidden_out": (TensorProto.FLOAT, ["actives", WIDTH]),
        "logits": (TensorProto.FLOAT, ["words", labels]),
    }
    nodes = [
        _node("Softmax", "bias", "shares"),
        _node("Reshape", "hidden by_head", "heads"),
        _node("Gather", "heads head_gather", "everything"),
        _node("MatMul", "shares everything", "mean"),
        _node("Gather", "hidden active", "mine"),
        _node("Reshape", "mine by_head", "heads_of_mine"),
        _node("Gather", "heads_of_mine query_head_gather", "queries"),
        _node("Add", "queries mean", "seen"),
        _node("Reshape", "seen by_head", "rows"),
        _node("Gather", "rows head_scatter", "scattered"),
        _node("Reshape", "scattered flat", "packed"),
        _node("MatMul", "packed own", "linear"),
        _node("Tanh", "linear", "hidden_out"),
        _node("Gather", "hidden_out words", "firsts"),
        _node("MatMul", "firsts head", "logits"),
    ]
    shapes = {"by_head": np.array([-1, SIZE]), "flat": np.array([-1, WIDTH])}
    return _graph(nodes, inputs, outputs, {"own": weight(WIDTH, WIDTH), "head": weight(WIDTH, labels), **shapes})
