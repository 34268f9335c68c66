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
from cascade_bench.profile.peak import session_options

INT8 = {"MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul", "QGemm", "QLinearMatMul"}
FP32 = {"MatMul", "Gemm", "FusedMatMul", "FusedGemm"}
RUNS = 5


@dataclass(frozen=True)
class Operators:
    """What one run of a graph consists of: seconds by kind of operator, operations of matrix products by precision.

    Seconds are medians over runs and hold the profiler's own cost, so their shares say more than their sum.
    """

    seconds: Mapping[str, float]
    operations: Mapping[str, int]


def look(backend: OnnxBackend, feeds: Mapping[str, Array], *, runs: int = RUNS) -> Operators:
    """Run a graph under the profiler, after a run that does not count. The backend's own session stays as it is."""
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder:
        options = session_options(backend.threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        session = onnxruntime.InferenceSession(str(backend.path), options, providers=["CPUExecutionProvider"])
        known = {name: feeds[name] for name in backend.inputs}
        for _ in range(runs + 1):
            session.run(None, known)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read(events)


def read(events: Sequence[Mapping[str, Any]]) -> Operators:
    """What the profiler's events say. The first run of each node does not count."""
    taken: dict[str, list[float]] = defaultdict(list)
    nodes: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["name"]].append(event["dur"] / 1e6)
            nodes[event["name"]] = event["args"]
    seconds: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    for name, durations in taken.items():
        kind = nodes[name]["op_name"]
        seconds[kind] += median(durations[1:] or durations)  # type: ignore[assignment]  # Counter adds floats too
        if kind in INT8 | FP32:
            operations["int8" if kind in INT8 else "fp32"] += _operations(nodes[name])
    return Operators(dict(seconds.most_common()), {kind: count for kind, count in operations.items() if count})


def _operations(facts: Mapping[str, Any]) -> int:
    """Of one matrix product: two for each element that is made and each that is summed over."""
    first = next(iter(facts["input_type_shape"][0].values()))
    made = next(iter(facts["output_type_shape"][0].values()))
    return 2 * math.prod(made) * int(first[-1]) if len(first) > 1 and len(made) > 1 else 0
