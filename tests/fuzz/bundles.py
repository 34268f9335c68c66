"""Broken JSON, ONNX graphs and bundles, drawn from a `random.Random`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from random import Random
from typing import Any

from tests.fuzz.texts import JUNK, ODD, mutated_bytes, text


def mutated_json(rng: Random, value: Any) -> Any:
    """A copy of a JSON value with a few places altered."""
    made = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        made = _altered(rng, made)
    return made


def _altered(rng: Random, value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or not rng.randrange(12):
        return _replaced(rng, value)
    key = rng.choice(keys)
    kind = rng.randrange(16)
    if kind == 0:
        del value[key]
    elif kind == 1:
        value[key] = value[rng.choice(keys)]
    elif kind == 2 and isinstance(value, list):
        value.append(value[key])
    elif kind == 2:
        value[text(rng)] = value[key]
    else:
        value[key] = _altered(rng, value[key])
    return value


def _replaced(rng: Random, value: Any) -> Any:
    if isinstance(value, str) and rng.randrange(2):
        return value + rng.choice(ODD)
    if isinstance(value, int | float) and rng.randrange(2):
        return rng.choice((-value, value + 1, value - 1, value * 1000, str(value), value / 3))
    made = rng.choice(JUNK)
    return json.loads(json.dumps(made)) if isinstance(made, list | dict) else made


def mutated_text(rng: Random, value: Any) -> str:
    """JSON that is altered as a value, and at times as text: long numbers, deep nesting, bytes."""
    written = json.dumps(mutated_json(rng, value), ensure_ascii=bool(rng.randrange(4)))
    kind = rng.randrange(12)
    if kind == 0:
        return mutated_bytes(rng, written.encode("utf-8", "replace")).decode("utf-8", "replace")
    if kind == 1:
        return written.replace("1", rng.choice(("9" * 5000, "1e999", "-1", "01", "0x1")), rng.randrange(3))
    if kind == 2:
        depth = rng.choice((70, 5_000, 200_000))
        return written.replace("{", '{"a": ' + "[" * depth + "]" * depth + ", ", 1)
    return written


def mutated_graph(rng: Random, contents: bytes) -> bytes:
    """An ONNX graph of which bytes or a few parts were altered."""
    import onnx

    if not rng.randrange(4):
        return mutated_bytes(rng, contents)
    try:
        model = onnx.load_from_string(contents)
    except Exception:  # noqa: BLE001  # protobuf's own, of one whose bytes were altered before
        return mutated_bytes(rng, contents)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice((_alter_node, _alter_node, _alter_tensor, _alter_interface, _alter_head))(rng, model)
    made: bytes = model.SerializeToString()
    return made


def _alter_node(rng: Random, model: Any) -> None:
    nodes = model.graph.node
    if not nodes:
        return
    node = nodes[rng.randrange(len(nodes))]
    kind = rng.randrange(6)
    names = [name for other in nodes for name in (*other.input, *other.output)]
    if kind == 0:
        nodes.remove(node)
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice((*names, "", "nothing"))
    elif kind == 2 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice((*names, "", "nothing"))
    elif kind == 3:
        node.op_type = rng.choice(
            ("Relu", "MatMul", "Gather", "Cast", "Tile", "Expand", "Loop", "Softmax", "Nope", "Add")
        )
    elif kind == 4 and node.attribute:
        attribute = node.attribute[rng.randrange(len(node.attribute))]
        attribute.i = rng.choice((-1, 0, 1, 7, 2**40))
    else:
        node.domain = rng.choice(("", "com.microsoft", "nowhere"))


def _alter_tensor(rng: Random, model: Any) -> None:
    if not model.graph.initializer:
        return
    tensor = model.graph.initializer[rng.randrange(len(model.graph.initializer))]
    kind = rng.randrange(5)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, 1, -1, 3, 2**20, 2**40))
    elif kind == 1:
        tensor.data_type = rng.randrange(24)
    elif kind == 2:
        tensor.raw_data = mutated_bytes(rng, tensor.raw_data)
    elif kind == 3:
        tensor.data_location = 1
        tensor.external_data.add(
            key="location", value=rng.choice(("w.bin", "../../w.bin", "/etc/passwd", "tokenizer.json"))
        )
    else:
        model.graph.initializer.remove(tensor)


def _alter_interface(rng: Random, model: Any) -> None:
    values = rng.choice((model.graph.input, model.graph.output))
    if not values:
        return
    value = values[rng.randrange(len(values))]
    dims = value.type.tensor_type.shape.dim
    kind = rng.randrange(5)
    if kind == 0:
        values.remove(value)
    elif kind == 1:
        value.name = rng.choice(("input_ids", "hidden", "logits", "nothing", ""))
    elif kind == 2:
        value.type.tensor_type.elem_type = rng.randrange(18)
    elif kind == 3 and dims:
        dims[rng.randrange(len(dims))].dim_value = rng.choice((1, 2, 7, 2**40))
    elif dims:
        del dims[0]


def _alter_head(rng: Random, model: Any) -> None:
    kind = rng.randrange(3)
    if kind == 0 and model.opset_import:
        model.opset_import[0].version = rng.choice((0, 1, 9, 99, -1))
    elif kind == 1:
        model.ir_version = rng.choice((0, 1, 99))
    else:
        model.graph.name = rng.choice(ODD).encode("utf-8", "replace").decode()


def broken_bundle(rng: Random, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """A bundle's files with some altered, and the hashes made right again: nothing is refused for these alone."""
    made = dict(files)
    for _ in range(rng.choice((1, 1, 2))):
        path = rng.choice([path for path in made if path != "cascade.json"] or ["tokenizer.json"])
        kind = rng.randrange(12)
        if kind == 0:
            made.pop(path, None)
        elif kind == 1:
            made[path] = rng.choice((b"", b"{}", b"null", *made.values()))
        elif kind < 5:
            continue  # then the manifest alone
        elif path.endswith(".onnx") and path in made:
            made[path] = mutated_graph(rng, made[path])
        elif path.endswith(".json") and path in made:
            made[path] = _mutated_file(rng, made[path])
    manifest = json.loads(files["cascade.json"])
    for path, record in manifest["files"].items():
        if path in made:
            record |= {"sha256": hashlib.sha256(made[path]).hexdigest(), "bytes": len(made[path])}
    made["cascade.json"] = json.dumps(manifest).encode()
    if made == {**files, "cascade.json": made["cascade.json"]} or not rng.randrange(4):
        made["cascade.json"] = _mutated_file(rng, made["cascade.json"])
    return made


def _mutated_file(rng: Random, content: bytes) -> bytes:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):  # one that was altered before, deep as it may be
        return mutated_bytes(rng, content)
    return mutated_text(rng, value).encode("utf-8", "surrogatepass")
