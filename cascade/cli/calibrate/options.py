"""What `cascade calibrate` was asked for, and what can be told of it before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cascade.core.checks import check_inside
from cascade.core.files import check_output
from cascade.exceptions import DataError, OptionError


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """What the command was asked for.

    `by`: the option that names what is bounded, `bound` its value; `guarantee`: a certificate is wanted; `command`: all
    of it, as it can be given again.
    """

    model: str
    file: Path
    by: str
    bound: float
    guarantee: bool
    confidence: float
    per_class: bool
    f1: bool
    seed: int
    write: bool
    output: Path | None
    json_file: Path | None
    text_column: str
    pair_column: str
    label_column: str | None
    label_separator: str | None
    tokens_column: str | None
    threads: int | None
    progress: bool
    command: str

    def check_task(self, *, tagger: bool) -> None:
        """Raise an `OptionError` for options that are not for bundles of this task."""
        fit, got = ("classifiers", "a tagger") if tagger else ("taggers", "a classifier")
        given = {"--per-class": self.per_class}
        if not tagger:
            given = {"--tokens-column": self.tokens_column is not None, "--f1": self.f1}
        for option in (option for option, on in given.items() if on):
            raise OptionError(f"{option} must be used with {fit}, but {self.model} is {got}; leave it out")

    def check(self) -> None:
        """Raise an `OptionError` for what does not go together, a `DataError` if there is no file of examples."""
        plain = not self.guarantee
        for option, on, fits, rule in (
            ("--no-guarantee", plain and self.by == "--agreement", False, "used with --max-drop"),
            ("--per-class", self.per_class, not plain, "used with a guarantee"),
            ("--f1", self.f1, self.by == "--max-drop" and plain, "used with --no-guarantee --max-drop"),
        ):
            if on and not fits:
                got = f"{self.by}{' without a guarantee' * plain}"
                raise OptionError(f"{option} must be {rule}, got {got}; leave it out")
        check_inside(self.by, self.bound, "0.01 is one in a hundred")
        check_inside("--confidence", self.confidence, "0.95 is usual")
        if self.write and self.output is not None:
            raise OptionError("--write and --output exclude each other, both were given; leave one out")
        if self.write and not Path(self.model).expanduser().is_dir():
            raise OptionError(f"--write needs a bundle in a folder, got {self.model}; give --output FOLDER instead")
        if self.output is not None and (self.output.is_file() or (self.output.is_dir() and any(self.output.iterdir()))):
            raise OptionError(f"--output must not be there yet, got {self.output}; choose another folder")
        check_output("--json", self.json_file, self.file)
        if self.file.is_dir() or not self.file.exists():
            raise DataError(f"--data must be a file of examples, got {self.file}; check the path")
