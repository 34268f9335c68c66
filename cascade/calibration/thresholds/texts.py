"""The cheapest thresholds of a classifier that lose no more accuracy than was allowed, replayed on labelled examples.

The settings are those of the paths that a certificate would be tested along. The choice is empirical: the best of many
is a little flattered, and full-depth accuracy itself noisy (standard error about 1 point at 900 examples and 90 %).
Measure the chosen setting on other examples before you publish it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cascade.calibration.certify.claims import MaxDrop
from cascade.calibration.certify.events import differ
from cascade.calibration.certify.losses import Losses
from cascade.calibration.chain import chains
from cascade.calibration.induction import PRICES, Priced
from cascade.calibration.texts import TextAnswers
from cascade.calibration.thresholds.points import Point
from cascade.policies.settings import Policies


def choose(
    answers: TextAnswers,
    *,
    max_drop: float = 0.005,
    blends: Sequence[float] = (0.0,),
    like: Policies | None = None,
    prices: int = PRICES,
) -> Point:
    """The cheapest setting whose accuracy on the examples is at least that of full depth less `max_drop`.

    There always is one: the last tier at full depth. Where no cascade pays, routers are `defer_all`.

    `blends`: how much the answer of a tier may count beside those of the next one; the cheapest is taken. `like`:
    policies whose kinds of router and exit policy get thresholds. `prices`: how many settings are looked at for each
    choice of tiers and blend.
    """
    # Counted in examples: half a point of 872 is 4 of them, whatever floating point makes of it.
    missed = int(differ(answers.full.answers, answers.goal).sum())
    allowed = missed + math.floor(max_drop * len(answers) + 1e-9)
    found: list[tuple[float, float, int, int, Priced]] = []
    for chain in chains(answers, blends=blends, like=like):
        priced = Priced.of(chain, Losses.of(chain, MaxDrop()).likely, prices=prices)
        wrong = (chain.given != answers.goal[:, None]).any(axis=2)
        rows = zip(priced.cost.tolist(), (priced.rates(wrong) * len(answers)).tolist(), strict=True)
        within = ((cost, count, number) for number, (cost, count) in enumerate(rows) if count <= allowed + 1e-6)
        found += [(cost, count, len(found), number, priced) for cost, count, number in within if cost < 1]
    # Of a text of several rows a chain tells nearly what a replay tells exactly.
    policies = (priced.policies(number) for _, _, _, number, priced in sorted(found, key=lambda one: one[:3]))
    for one in (*policies, answers.at_full_depth):
        run = answers.run(one)
        wrong_here, cost = int(differ(run.answers, answers.goal).sum()), run.seconds / answers.full.seconds
        if wrong_here <= allowed and cost <= 1:
            break
    return Point(
        policies=one,
        accuracy=1 - wrong_here / len(answers),
        drop=(wrong_here - missed) / len(answers),
        deferred=float(run.deferred.mean()),
        mean_layer=run.mean_layer(len(answers.tiers)),
        cost=cost,
    )
