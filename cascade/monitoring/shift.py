"""Whether texts in use come as those of the calibration did: a two-sample test without labels, valid at all times.

If they do, the rank of a text among those of the calibration and all texts before it is uniform (conformal prediction),
whatever their distribution, and ranks are independent; runs between edges are then drawn like the balls of Polya's
urn, which begins with as many balls as the run has places. Each of several bets multiplies its capital by how much
likelier a run is if ranks of a feature are tilted up or down. Their average, like each of them, ever reaches `1 / d`
with a probability of at most `d` (Ville's inequality): the error of the calibration's own sample is in the urn. A tilt
gains from a mean rank of about 0.58 on, so that smaller differences are no shift.

Sources: Vovk, Nouretdinov and Gammerman, "Testing exchangeability on-line", ICML 2003 (conformal test martingales);
Shekhar and Ramdas, "Nonparametric two-sample testing by betting", IEEE Transactions on Information Theory 70 (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from cascade.bundle.profile import Profile
from cascade.core.checks import check_inside
from cascade.core.rows import Doubles, IntArray
from cascade.monitoring.sequential import EProcess, alarm_of, bet
from cascade.pipelines.profiling import cuts

TILTS: Final = (-4.0, -2.0, 2.0, 4.0)
MEANING: Final = {"depth": "how deep answers come from", "length": "length", "new": "new words"}
"""What the features of a profile tell, for people."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShiftDetector:
    """Raises the alarm once it is shown that texts differ from those of a profile. A value: `after` gives the next.

    Texts that come as those of the profile did, in any order, raise it with a probability of at most `1 - confidence`,
    over an endless stream. `profile`: what texts are compared with; `balls`: texts of profile and stream in each run of
    each feature, and one more, shape `(runs,)` each; `process`: the bets, until the alarm; `alarm_at`: number of the
    text, from 1, that raised it; later ones are not looked at; `feature`: that differs most, once there is an alarm.
    """

    profile: Profile = field(repr=False)
    confidence: float = 0.95
    balls: Mapping[str, IntArray] = field(default_factory=dict, repr=False)
    process: EProcess = field(default_factory=EProcess, repr=False)
    alarm_at: int | None = None
    feature: str | None = None

    def __post_init__(self) -> None:
        check_inside("confidence", self.confidence, "0.95 is usual")
        if not self.balls:
            texts, edges = self.profile.texts, self.profile.edges
            urns = {name: np.diff([0, *cuts(texts, len(own) + 1), texts + 1]) for name, own in edges.items()}
            object.__setattr__(self, "balls", urns)

    def after(self, values: Mapping[str, Doubles]) -> ShiftDetector:
        """The detector after some texts; `values`: of each feature, in order of time. Shape `(texts,)` each."""
        if self.alarm_at is not None or not self.balls:
            return self
        gains, balls = list[Doubles](), dict[str, IntArray]()
        for name, before in self.balls.items():
            runs = np.searchsorted(np.array(self.profile.edges[name]), values[name])
            drawn = np.cumsum(np.eye(len(before), dtype=np.int64)[runs], axis=0)
            urns = before + drawn - np.eye(len(before), dtype=np.int64)[runs]
            chances = urns / urns.sum(axis=1, keepdims=True)
            for tilt in TILTS:
                logs = tilt * (np.arange(len(before)) + 0.5) / len(before)
                gains.append(logs[runs] - np.log(chances @ np.exp(logs)))
            balls[name] = before + drawn[-1] if len(runs) else before
        totals, process = bet([(1 / len(gains), own) for own in gains], begun=self.process)
        at = alarm_of(totals, self.process, self.confidence)
        best = None if at is None or process.logs is None else int(process.logs.argmax()) // len(TILTS)
        feature = None if best is None else list(balls)[best]
        return replace(self, balls=balls, process=process, alarm_at=at, feature=feature)
