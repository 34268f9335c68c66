"""A job: what it is made of, written as `job.json` beside its parts, and compared when the same command goes on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from cascade._version import __version__
from cascade.core.files import locked, refuse_same_file
from cascade.core.results import Counts
from cascade.exceptions import DataError, OptionError
from cascade.jobs.answers import AnyPipeline, ask
from cascade.jobs.cutting import Part, Span, cut
from cascade.jobs.inputs import Input, Types, find, kept_columns, readable
from cascade.jobs.leases import is_held
from cascade.jobs.parts import durable
from cascade.jobs.settings import Settings
from cascade.text.records import FileFormat
from cascade.text.sources import TABLE_FORMS

FORMAT: Final = 1
STATE: Final = "_cascade"  # what readers of folders of tables leave out
JOINED: Final = "joined"  # a file that is there once the one file is made
PART: Final = re.compile(r"part-\d{5,}\.(parquet|jsonl|csv)")
REMEDY: Final = "give what it was begun with, another output, or --fresh (fresh=True) to start anew"


@dataclass(frozen=True)
class Job:
    """A job whose parts are cut: which rows of the inputs each has, and the schema of the output.

    `folder`: where the parts go; `target`: the one file that is made of all parts, if one is; `bundle`: what answers:
    the hash of its files, its policies, whether it truncates; `kept`: columns of the inputs that are kept, with their
    types.
    """

    folder: Path
    target: Path | None
    settings: Settings
    bundle: dict[str, Any]
    inputs: tuple[Input, ...]
    parts: tuple[Part, ...]
    kept: Types
    schema: pa.Schema

    @property
    def state(self) -> Path:
        """Where all that is no part lies."""
        return self.folder / STATE

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"{self._name(number)}.{self.settings.form}"

    def beside(self, number: int, suffix: str) -> Path:
        """A file that tells of a part: `json` of a whole one, `lease` of one under way."""
        return self.state / f"{self._name(number)}.{suffix}"

    def block(self, number: int, at: int) -> Path:
        """A block of a part under way, counted from 0."""
        return self.beside(number, f"{at:05}.block")

    def _name(self, number: int) -> str:
        return f"part-{number:0{max(5, len(str(len(self.parts) - 1)))}}"

    def counts(self, number: int) -> Counts | None:
        """What was counted in a part, if it is whole."""
        try:
            told = json.loads(self.beside(number, "json").read_text(encoding="utf-8"))
            there = self.joined or self.part(number).stat().st_size == told["bytes"]
            return Counts(**told["counts"]) if there else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def joined(self) -> bool:
        """Whether the one file is made, and there."""
        return self.target is not None and self.target.exists() and (self.state / JOINED).exists()

    def to_json(self) -> str:
        """The text of `job.json`."""
        schema = base64.b64encode(self.schema.serialize().to_pybytes()).decode()
        told = {"format": FORMAT, "cascade": __version__, "settings": self.settings.to_json(), "bundle": self.bundle}
        told |= {"inputs": [asdict(one) for one in self.inputs], "schema": schema, "kept": list(self.kept)}
        parts = [[list(asdict(span).values()) for span in part] for part in self.parts]
        return json.dumps(told | {"parts": parts}) + "\n"

    def going_on(self, told: Mapping[str, Any], files: Sequence[tuple[Path, str]]) -> Job:
        """The job that was written, if it is this one; an `OptionError` names the first difference."""
        now = {"format": FORMAT, **self.settings.to_json(), **self.bundle, "inputs": [str(path) for path, _ in files]}
        inputs = tuple(Input(**one) for one in told["inputs"])
        then = {"format": told["format"], **told["settings"], **told["bundle"], "inputs": [one.path for one in inputs]}
        for name, value in now.items():
            if then.get(name) != value:
                was = f"{then.get(name)!r:.200}"
                raise OptionError(f"{name} of the job in {self.folder} must stay {was}, got {value!r:.200}; {REMEDY}")
        for one in inputs:
            if change := one.changed():
                raise OptionError(f"{one.path} must stay as it was when its job began, but: {change}; {REMEDY}")
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told["schema"])))
        parts = tuple(tuple(Span(*span) for span in part) for part in told["parts"])
        kept = {name: schema.field(name).type for name in told["kept"]}
        return replace(self, inputs=inputs, parts=parts, kept=kept, schema=schema)

    def cut(self, files: Sequence[tuple[Path, str]], pipeline: AnyPipeline) -> Job:
        """The job of these files, whose parts are cut."""
        settings = self.settings
        kept = kept_columns(files, settings)
        answers = {settings.prefix + field.name: field.type for field in ask(pipeline, [], settings)[0].schema}
        if settings.on_error == "null":
            answers[f"{settings.prefix}error"] = pa.string()
        if both := {*kept} & {*answers}:
            raise OptionError(
                f"columns that are kept must have other names than answers, got {min(both)!r} for both; leave it out "
                "of --keep, or give a --prefix"
            )
        inputs = []
        for path, form in files:
            with readable(path, form):
                inputs.append(Input.of(path, form, settings))
        parts = tuple(cut(inputs, settings, [*settings.read, *kept]))
        if not parts:
            raise DataError(f"inputs must hold at least one row, but {files[0][0]} is empty; check the files")
        schema = pa.schema([*kept.items(), *answers.items()])
        return replace(self, inputs=tuple(inputs), parts=parts, kept=kept, schema=schema)


def open_job(
    pipeline: AnyPipeline,
    inputs: Iterable[str | Path],
    output: str | Path,
    settings: Settings,
    *,
    form: FileFormat | None = None,
    fresh: bool = False,
) -> Job:
    """The job that is in the output's place, or a new one, which is written. See `predict_tables`.

    Another job there, or a folder with something else in it, is an `OptionError`; a file that cannot be read, or lacks
    columns, a `DataError`.
    """
    files, output = find(inputs, form), Path(os.path.abspath(output))  # noqa: PTH100  # links stay
    suffix = output.suffix.lower()[1:]
    target = None if output.is_dir() or suffix not in TABLE_FORMS else output
    settings = replace(settings, form=settings.form or (TABLE_FORMS[0] if target is None else suffix))
    if target is not None:
        if settings.form != suffix:
            raise OptionError(f"an output of the format {settings.form} must have its suffix, got {output}; rename it")
        refuse_same_file(target, [path for path, _ in files])
    folder = output if target is None else output.with_name(f"{output.name}.parts")
    strange = folder.is_dir() and not (folder / STATE).is_dir() and any(folder.iterdir())
    if strange or any(folder in path.parents for path, _ in files):
        raise OptionError(f"an output must be a file, a new or empty folder or a job's, got {folder}; name another one")
    digest = hashlib.sha256(pipeline.bundle.manifest.to_json().encode()).hexdigest()
    bundle = {"bundle": digest, "policies": pipeline.policies.to_json(), "truncation": pipeline.tokenizer.truncation}
    job = Job(folder, target, settings, json.loads(json.dumps(bundle)), (), (), {}, pa.schema([]))
    written, gone = job.state / "job.json", target is not None and not target.exists() and (job.state / JOINED).exists()
    if fresh or gone or not written.exists():
        job = job.cut(files, pipeline)
        for made in (folder, job.state):
            made.mkdir(exist_ok=True)
        with locked(job.state):
            if fresh or gone:
                _clear(job)
            if not written.exists():
                with durable(written) as file:
                    file.write_text(job.to_json(), encoding="utf-8")
                return job
    return job.going_on(json.loads(written.read_text(encoding="utf-8")), files)


def _clear(job: Job) -> None:
    """Remove what a job wrote, but for the one file; an `OptionError` while one works there."""
    if any(map(is_held, job.state.glob("*.lease"))):
        raise OptionError(f"a job must not be under way to start anew, but one is in {job.folder}; end it first")
    parts = [path for path in job.folder.glob("part-*") if PART.fullmatch(path.name)]
    for path in (job.state / "job.json", *job.state.iterdir(), *parts):
        path.unlink(missing_ok=True)
