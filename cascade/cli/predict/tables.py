"""`cascade predict` of tables: which inputs and outputs make a job, and what is asked of `cascade.jobs`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from cascade.cli.predict.lines import summary
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.runtime.threads import check_threads
from cascade.text.records import FileFormat
from cascade.text.sources import ARROW_SUFFIXES

OWN: Final = ("keep", "prefix", "form", "part_rows", "workers", "ray", "fresh")


def is_job(files: Sequence[str], output: Path | None, given: Mapping[str, Any]) -> bool:
    """Whether tables are written and not lines; an `OptionError` for options of one that are used with the other."""
    named = [f"--{name.replace('_', '-')}".replace("--form", "--output-format") for name in OWN if given[name]]
    path = Path(files[0] if files else "-")
    if len(files) < 2 and str(path) == "-":
        if named:
            raise OptionError(f"{named[0]} must be used with files, got standard input; write it to a file")
        return False
    several = len(files) > 1 or path.is_dir() or (not path.exists() and bool({*"*?["} & {*str(path)}))
    into = output is not None and (output.is_dir() or not (output.suffix or output.exists()))
    tables = output is not None and output.suffix.lower() in (".parquet", ".csv")
    if not (named or several or into or tables or path.suffix.lower() in ARROW_SUFFIXES):
        return False
    if output is None:
        raise OptionError("--output must be given where several files or tables are read; name a file or a folder")
    if given["shadow"] is not None:
        raise OptionError("--shadow must be used with lines, got a job; give one file and an output .jsonl")
    return True


def threads(given: Mapping[str, Any]) -> int | None:
    """The threads of a pipeline: those of a worker. On Ray each worker has so many."""
    count: int | None = given["threads"]
    if given["ray"]:
        return count or 1  # of other machines
    return max(check_threads(count) // given["workers"], 1) if given["workers"] else count


def predict(
    pipeline: Classifier | Tagger,
    files: Sequence[str],
    output: Path,
    form: FileFormat | None,
    progress: bool,
    given: Mapping[str, Any],
) -> str:
    """Run a job; a summary."""
    from cascade.jobs.running import predict_tables
    from cascade.jobs.settings import ALL, Settings

    keep = tuple(dict.fromkeys(name for names in given["keep"] for name in names.split(",") if name))
    asked = {**given, "keep": ALL if keep == (ALL,) else keep}
    settings = Settings(**{one.name: asked[one.name] for one in fields(Settings) if asked[one.name] is not None})
    begin, workers = time.perf_counter(), given["workers"] or 1
    more: Any = {"workers": workers, "on_ray": given["ray"], "fresh": given["fresh"], "show_progress": progress}
    counts = predict_tables(pipeline, files, output, settings, form=form, **more)
    unit = "word" if isinstance(pipeline, Tagger) and given["strategy"] is None else None
    return f"{summary(counts, unit, time.perf_counter() - begin)}; {output} is whole"
