"""Running exported graphs on encoded texts: to find ranges, to compare forms, to fit temperatures.

An answer belongs to a row in classification and to a word in tagging; `units` says which answers are whose.
Every row goes through every stage, and words leave only where the caller says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from cascade.core.rows import BoolArray, FloatArray, IntArray, Rows, Units, ranges
from cascade.engine.packing import Packing, padded
from cascade.policies.batching import TokenBudget, batches
from cascade_export.int8.inputs import Ranges
from cascade_export.int8.linears import linears
from cascade_export.packed.graphs import TierTwoGraphs

__all__ = ["ChainRanges", "Encoded", "Outputs", "at_words", "chain_logits", "chain_ranges", "padded_logits"]
__all__ += ["padded_ranges", "per_token", "run_chain", "session", "tokens", "units"]

AXES = "watched/axes"
Outputs: TypeAlias = dict[str, np.ndarray]
Encoded: TypeAlias = Rows | Units
"""Texts to classify, or sentences to tag."""
ChainRanges: TypeAlias = tuple[dict[str, Ranges], list[dict[str, Ranges]]]
"""What goes into the linear layers of a second tier, by name: of `embed`, and of each stage."""


def tokens(batch: Encoded) -> Rows:
    """The rows of token ids."""
    return batch.rows if isinstance(batch, Units) else batch


def units(batch: Encoded, rows: IntArray) -> IntArray:
    """Numbers of the answers of these rows, in their order: the rows themselves, or their words."""
    if isinstance(batch, Rows):
        return rows
    return ranges(batch.offsets[rows], batch.counts[rows])


def at_words(grid: FloatArray, words: Units) -> FloatArray:
    """What stands at the words' first pieces: `(rows, [exits,] longest, labels)` -> `(words, [exits,] labels)`."""
    rows = words.row_of
    columns = words.first_token - words.rows.offsets[rows]
    return grid[rows, :, columns] if grid.ndim == 4 else grid[rows, columns]


def per_token(words: Units, values: IntArray, *, others: int) -> IntArray:
    """A number per word as one per token: its pieces have it, special tokens have `others`. Shape `(tokens,)`."""
    found = np.full(words.rows.tokens, others, np.int64)
    found[ranges(words.first_token, words.n_tokens)] = np.repeat(values, words.n_tokens)
    return found


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on the CPU that leaves the cores alone between runs."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")  # no saturation on CPUs without VNNI
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def chain_logits(
    graphs: TierTwoGraphs, batch: Encoded, *, position_offset: int, exits: IntArray | None = None
) -> FloatArray:
    """Logits of all exits for all rows or words.

    Args:
        graphs: in any precision.
        batch: texts or sentences.
        position_offset: position id of a row's first token.
        exits: for a tagger, number of the exit, from 0, after which each word leaves and keeps its state; all of them
            stay to the end if not given. Shape `(words,)`.

    Returns:
        Shape `(rows or words, exits, labels)`; NaN where a word has left.
    """
    parts = [
        (answers, np.stack([stage["logits"] for stage in stages], axis=1))
        for answers, _, stages in run_chain(graphs, batch, position_offset=position_offset, exits=exits)
    ]
    return _in_order(parts)


def chain_ranges(graphs: TierTwoGraphs, batch: Encoded, *, position_offset: int) -> ChainRanges:
    """What the rows do to the inputs of all linear layers: of `embed`, and of each stage."""
    watched = TierTwoGraphs(embed=_watched(graphs.embed), stages=tuple(map(_watched, graphs.stages)))
    embed: dict[str, Ranges] = {}
    stages: list[dict[str, Ranges]] = [{} for _ in graphs.stages]
    for _, first, rest in run_chain(watched, batch, position_offset=position_offset):
        for found, outputs in zip((embed, *stages), (first, *rest), strict=True):
            _widen(found, outputs)
    return embed, stages


def padded_logits(model: onnx.ModelProto, batch: Encoded, *, max_length: int) -> FloatArray:
    """Logits of a padded graph (tier 1) for all rows or words. Shape `(rows or words, labels)`."""
    parts = []
    for rows, out in _run_padded(model, batch, max_length=max_length):
        logits = out["logits"]
        if isinstance(batch, Units):
            logits = at_words(logits, batch.select(rows))
        parts.append((units(batch, rows), logits))
    return _in_order(parts)


