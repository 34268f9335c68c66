"""How often certificates are false, what they save, and how often a monitor warns without a reason: simulated.

    python -m tests.simulations.certificates models/sentiment --data dev.jsonl --data calibration.jsonl --runs 300

Found on an Intel Xeon with AMX, 2 cores: the tables in docs/certificates.md.

Both tiers answer all texts once; each calibration draws some. With replacement, a claim is about all that are recorded,
so that its truth is known; without, about all that did not choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np

from cascade.calibration.certify.bounds import p_value, upper_limit
from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop, RiskTarget
from cascade.calibration.certify.events import by_class, differ
from cascade.calibration.certify.outcomes import Certified
from cascade.calibration.certify.whole import certify_sample
from cascade.calibration.examples import distinct
from cascade.calibration.observing import observe_texts
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import IntArray
from cascade.monitoring.sequential import EDetector
from cascade.pipelines.classifier import Classifier
from cascade_bench.table.data import read_data
from cascade_bench.timing.report import bar, grid

ASKS: dict[str, RiskTarget] = {
    "drop 0.01": MaxDrop(0.01),
    "drop 0.02": MaxDrop(0.02),
    "drop 0.005": MaxDrop(0.005),
    "agreement 0.02": Agreement(0.02),
    "drop 0.02 per class": MaxDrop(0.02, per_class=True),
}
HEAD = ("asked", "drawn", "refused", "claim false", "estimate low", "limit low", "saved, %", "false alarms", "of one")
COPIES, LOOKS, FIRST, LAST, BOUND = 3, 5, 960, 2400, 0.01  # of each text; tests, examples in the first and the last


def simulated(world: TextAnswers, ask: RiskTarget, how: str, seed: Sequence[int], texts: int, stream: int) -> Any:
    """Claim false, estimate and limit of disagreement too low, share saved, alarms; None where it was refused."""
    random = np.random.default_rng(seed)
    drawn = random.choice(len(world), texts // COPIES if "copies" in how else texts, replace=how == "with")
    given = world.select(np.tile(drawn, COPIES if how == "copies as given" else 1))
    outcome = certify_sample(given, Claim(ask), seed=seed[-1])
    if not isinstance(outcome, Certified):
        return None
    about = world.with_temperatures(outcome.temperatures)
    if how == "without":
        about = about.select(np.setdiff1d(np.arange(len(world)), drawn[outcome.chosen_on]))
    run, figures, limit = about.run(outcome.policies), outcome.figures, outcome.disagreement_upper
    events, sizes = by_class(outcome.claim, about, run)
    true, other = float((events / np.maximum(sizes, 1)).max()), differ(run.answers, about.full.answers)
    limits = limit, float(upper_limit(figures.disagreements, figures.examples))
    seen, saved = random.choice(other, stream), 1 - run.seconds / about.full.seconds
    alarms = [EDetector(bound=one).after(seen).alarm_at is not None for one in limits]
    return true > ask.bound, outcome.taken.upper < true, limit < other.mean(), saved, *alarms


def share(values: Sequence[float]) -> str:
    """How many of so many, and the exact 95 % interval of their rate."""
    total, count = max(len(values), 1), int(sum(values))
    low, high = 1 - upper_limit(total - count, total, confidence=0.975), upper_limit(count, total, confidence=0.975)
    return f"{count} of {total} ({100 * count / total:.1f} %; {100 * low:.1f}-{100 * high:.1f})"


def looks(random: np.random.Generator, runs: int) -> Iterator[tuple[str, ...]]:
    """Of one setting whose harm is the bound: certified by any look, uncounted and counted."""
    sizes = np.linspace(FIRST, LAST, LOOKS).astype(np.int64)
    added = random.binomial(np.diff(sizes, prepend=0), BOUND, (runs, LOOKS)).cumsum(axis=1)
    harmed = random.binomial(LAST // 2, BOUND, (runs, 1))
    again = random.hypergeometric(harmed, LAST // 2 - harmed, FIRST, (runs, LOOKS))
    for name, events, tested in (("examples added", added, sizes), ("other seeds", again, np.full(LOOKS, FIRST))):
        found = p_value(events, tested[None], BOUND)
        levels = Claim().level, np.array([Claim(question=number).level for number in range(1, LOOKS + 1)])
        yield name, *(share(np.any(found <= level, axis=1).tolist()) for level in levels)


def recorded(model: str, files: Sequence[str]) -> TextAnswers:
    """What both tiers say about the distinct texts of these files."""
    classifier = Classifier.from_pretrained(model)
    data = [read_data(file, classifier) for file in files]
    items, right = ([one for own in data for one in getattr(own, name)] for name in ("items", "right"))
    kept = distinct(items)
    truth: IntArray = np.array([classifier.labels.index(right[number]) for number in kept], dtype=np.int64)
    return observe_texts(classifier, [items[number] for number in kept], truth)


@click.command()
@click.argument("model")
@click.option("--data", "files", multiple=True, required=True, help="Labelled texts; several times for several files.")
@click.option("--runs", default=300, show_default=True, help="Calibrations of each kind.")
@click.option("--texts", default=1200, show_default=True, help="Of a calibration.")
@click.option("--stream", default=20_000, show_default=True, help="Answers that a monitor compares.")
@click.option("--seed", default=0, show_default=True)
def main(model: str, files: Sequence[str], runs: int, texts: int, stream: int, seed: int) -> None:
    """Calibrations whose truth is known, again and again."""
    world, rows = recorded(model, files), []
    kinds = [(name, how) for name in ASKS for how in ("with", "without")]
    kinds += [(next(iter(ASKS)), how) for how in ("copies", "copies as given")]
    with bar(len(kinds)) as step:
        for place, (name, how) in enumerate(kinds):
            made = [simulated(world, ASKS[name], how, (seed, place, one), texts, stream) for one in range(runs)]
            step(f"{name}, {how}")
            false, low, limit, saved, *alarms = zip(*filter(None, made), strict=True) if any(made) else [()] * 6
            part = " / ".join(f"{100 * one:.0f}" for one in np.quantile(saved or [0], (0.1, 0.5, 0.9)))
            told = *map(share, (false, low, limit)), part, *map(share, alarms)
            rows.append([name, how, share([one is None for one in made]), *told])
    click.echo(f"{len(world)} texts, {runs} calibrations with {texts} of each kind, streams of {stream}")
    click.echo(grid(HEAD, rows, left=2, markdown=True))
    asked = looks(np.random.default_rng(seed), 100 * runs)
    click.echo(grid(("looks", "certified, uncounted", "certified, counted"), list(map(list, asked)), markdown=True))


if __name__ == "__main__":
    main()
