"""Having the exporter write a bundle's second tier in every numeric form, in a process of its own.

torch stays out of the process that measures.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cascade.exceptions import BundleError
from cascade_bench.precisions import FORMS, SHIPPED

__all__ = ["run_exporter", "write"]

EXPORTER = "import sys; from cascade_export.forms_cli import main; main(sys.argv[1:])"


def write(
    model: Path,
    checkpoint: str,
    calibration: str,
    output: Path,
    *,
    percentile: float,
    columns: Mapping[str, str] | None = None,
    progress: Callable[[str], object] | None = None,
) -> dict[str, Path]:
    """Have the exporter write a bundle in all forms.

    Args:
        model: folder of the bundle.
        checkpoint: that its second tier was made from.
        calibration: file of texts (of a tagger: sentences) that ranges come from.
        output: folder for the bundles.
        percentile: of the form of that name, in %.
        columns: names of the file's columns, by the exporter's options, such as `--text-column`.
        progress: called with the exporter's steps.

    Returns:
        Their folders, by form.

    Raises:
        BundleError: the exporter refused, with what it said.
    """
    options = [part for pair in (columns or {}).items() for part in pair]
    arguments = [str(model), checkpoint, calibration, str(output), "--percentile", str(percentile), *options]
    status, said = run_exporter(arguments, progress or (lambda _step: None))
    if status:
        last = (said.strip().splitlines() or [f"status {status}"])[-1].removeprefix("Error: ")
        raise BundleError(f"tier 2 must be exported in every form, but the exporter ended with: {last}")
    return {form: output / form for form in FORMS if form != SHIPPED}


def run_exporter(arguments: Sequence[str], progress: Callable[[str], object]) -> tuple[int, str]:
    """Run `cascade_export.forms_cli`: its status, what it said on standard error. `progress`: called with its steps."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        command = [sys.executable, "-c", EXPORTER, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as running:  # noqa: S603  # our own
            for line in running.stdout or ():
                progress(line.strip())
        said.seek(0)
        return running.returncode, said.read()
