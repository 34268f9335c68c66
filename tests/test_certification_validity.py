"""Certificates keep their promise: simulated tiers whose harm is known, calibrated again and again.

A world is a finite number of documents, all equally likely, so what a setting does to a new document is known exactly:
its mean over the world. Each repetition draws documents from it (with replacement) and calibrates on them. In the 2,000
repetitions of each way of asking only two parts of `certify` are replaced by something faster and equal: settings are
replayed once on the whole world instead of on each sample, and paths come from five fixed choosing samples. The whole,
with nothing replaced, is run a few times as well.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest

from cascade.batch import IntArray
from cascade.calibration import Costs
from cascade.certification import certify as certifying
from cascade.certification.answers import Answers
from cascade.certification.certify import Certified, certify
from cascade.certification.claims import Agreement, Ask, Claim, MaxDeferred, MaxDrop, MeanCost
from cascade.certification.losses import lost
from cascade.certification.means import Mean
from cascade.certification.paths import Step, path
from cascade.certification.replay import Replayed, Setting, replay
from cascade.certification.temperature import Temperatures
from cascade.confidence import probabilities

REPETITIONS = 2000
COSTS = Costs(tier1=0.05, stages=(0.25, 0.25, 0.25, 0.25))
ASKS: dict[str, Ask] = {
    "drop": MaxDrop(0.03),
    "two-sided": MaxDrop(0.04, two_sided=True),
    "per class": MaxDrop(0.06, per_class=True),
    "agreement": Agreement(0.04),
    "agreement per class": Agreement(0.08, per_class=True),
    "deferred": MaxDeferred(0.25),
    "cost": MeanCost(8.0),
}
"""Every way of asking; a document has 22 tokens on average, and a token costs 1 at full depth."""


def world(documents: int, seed: int) -> Answers:
    """Documents of three classes, some of them hard; an earlier exit sees the same signal through more noise."""
    random = np.random.default_rng(seed)
    truth = random.choice(3, documents, p=(0.5, 0.3, 0.2)).astype(np.int64)
    signal = np.zeros((documents, 3))
    signal[np.arange(documents), truth] = np.where(random.random(documents) < 0.75, 4.5, 1.6)
    exits = [signal + random.standard_normal((documents, 3))]
    for more in (0.5, 0.7, 1.0):
        exits.insert(0, exits[0] + more * random.standard_normal((documents, 3)))
    # Tier 1 is worse at the last class than at the others, which `per_class` has to notice.
    tier1 = exits[-1] + (1.2 + 0.4 * (truth == 2))[:, None] * random.standard_normal((documents, 3))
    return Answers(
        tier1=probabilities(2 * tier1.astype(np.float32)),
        tier2=probabilities(2 * np.stack(exits, axis=1).astype(np.float32)),
        documents=np.arange(documents),
        lengths=random.integers(5, 40, documents),
        layers=(3, 6, 9, 12),
        truth=truth,
        temperatures=Temperatures(1.0, (1.0, 1.0, 1.0, 1.0)),
    )


def known_rate(ask: Ask, everything: Answers, setting: Setting) -> float:
    """What a setting really does: the rate or mean cost that is bounded; of the worst class where each counts."""
    ran, full = replay(everything, setting, COSTS), everything.full()
    if isinstance(ask, MeanCost):
        return float(ran.seconds.mean())
    if isinstance(ask, MaxDeferred):
        return float(ran.deferred.mean())
    events = lost(ask, ran.answers, full, everything.goal())
    if not ask.per_class:
        return float(events.mean())
    classes = (everything.goal() if isinstance(ask, MaxDrop) else full)[:, 0]
    return max(float(events[classes == label].mean()) for label in range(3))


@dataclass(frozen=True, eq=False)
class Numbered(Answers):
    """Answers that know which documents of the world they are about."""

    numbers: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def select(self, documents: IntArray) -> Answers:
        return replace(super().select(documents), numbers=self.numbers[documents])


def numbered(everything: Answers) -> Numbered:
    fields = {each.name: getattr(everything, each.name) for each in dataclasses.fields(Answers)}
    return Numbered(**fields, numbers=np.arange(len(everything)))


@dataclass(frozen=True, eq=False)
class Recorded:
    """Stands in for `replay`: what each setting does to the whole world, looked up for a sample of it."""

    everything: Answers
    runs: dict[Setting, Replayed] = field(default_factory=dict)

    def __call__(self, answers: Answers, setting: Setting, costs: Costs) -> Replayed:
        if setting not in self.runs:
            self.runs[setting] = replay(self.everything, setting, costs)
        assert isinstance(answers, Numbered)
        ran, now = self.runs[setting], answers.numbers
        return Replayed(ran.answers[now], ran.deferred[now], ran.exits[now], ran.seconds[now])


def spread_out(ask: Ask, steps: tuple[Step, ...], everything: Answers, count: int = 8) -> tuple[Step, ...]:
    """A few steps of a path, as many of them unsafe as safe: what tests can get wrong is where the bound is crossed."""
    rates = np.array([known_rate(ask, everything, step.setting) for step in steps])
    wanted = np.linspace(0.4, 1.6, count) * ask.bound
    return tuple(steps[number] for number in np.unique(np.abs(rates - wanted[:, None]).argmin(axis=1)))


def calibrations(
    monkeypatch: pytest.MonkeyPatch, ask: Ask, *, repetitions: int, documents: int = 600
) -> tuple[npt.NDArray[np.float64], float]:
    """Calibrate again and again.

    Returns:
        What was certified: its known rate, 0 where nothing was. Shape `(repetitions,)`. And the largest of the paths.
    """
    everything = numbered(world(20_000, 0))
    recorded = Recorded(everything)
    paths = [spread_out(ask, path(world(1000, 1 + seed), COSTS, ask), everything) for seed in range(5)]
    known = {step.setting: known_rate(ask, everything, step.setting) for steps in paths for step in steps}
    monkeypatch.setattr(certifying, "replay", recorded)
    monkeypatch.setattr(Mean, "upper", lambda self: math.inf)  # forty more tests, which decide nothing
    random = np.random.default_rng(2)
    found = np.zeros(repetitions)
    for repetition in range(repetitions):
        sample = everything.select(random.integers(0, len(everything), documents))
        monkeypatch.setattr(certifying, "path", lambda *_, taken=paths[repetition % 5], **__: taken)
        outcome = certify(sample, COSTS, Claim(ask), seed=repetition, chosen=0.05, temper=False, learn_router=False)
        if isinstance(outcome, Certified):
            found[repetition] = known[outcome.setting]
    return found, max(known.values())


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_a_claim_is_violated_rarely(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    found, worst = calibrations(monkeypatch, ask, repetitions=REPETITIONS)
    assert worst > 1.3 * ask.bound  # there was something to get wrong
    violated = float((found > ask.bound).mean())
    assert violated <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)
    assert (found > 0).mean() > 0.5  # and something to get
    print(violated, (found > 0).mean(), worst)
