"""What a report about a calibration shows, as plain values: outcome, path that was tested, how reliable confidence is.

Texts and tags fill it alike.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from importlib import metadata
from pathlib import Path

import cascade
from cascade.calibration.reliability import Reliability, RiskCoverage
from cascade.exceptions import OptionError
from cascade.runtime.host import processor
from cascade.runtime.threads import available_cpus

__all__ = [
    "Fate",
    "Head",
    "PerClass",
    "Report",
    "Trial",
    "Trials",
    "machine",
    "now",
]

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "scipy", "scikit-learn")


class Fate(Enum):
    """What became of a setting on the path."""

    CHOSEN = "chosen"
    """Certified, and the one that is returned."""
    CERTIFIED = "certified"
    FAILED = "first that failed"
    """Testing stopped here."""
    UNTESTED = "not tested"
    """Behind the first failure, or dropped: nothing is claimed of it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of the path.

    Attributes:
        setting: in words.
        speed_up: predicted, over tier 2 at full depth, as a ratio of seconds.
        value: what was seen: a rate in [0, 1], or seconds where `Trials.seconds` says so; NaN where nobody looked.
        upper: one-sided upper confidence bound of it, for this setting alone; NaN where there is none.
        fate: what became of it.
        events: harmed examples, or others that counted against it; `None` where the value is no rate of events.
        deferred: share that tier 2 reads; `None` where nobody counted.
    """

    setting: str
    speed_up: float
    value: float
    upper: float
    fate: Fate
    events: int | None = None
    deferred: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The path through the settings.

    Attributes:
        quantity: what was bounded: "harm", "disagreement with tier 2", ...
        bound: that was claimed, in the unit of `Trial.value`.
        trials: safest first; empty where nothing could be tested.
        confidence: of every upper bound, in (0, 1).
        seconds: the values are seconds, not shares.
    """

    quantity: str
    bound: float
    trials: tuple[Trial, ...]
    confidence: float
    seconds: bool = False

    @property
    def chosen(self) -> Trial | None:
        """The setting that is returned, or `None`."""
        return next((trial for trial in self.trials if trial.fate is Fate.CHOSEN), None)

    def __post_init__(self) -> None:
        chosen = sum(trial.fate is Fate.CHOSEN for trial in self.trials)
        if chosen > 1:
            raise OptionError(f"a path has one chosen setting at the most, were: {chosen}; mark the others CERTIFIED")


@dataclass(frozen=True, kw_only=True)
class Head:
    """How far the confidence of one head can be believed.

    Attributes:
        name: "tier 1", "exit 3", ...
        reliability: its bins.
        temperature: that its logits are divided by; `None` where that is not to be shown.
    """

    name: str
    reliability: Reliability
    temperature: float | None = None


@dataclass(frozen=True, kw_only=True)
class PerClass:
    """What was seen among the examples of one class.

    Attributes:
        label: the class.
        events: as `Trial.events`, of the chosen setting.
        examples: of this class.
        upper: as `Trial.upper`.
    """

    label: str
    events: int
    examples: int
    upper: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """A calibration, ready to be shown.

    Attributes:
        model, data: as the user named them.
        claim: what was asked for, in words.
        certified: whether it was granted.
        outcome: what was certified; or why not, and what would help. A sentence or two.
        unit: plural of what was counted: "texts", "sentences", "words".
        examples: how many were tested on; those that the path was chosen on do not count.
        labelled: `False` where "right" means "as tier 2 at full depth answers".
        tested: the path.
        machine: facts about it by name (`machine`).
        command: the exact one.
        made: when, in UTC (`now`).
        certificate: its lines by name; empty where the claim was refused.
        warnings: that stand in the certificate, each a sentence without a full stop.
        method: sentences that say what the guarantee means and how it was reached.
        heads: tier 1, then exits in order.
        risk: of tier 1.
        classes: where harm was bounded class by class.
    """

    model: str
    data: str
    claim: str
    certified: bool
    outcome: str
    unit: str
    examples: int
    labelled: bool
    tested: Trials
    machine: Mapping[str, str]
    command: str
    made: str
    certificate: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    method: tuple[str, ...] = ()
    heads: tuple[Head, ...] = ()
    risk: RiskCoverage | None = None
    classes: tuple[PerClass, ...] = ()


def machine(*, threads: int, root: Path = Path("/")) -> dict[str, str]:
    """Facts about this machine by name: predicted speed-ups are those of one machine.

    Args:
        threads: that the tiers were given.
        root: where `proc` and `sys` are.
    """
    versions = [f"Python {platform.python_version()}", f"cascade {cascade.__version__}"]
    versions += [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return {
        "CPU": processor(root=root),
        "CPUs": f"{os.cpu_count()}, of which {available_cpus(root=root)} may be used",
        "Threads": str(threads),
        "System": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Versions": ", ".join(versions),
    }


def now() -> str:
    """This minute, in UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
