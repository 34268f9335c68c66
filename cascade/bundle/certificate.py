"""What is certified of a bundle: a claim, the examples that it was tested on, and what exactly it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from cascade.bundle.certificate_form import faults, shown
from cascade.core.rounding import percent, percent_up
from cascade.exceptions import BundleError

__all__ = ["Certificate", "Data", "Disagreement", "Settings"]

Settings: TypeAlias = Mapping[str, Any]
"""`router`, `exit_policy`, `blend` and `temperatures` (`[of tier 1, [of each exit]]`) in their written form, and of a
tagger `windows` and `decoding`."""

NAMES: Final = {
    "router": "the router",
    "exit_policy": "the exit policy",
    "blend": "the blend",
    "temperatures": "the temperatures",
    "windows": "the windows",
    "decoding": "the decoding",
}


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """How often answers differ from those of tier 2 at full depth; needs no labels, so it can be watched in use.

    Attributes:
        events: units whose answer differs.
        examples: units in all.
        upper: one-sided upper limit of the rate, at the certificate's confidence.
    """

    events: int
    examples: int
    upper: float


@dataclass(frozen=True, kw_only=True)
class Data:
    """The file of examples.

    Attributes:
        name: what it is called, without its folder.
        sha256: of its bytes.
        examples: in the whole file.
        chosen_on: of them, those on which settings were chosen. The others were tested on.
    """

    name: str
    sha256: str
    examples: int
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
        events: of them, those that count against the claim; `None` where it bounds a mean cost.
        bound: what the claim bounds the rate of events by; of a mean cost seconds.
        upper: one-sided upper limit of the rate of events, for a setting that was fixed beforehand. This one was
            selected by the same counts, so of it the limit is an estimate; certified is `bound`.
        disagreement: of the same units.
        method: of the test, in words.
        data: where the units came from.
        policies: what the claim is about.
        safer: the settings that were tested before this one, safest first. The same claim was found to hold for them.
        models: hash by path (`Manifest.models`).
        library_version: that made it.
        date: when, in ISO's form with an offset.
        warnings: what a reader must know besides, such as repeated examples.
    """

    claim: str
    ask: Mapping[str, Any]
    confidence: float
    unit: str
    examples: int
    events: int | None
    bound: float
    upper: float
    disagreement: Disagreement
    method: str
    data: Data
    policies: Settings
    models: Mapping[str, str]
    library_version: str
    date: str
    safer: tuple[Settings, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict from which `from_json` makes an equal certificate."""
        written: dict[str, Any] = _plain(asdict(self))
        return written

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Certificate:
        """The certificate that `to_json` wrote.

        Raises:
            BundleError: it has another shape; all faults at once.
        """
        found = faults(written)
        if found:
            raise BundleError(f"a certificate must be as cascade wrote it, but {'; '.join(found)}; calibrate again")
        values = {
            "disagreement": Disagreement(**written["disagreement"]),
            "data": Data(**written["data"]),
            "safer": tuple(written["safer"]),
            "warnings": tuple(written["warnings"]),
        }
        return cls(**{**written, **values})

    def differences(self, policies: Settings, models: Mapping[str, str]) -> list[str]:
        """Why the claim is not about these policies and models, in words; empty if it is.

        Args:
            policies: in use, in the written form.
            models: their hashes (`Manifest.models`).
        """
        now, then = _plain(policies), _plain(self.policies)
        found = [
            f"{NAMES.get(key, key)} {_verb(key)} {shown(now.get(key))}, certified: {shown(then.get(key))}"
            for key in {**then, **now}
            if now.get(key) != then.get(key)
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
        if self.events is None:  # only older versions certified mean costs
            seen = f"Certified on {tested}: a mean cost of at most {self.bound * 1000:.3g} ms."
        else:
            seen = (
                f"Counted against it: {self.events:,} of {tested} ({percent(self.events / self.examples)}); certified "
                f"is a rate of at most {percent(self.bound)}. The upper limit of this setting alone is "
                f"{percent_up(self.upper)}, an estimate, because the setting was selected by the same counts."
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
            "way. Of others nothing is claimed. It assumes too that these examples were asked once: another seed, or "
            "examples added after a refusal, make a false claim likelier than stated."
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


def _plain(value: object) -> Any:
    """As it comes back from a file: tuples are lists there."""
    return json.loads(json.dumps(value))


def _verb(key: str) -> str:
    return "are" if key in {"temperatures", "windows"} else "is"


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"