def padded_ranges(model: onnx.ModelProto, batch: Encoded, *, max_length: int) -> dict[str, Ranges]:
    """What the rows do to the inputs of all linear layers of a padded graph."""
    found: dict[str, Ranges] = {}
    for _, outputs in _run_padded(_watched(model), batch, max_length=max_length):
        _widen(found, outputs)
    return found


def run_chain(
    graphs: TierTwoGraphs, batch: Encoded, *, position_offset: int, exits: IntArray | None = None
) -> Iterator[tuple[IntArray, Outputs, list[Outputs]]]:
    """Batch by batch: the numbers of the answers, what `embed` gives, what each stage gives beside hidden states."""
    embed, stages = session(graphs.embed), [session(stage) for stage in graphs.stages]
    for rows in batches(TokenBudget(), tokens(batch).lengths):
        part, answers = batch.select(rows), units(batch, rows)
        ids = tokens(part)
        packing = Packing.of(ids.lengths, heads=graphs.heads)
        first = _run(
            embed,
            {
                "input_ids": ids.ids,
                "token_type_ids": ids.types,
                "position_ids": packing.position_ids(position_offset),
            },
        )
        hidden, rest = first["hidden"], []
        for number, stage in enumerate(stages):
            index: Outputs = {**packing.feeds}
            if isinstance(part, Units):
                inside = np.ones(len(part), np.bool_) if exits is None else exits[answers] >= number
                index |= _tag_index(part, packing, inside)
            outputs = _run(stage, {"hidden": hidden, **index})
            if isinstance(part, Units):
                hidden = hidden.copy()
                hidden[index["active"]] = outputs.pop("hidden_out")
                logits = np.full((len(part), outputs["logits"].shape[1]), np.nan, np.float32)
                logits[inside] = outputs["logits"]
                outputs["logits"] = logits
            else:
                hidden = outputs.pop("hidden_out")
            rest.append(outputs)
        yield answers, first, rest


def _tag_index(words: Units, packing: Packing, inside: BoolArray) -> Outputs:
    """What a tagger's stage needs beside what is of all tokens. `inside`: the words that are. Shape `(words,)`."""
    active = per_token(words, inside.astype(np.int64), others=1).astype(np.bool_)
    going = Packing.of(np.add.reduceat(active, packing.firsts, dtype=np.int64), heads=packing.heads)
    return {
        "active": np.flatnonzero(active),
        "query_head_gather": going.head_gather,
        "head_scatter": going.head_scatter,
        "words": (np.cumsum(active) - 1)[words.first_token[inside]],
    }


def _run_padded(model: onnx.ModelProto, batch: Encoded, *, max_length: int) -> Iterator[tuple[IntArray, Outputs]]:
    graph = session(model)
    for rows in batches(TokenBudget(), tokens(batch).lengths):
        ids, mask, types = padded(tokens(batch.select(rows)), max_length=max_length)
        yield rows, _run(graph, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})


def _run(graph: ort.InferenceSession, feeds: Outputs) -> Outputs:
    wanted = {value.name for value in graph.get_inputs()}
    names = [value.name for value in graph.get_outputs()]
    found = graph.run(names, {name: array for name, array in feeds.items() if name in wanted})
    return dict(zip(names, found, strict=True))


def _in_order(parts: Sequence[tuple[IntArray, FloatArray]]) -> FloatArray:
    rows = np.concatenate([rows for rows, _ in parts])
    values = np.concatenate([values for _, values in parts])
    return values[np.argsort(rows)]


def _watched(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that also gives the lowest and highest input of every channel, as `name/low` and `name/high`."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in sorted({linear.input for linear in linears(model)}):
        flat = f"{name}/flat"
        watched.graph.node.append(helper.make_node("Flatten", [name], [flat], flat, axis=-1))
        for operator, end in (("ReduceMin", "low"), ("ReduceMax", "high")):
            output = f"{name}/{end}"
            watched.graph.node.append(helper.make_node(operator, [flat, AXES], [output], output, keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["channels"]))
    watched.graph.initializer.append(numpy_helper.from_array(np.array([0]), AXES))
    return watched


def _widen(ranges: dict[str, Ranges], outputs: Outputs) -> None:
    for output in outputs:
        if output.endswith("/low"):
            name = output.removesuffix("/low")
            low, high = outputs[output], outputs[f"{name}/high"]
            old = ranges.get(name, Ranges(low, high))
            ranges[name] = Ranges(np.minimum(old.low, low), np.maximum(old.high, high))
