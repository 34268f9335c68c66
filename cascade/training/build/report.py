"""What a build tells: one line for the terminal, and one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from cascade.calibration.certify.outcomes import Certified, Outcome
from cascade.core.rounding import percent
from cascade.core.statistics import Interval

SHOWN = 10  # texts that differ
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
tr + tr td { border-top: 1px solid #ddd } .big { font-size: 1.2rem } code { background: #f3f3f3; padding: .1rem .3rem }
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """Everything that is told of a build.

    Attributes:
        name, source: of the bundle and of the original model.
        outcome: of the certificate.
        pays: whether exits or a first tier are used.
        form: of full depth, in words.
        over_pipeline, over_full: how many times as fast, in turns; how the pipeline was used is `pipeline`.
        seconds: per text, by way.
        alike: shares of units that answer as the original, by form of the model.
        routes: share of the units by where their answer comes from.
        differing: texts with another answer: text, original's answer, the bundle's, where it came from.
        mebibytes: of the bundle.
        steps: seconds by step.
        candidates: seconds of those that were timed beside each other.
        notes: what else must be known.
    """

    name: str
    source: str
    outcome: Outcome
    pays: bool
    form: str
    pipeline: str
    over_pipeline: Interval
    over_full: Interval
    seconds: Mapping[str, float]
    alike: Mapping[str, float]
    routes: Mapping[str, float]
    differing: Sequence[tuple[str, str, str, str]]
    mebibytes: float
    steps: Mapping[str, float]
    candidates: Mapping[str, float]
    notes: Sequence[str] = ()

    def line(self) -> str:
        """The verdict in a few words."""
        over = f"{self.over_pipeline.median:.1f}x your pipeline ({self.pipeline})"
        speed = f"{over}, {self.over_full.median:.2g}x full depth"
        if not self.pays:
            speed = f"run your model {self.form}: {over}; no exit and no first tier pays here"
        return f"{self.name}: {speed}; {self.kept()}; {self.mebibytes:.1f} MiB"

    def kept(self) -> str:
        """What is certified and was seen, in words."""
        if not isinstance(self.outcome, Certified):
            return f"nothing is certified: {getattr(self.outcome, 'why', '')}"
        taken, claim = self.outcome.taken, self.outcome.claim
        return f"{claim.describe()} (seen: {taken.events} of {taken.examples:,}, {percent(taken.rate)})"

    def figures(self) -> dict[str, Any]:
        """What a program may want to know."""
        return {
            "over_pipeline": self.over_pipeline.median,
            "over_full_depth": self.over_full.median,
            "pipeline": self.pipeline,
            "pays": self.pays,
            "alike": dict(self.alike),
            "routes": dict(self.routes),
            "steps": dict(self.steps),
        }

    def html(self) -> str:
        """The page."""
        speeds = [
            ("your pipeline", self.pipeline, _seconds(self.seconds["pipeline"]), "1"),
            ("full depth", self.form, _seconds(self.seconds["full depth"]), ""),
            ("this bundle", "", _seconds(self.seconds["bundle"]), self.over_pipeline.text()),
        ]
        parts = [
            f"<h1>{escape(self.name)}</h1>",
            f"<p class=big>{escape(self.line())}.</p>",
            f"<p>Made of <code>{escape(self.source)}</code>. Use it:</p>",
            f"<pre>cascade predict {escape(self.name)} texts.txt\ncascade.load({escape(repr(self.name))})</pre>",
            "<h2>Speed</h2>",
            _table(("", "", "per text", "times as fast"), speeds),
            f"<p>Measured in turns on this machine; over full depth {escape(self.over_full.text())} times.</p>",
            "<h2>Agreement with the original model</h2>",
            f"<p>{escape(self.kept())}.</p>",
            _table(("", "same answer"), [(name, percent(share)) for name, share in self.alike.items()]),
            "<h2>Where answers come from</h2>",
            _table(("", "share"), [(name, percent(share)) for name, share in self.routes.items()]),
            f"<h2>{len(self.differing)} texts that it answers differently</h2>",
            _table(("text", "original", "bundle", "answered by"), self.differing),
            "<h2>How it was made</h2>",
            _table(("step", "seconds"), [(name, f"{spent:.0f}") for name, spent in self.steps.items()]),
            _table(("timed beside each other", "seconds"), [(n, f"{s:.3g}") for n, s in self.candidates.items()]),
            *(f"<p>{escape(note)}.</p>" for note in (*self.notes, *self.outcome.warnings)),
        ]
        body = "\n".join(parts)
        head = f"<meta charset=utf-8><title>{escape(self.name)}</title><style>{STYLE}</style>"
        return f"<!doctype html>\n<html lang=en>{head}\n{body}\n</html>\n"


def routes_of(tiers: Sequence[int], layers: Sequence[int], *, count: int) -> dict[str, float]:
    """Shares of the units by their route; `count`: of all tiers: the last one is the one with exits."""
    counts = Counter(zip(tiers, layers, strict=True))
    names = {key: "first tier" if key[0] < count else f"layer {key[1]}" if key[1] else "full depth" for key in counts}
    return {names[key]: counts[key] / len(tiers) for key in sorted(counts)}


def _seconds(value: float) -> str:
    return f"{1000 * value:.3g} ms"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
