"""Where the time goes inside a graph: ONNX Runtime's own profiler, by operator, and the matrix products it saw."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime

from cascade.runtime.backend import Array, OnnxBackend
from cascade_bench.ceiling import Product, session_options

__all__ = ["Operators", "look"]

INT8 = {"MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul", "QGemm", "QLinearMatMul"}
FP32 = {"MatMul", "Gemm", "FusedMatMul", "FusedGemm"}
RUNS = 5


@dataclass(frozen=True)
class Operators:
    """What one run of a graph consists of.

    Attributes:
        seconds: by kind of operator, most first; medians over runs. The profiler's own cost is in them, so their shares
            say more than their sum.
        products: matrix products, and how many there are of each.
    """

    seconds: Mapping[str, float]
    products: Mapping[Product, int]


def look(backend: OnnxBackend, feeds: Mapping[str, Array], *, runs: int = RUNS) -> Operators:
    """Run a graph under the profiler, after a run that does not count.

    Args:
        backend: the file and its options are taken from it; its own session stays as it is.
        feeds: inputs by name; names that the graph does not have are left out.
        runs: how many count.
    """
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder:
        options = session_options(backend.options.threads or 1)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        session = onnxruntime.InferenceSession(
            str(backend.path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(backend.options.disabled_optimizers),
        )
        known = {name: feeds[name] for name in backend.inputs}
        for _ in range(runs + 1):
            session.run(None, known)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read(events)


def read(events: Sequence[Mapping[str, Any]]) -> Operators:
    """What the profiler's events say. The first run of each node does not count."""
    taken: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    shapes: dict[str, Product | None] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        name, facts = event["name"], event["args"]
        taken[name].append(event["dur"] / 1e6)
        kinds[name], shapes[name] = facts["op_name"], _product(facts)
    seconds: Counter[str] = Counter()
    for name, durations in taken.items():
        seconds[kinds[name]] += median(durations[1:] or durations)  # type: ignore[assignment]  # Counter adds floats too
    products = Counter(product for product in shapes.values() if product is not None)
    return Operators(dict(seconds.most_common()), products)


def _product(facts: Mapping[str, Any]) -> Product | None:
    """A node's matrix product; `None` if it is none. Weights that were packed beforehand are not among its inputs."""
    kind = facts["op_name"]
    if kind not in INT8 | FP32:
        return None
    first, *others = [next(iter(value.values())) for value in facts["input_type_shape"]]
    made = next(iter(facts["output_type_shape"][0].values()))
    if len(first) < 2 or len(made) < 2 or not math.prod(made):
        return None
    precision = "int8" if kind in INT8 else "fp32"
    if others and len(others[0]) > 2:  # two batches of matrices, as in attention
        return Product(precision, math.prod(made[:-2]), made[-2], first[-1], made[-1])
    return Product(precision, 1, math.prod(made[:-1]), first[-1], made[-1])
