"""The settings of a tagger that are tested, in the order of the test, chosen on a share of the sentences alone.

Words are items that leave one by one along the chain of both tiers, as texts do; what they say of whole sentences gives
thresholds (`paths`). What windows and halted neighbours change is not in that, so a few dozen settings with windows are
run and counted as the claim counts; about ten of these are the path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cascade.calibration.certify.claims import Agreement, RiskTarget
from cascade.calibration.certify.events import lost
from cascade.calibration.certify.outcomes import Step
from cascade.calibration.certify.paths import PathGrid, text_path
from cascade.calibration.chain import EXIT
from cascade.calibration.runs import Run, Stages, no_progress
from cascade.calibration.sentences import WordAnswers
from cascade.policies.exits import never
from cascade.policies.registry import Tunable, tunable
from cascade.policies.routing import defer_all, defer_none
from cascade.policies.settings import Policies
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import WindowPolicy, Windows, whole_sentences

T = TypeVar("T")


@dataclass(frozen=True)
class WordGrid(PathGrid):
    """Which settings of a tagger are tried, and how far a path goes; `run` and `steps`: how many, at most.

    `windows`: what tier 2 reads; `exits`: the exit policies whose thresholds are tried where the tagger's own is
    `TokenExit` or none; `riskiest`: risk on the choosing share, as a share of the bound, where the path ends.
    """

    least: float = 1e-6  # of many words in a sentence
    steps: int = 12
    run: int = 24
    windows: tuple[WindowPolicy, ...] = (Windows(2), whole_sentences)
    exits: tuple[Tunable, ...] = tuple(TokenExit(0.5, window=window) for window in (1, 3, 5))
    riskiest: float = 1.2

    def kinds(self, like: Policies | None) -> tuple[Tunable, ...]:
        """The exit policies whose thresholds are tried for a tagger with these policies."""
        own = EXIT if like is None else tunable(like.exits[-1], EXIT)
        return self.exits if own == EXIT or isinstance(own, TokenExit) else (own,)

    def likes(self, answers: WordAnswers, like: Policies | None) -> list[Policies]:
        """Policies whose kinds get thresholds."""
        base = answers.at_full_depth if like is None else like
        return [replace(base, exits=(never, kind.at(0.5))) for kind in self.kinds(like)]


def word_path(
    answers: WordAnswers,
    ask: RiskTarget,
    *,
    like: Policies | None = None,
    grid: WordGrid | None = None,
    progress: Stages = no_progress,
) -> tuple[Step, ...]:
    """Settings whose risk rises and whose cost falls, chosen on these sentences, which have costs.

    Their risk is a guess: half what the claim counts, half what the number of differing answers makes likely. The path
    may be empty: then nothing that was tried is cheaper than tier 2 at full depth. `like`: policies whose kinds of
    router and exit policy get thresholds.
    """
    grid = grid or WordGrid()
    some = answers.fitting().read_whole(progress)
    steps, _ = word_guesses(some, ask, like=like, grid=grid)
    return run_guesses(some, steps, ask, grid=grid, progress=progress)


def word_guesses(
    sentences: WordAnswers, ask: RiskTarget, *, like: Policies | None = None, grid: WordGrid
) -> tuple[Sequence[Step], float]:
    """The path of words, by `text_path`, and the share of words at which about the bound in sentences is lost.

    `sentences`: read whole.
    """
    if not len(sentences):
        return (), 0.0
    # How many sentences are harmed for a harmed word, nearly, is told by tier 1 alone.
    alone = sentences.run(replace(sentences.at_full_depth, routers=(defer_none,)))
    by_word = float(lost(ask, alone.answers, sentences.reference, sentences.goal).mean())
    share = by_word / _rate(ask, sentences, alone) if by_word else 1.0
    asked = replace(ask, bound=ask.bound * share)
    wide = replace(grid, steps=grid.run)
    return text_path(sentences.as_items(), asked, like=grid.likes(sentences, like), grid=wide), asked.bound


def ran(
    sentences: WordAnswers, steps: Sequence[Step], *, grid: WordGrid, progress: Stages = no_progress
) -> list[tuple[Step, Run]]:
    """The steps with each of the windows, run, as many as the grid says; costs and what is deferred are the runs'.

    `sentences`: read whole, all of which fit both tiers.
    """
    each = [(whole_sentences,) if step.policies.routers[0] == defer_all else grid.windows for step in steps]
    every = [(step, windows) for step, several in zip(steps, each, strict=True) for windows in several]
    some, found = evenly(every, range(len(every)), grid.run), []
    with progress("running the best of them", len(some)) as ahead:
        for step, windows in some:
            own = replace(step.policies, windows=windows, decoding=sentences.decoding)
            run = sentences.run(own)
            cost = sentences.cost(own, run)
            found.append((replace(step, policies=own, cost=cost, deferred=float(run.deferred.mean())), run))
            ahead(1)
    return found


def run_guesses(
    sentences: WordAnswers, steps: Sequence[Step], ask: RiskTarget, *, grid: WordGrid, progress: Stages = no_progress
) -> tuple[Step, ...]:
    """The path of what was guessed, run on the same sentences."""
    found = ran(sentences, steps, grid=grid, progress=progress)
    rates = [(_rate(ask, sentences, run), _rate(Agreement(), sentences, run)) for _, run in found]
    harms, differing = np.array(rates).reshape(-1, 2).T
    # A few hundred sentences show no harm of many settings, of which the cheapest would look as safe as any. Each
    # differing answer is as likely to be harm as another, nearly, so half of the guess is made of these.
    risks = (harms + differing * (harms.sum() / max(differing.sum(), 1e-12))) / 2
    guessed = [replace(step, risk=float(risk)) for (step, _), risk in zip(found, risks, strict=True)]
    kept = front(step for step in guessed if step.cost < 1)[::-1]
    kept = kept[: max(sum(step.risk <= grid.riskiest * ask.bound for step in kept), 1)]
    return tuple(evenly(kept, [step.risk for step in kept], grid.steps))


def _rate(ask: RiskTarget, answers: WordAnswers, run: Run) -> float:
    """Share of the sentences with an event."""
    return float(answers.events(lost(ask, run.answers, answers.reference, answers.goal)).mean())


def front(steps: Iterable[Step]) -> list[Step]:
    """The steps that no other beats in both risk and cost, cheapest first (the Pareto front)."""
    found: list[Step] = []
    for step in sorted(steps, key=lambda step: (step.cost, step.risk)):
        if not found or step.risk < found[-1].risk:
            found.append(step)
    return found


def evenly(things: Sequence[T], places: Sequence[float], most: int) -> list[T]:
    """At most so many, evenly by their places, both ends among them."""
    if len(things) <= most:
        return list(things)
    wanted = np.linspace(places[0], places[-1], most)
    return [things[number] for number in np.unique(np.abs(np.array(places)[:, None] - wanted).argmin(axis=0))]
