"""What is certified of a bundle: a claim, the examples that it was tested on, and what exactly it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, Final, cast

from cascade.bundle.form import LIST, Positive, Rule, faults_of, made, one_of, plain
from cascade.core.checks import is_number
from cascade.core.rounding import percent, percent_up
from cascade.exceptions import BundleError
from cascade.policies.settings import Policies


def _is_date(value: object) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


_CONFIDENCE: Final[Rule] = ("a number between 0 and 1", lambda value: is_number(value) and 0 < value < 1)
_DATE: Final[Rule] = ("a date and time with an offset, in ISO's form", _is_date)


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """How often answers differ from those of tier 2 at full depth; needs no labels, so it can be watched in use.

    `events`: units whose answer differs; `examples`: units in all; `upper`: one-sided upper limit of the rate, at the
    certificate's confidence.
    """

    events: int
    examples: Positive
    upper: float


@dataclass(frozen=True, kw_only=True)
class Data:
    """The file of examples: its name without its folder, and the hash of its bytes.

    `examples`: in the whole file; `chosen_on`: of them, those on which settings were chosen. The others tested.
    """

    name: str
    sha256: str
    examples: Positive
    chosen_on: int


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A claim about a bundle with certain policies, and the evidence.

    Attributes:
        claim: in words, without a full stop.
        ask: the claim as it was asked for, in the form that it was written in.
        confidence: of the claim, between 0 and 1.
        unit: what is counted: `text`, `sentence` or `word`.
        examples: units that were tested on.
        events: of them, those that count against the claim.
        bound: what the claim bounds the rate of events by.
        upper_estimate: one-sided upper limit of the rate of events, for a setting that was fixed beforehand. This one
            was selected by the same counts, so of it the limit is an estimate; certified is `bound`.
        disagreement: of the same units.
        method: of the test, in words.
        data: where the units came from.
        policies: what the claim is about.
        safer: the policies that were tested before these, safest first. The same claim was found to hold for them.
        models: hash by path (`Manifest.models`).
        library_version: that made it.
        date: when, in ISO's form with an offset.
        warnings: what a reader must know besides, such as repeated examples.
    """

    claim: str
    ask: Mapping[str, Any]
    confidence: Annotated[float, _CONFIDENCE]
    unit: Annotated[str, one_of("text", "sentence", "word")]
    examples: Positive
    events: int
    bound: float
    upper_estimate: float
    disagreement: Disagreement
    method: str
    data: Data
    policies: Policies
    models: Mapping[str, str]
    library_version: str
    date: Annotated[str, _DATE]
    safer: Annotated[tuple[Policies, ...], LIST] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict from which `from_json` makes an equal certificate."""
        written: dict[str, Any] = plain(self)
        return written

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Certificate:
        """The certificate that `to_json` wrote; of another shape a `BundleError` with all faults at once."""
        found = faults(written)
        if found:
            raise BundleError(f"a certificate must be as cascade wrote it, but {'; '.join(found)}; calibrate again")
        return made(written, cls)

    def contradictions(self) -> list[str]:
        """Where counts that are possible by themselves do not fit each other."""
        other, data = self.disagreement, self.data
        counted = (
            ("events", self.events, "examples", self.examples),
            ("events of disagreement", other.events, "examples of disagreement", other.examples),
            ("chosen_on of data", data.chosen_on, "examples of data", data.examples),
        )
        return [
            f"{few} must be at most {many}, got {least} of {most}" for few, least, many, most in counted if least > most
        ]

    def differences(self, policies: Policies, models: Mapping[str, str]) -> list[str]:
        """Why the claim is not about these policies and models (`Manifest.models`), in words; empty if it is."""
        found = [
            f"{own.name} must be {then!r} as certified, got {now!r}"
            for own in fields(policies)
            if (now := getattr(policies, own.name)) != (then := getattr(self.policies, own.name))
        ]
        for path in {**self.models, **models}:
            if path not in models:
                found.append(f"{path} is missing")
            elif path not in self.models:
                found.append(f"{path} is new")
            elif models[path] != self.models[path]:
                found.append(f"{path} is another than the certified one")
        return found

    def described(self) -> list[str]:
        """All that it says, in sentences for people."""
        one, data, other = self.unit, self.data, self.disagreement
        tested = _count(self.examples, one)
        seen = (
            f"Counted against it: {self.events:,} of {tested} ({percent(self.events / self.examples)}); certified "
            f"is a rate of at most {percent(self.bound)}. The upper limit of this setting alone is "
            f"{percent_up(self.upper_estimate)}, an estimate, because the setting was selected by the same counts."
        )
        source = (
            f"Data: {data.name} (sha256 {data.sha256[:12]}), {_count(data.examples, 'example')}; settings were chosen "
            f"on {data.chosen_on:,} of them and tested on the other {data.examples - data.chosen_on:,}."
        )
        differing = (
            f"Answers that differ from those of tier 2 at full depth: {other.events:,} of "
            f"{_count(other.examples, one)}; the limit that a monitor watches is "
            f"{percent_up(other.upper)}."
        )
        assumed = (
            "It assumes that the examples in use are exchangeable with these: drawn from the same source in the same "
            "way. Of others nothing is claimed. It assumes too that no question was asked of these examples, with "
            "another seed, say, or before some were added, but those that the test has counted."
        )
        return [
            f"Claim, at a confidence of {percent(self.confidence)}: {self.claim}.",
            source,
            seen,
            differing,
            f"Test: {self.method}.",
            f"Made on {datetime.fromisoformat(self.date):%Y-%m-%d %H:%M %Z} by cascade {self.library_version}.",
            assumed,
            *(f"Warning: {warning.rstrip('.')}." for warning in self.warnings),
        ]


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"


def faults(written: object) -> list[str]:
    """What is wrong with the shape of a written certificate, all of it.

    Whether it still is about the models and policies beside it is another question: `Certificate.differences`.
    """
    return faults_of(written, Certificate, "certificate") or made(cast("Any", written), Certificate).contradictions()
