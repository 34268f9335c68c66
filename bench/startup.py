"""What a first call costs: importing, answering from a cold process, memory after a hundred texts.

Each sample is a process of its own. "Cold" means a new process; files may be in the system's cache. It leaves to
others: everything that a warm process does (`table`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from cascade.cli.demo.texts import sentences
from cascade.core.checks import check_whole
from cascade.exceptions import BundleError

__all__ = ["Startup", "startup"]

TEXTS = 100

IMPORT = """
import time
begin = time.perf_counter()
import cascade
middle = time.perf_counter()
import {module}
print(middle - begin, time.perf_counter() - begin)
"""

ANSWER = """
import json, sys
from {module} import {face}
model, threads, texts = json.load(sys.stdin)
print(len({face}.from_pretrained(model, threads=threads).{predict}(texts)))
"""

MEMORY = """
import json, sys
from {module} import {face}
model, threads, texts = json.load(sys.stdin)
{face}.from_pretrained(model, threads=threads).{predict}(texts)
try:
    lines = open("/proc/self/status").read().splitlines()
    found = dict(line.split()[:2] for line in lines if line.startswith(("VmRSS", "VmHWM")))
    print(int(found["VmRSS:"]) / 1024, int(found["VmHWM:"]) / 1024)
except OSError:
    import psutil
    held = psutil.Process().memory_info().rss / 2**20
    print(held, held)
"""


@dataclass(frozen=True)
class Startup:
    """Samples, one per process.

    Attributes:
        import_seconds: of `import cascade`, inside the process.
        classifier_seconds: of that and everything that a `Classifier` (or `Tagger`) needs, whether or not the first
            brings it.
        answer_seconds: from starting a process to its end, having answered one text.
        resident_mib: memory held after answering 100 texts.
        peak_mib: the most it held until then.
    """

    import_seconds: tuple[float, ...]
    classifier_seconds: tuple[float, ...]
    answer_seconds: tuple[float, ...]
    resident_mib: tuple[float, ...]
    peak_mib: tuple[float, ...]

    def medians(self) -> dict[str, float]:
        """By name."""
        return {name: median(values) for name, values in vars(self).items()}


CLASSIFIER = {"module": "cascade.pipelines.classifier", "face": "Classifier", "predict": "predict"}
TAGGER = {"module": "cascade.pipelines.tagger", "face": "Tagger", "predict": "predict_texts"}


def startup(
    model: str,
    *,
    threads: int,
    tagging: bool = False,
    samples: int = 5,
    progress: Callable[[str], object] | None = None,
) -> Startup:
    """Measure in fresh processes, the three kinds taking turns.

    Args:
        model: a bundle's folder or Hub id.
        threads: of both tiers.
        tagging: the bundle is a tagger's.
        samples: of each kind, after one that does not count.
        progress: called before each process.

    Raises:
        BundleError: a process failed.
    """
    check_whole("samples", samples, "5 give a stable median")
    names = TAGGER if tagging else CLASSIFIER
    texts = [sentence.text for sentence in sentences("sentiment")][:TEXTS]
    columns: dict[str, list[float]] = {"import": [], "classifier": [], "answer": [], "resident": [], "peak": []}
    for sample in range(samples + 1):
        if progress is not None:
            progress("import")
        imported, ready = map(float, _fresh(IMPORT.format(**names), None))
        if progress is not None:
            progress("first answer")
        begin = time.perf_counter()
        _fresh(ANSWER.format(**names), [model, threads, texts[:1]])
        answered = time.perf_counter() - begin
        if progress is not None:
            progress("memory")
        resident, peak = map(float, _fresh(MEMORY.format(**names), [model, threads, texts]))
        if sample:  # the first one fills the system's cache
            for name, value in zip(columns, (imported, ready, answered, resident, peak), strict=True):
                columns[name].append(value)
    return Startup(*(tuple(values) for values in columns.values()))


def _fresh(code: str, given: Any) -> list[str]:
    done = subprocess.run(  # noqa: S603  # this file's own code in this interpreter
        [sys.executable, "-c", code], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise BundleError(f"a fresh process must answer with this bundle, but: {reason[0]}; see cascade inspect")
    return done.stdout.split()
