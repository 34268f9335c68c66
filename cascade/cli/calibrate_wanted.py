"""What `cascade calibrate` was asked for, and what can be told of it before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cascade.core.files import refuse_same_file
from cascade.exceptions import DataError, OptionError

__all__ = ["Wanted"]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command was asked for.

    Attributes:
        by: the option that names what is bounded, `--max-drop` if none was given.
        bound: its value.
        progress: whether bars are shown.
        command: all of it, as it can be given again.
    """

    model: str
    file: Path
    by: str
    bound: float
    confidence: float
    two_sided: bool
    per_class: bool
    unit: str | None
    seed: int
    write: bool
    output: Path | None
    json_file: Path | None
    png_file: Path | None
    html_file: Path | None
    text_column: str
    pair_column: str
    label_column: str | None
    tokens_column: str | None
    threads: int | None
    progress: bool
    command: str

    def check(self) -> None:
        """What can be told before anything is loaded.

        Raises:
            OptionError: options that do not go together, or a place that cannot be written to.
            DataError: there is no file of examples.
        """
        for option, on, fits in (
            ("--two-sided", self.two_sided, ("--max-drop",)),
            ("--per-class", self.per_class, ("--max-drop", "--agreement")),
        ):
            if on and self.by not in fits:
                raise OptionError(f"{option} must be used with {' or '.join(fits)}, was: {self.by}; leave it out")
        if self.write and self.output is not None:
            raise OptionError("--write and --output exclude each other, both were given; leave one out")
        if self.write and not Path(self.model).expanduser().is_dir():
            raise OptionError(f"--write needs a bundle in a folder, was: {self.model}; give --output FOLDER instead")
        if self.output is not None and (self.output.is_file() or (self.output.is_dir() and any(self.output.iterdir()))):
            raise OptionError(f"--output must not be there yet, was: {self.output}; choose another folder")
        for option, file in (("--json", self.json_file), ("--png", self.png_file), ("--html", self.html_file)):
            if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
                raise OptionError(f"{option} must be a file in a folder that is there, was: {file}; change the path")
            if file is not None:
                refuse_same_file(file, [self.file])
        if not self.file.is_file():
            raise DataError(f"--data must be a file of examples, was: {self.file}; check the path")
