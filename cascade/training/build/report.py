"""What a build measures and tells: one line for the terminal, and one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from statistics import median
from typing import Any

import numpy as np
import torch

from cascade.calibration.certify.outcomes import Certified, Outcome
from cascade.core.confidence import answers as answers_of
from cascade.core.rounding import percent
from cascade.core.statistics import in_turns, speed_up
from cascade.training.build.looking import Checkpoint
from cascade.training.build.shares import Answered, Given
from cascade_bench.systems.transformers_pipeline import TransformersPipeline

SHOWN = 10  # texts that differ
TIMED, LEAST = 500, 32  # texts that are timed, at most and at least
TURNS = (3, 9)  # at least, at most
BATCHES = (8, 32)
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
tr + tr td { border-top: 1px solid #ddd } .big { font-size: 1.2rem } code { background: #f3f3f3; padding: .1rem .3rem }
"""


def report_of(
    given: Given,
    pipeline: Any,
    outcome: Outcome,
    *,
    full: Any,
    exported: Mapping[str, Any],
    pays: bool,
    seconds: float,
    steps: Mapping[str, float],
    candidates: Mapping[str, float],
) -> tuple[str, str, dict[str, Any]]:
    """Measure a bundle beside full depth and the user's own pipeline, on texts that certify, and tell all.

    Returned are the verdict in a few words, the page, and what a program may want to know. `pipeline`: of the bundle,
    with its policies; `full`: that of full depth; `exported`: facts of that step; `pays`: whether exits or a first tier
    are used; `seconds`: that measuring may take, about; `steps`: seconds by step; `candidates`: seconds of those that
    were timed beside each other.
    """
    some, files, name = given.certify, pipeline.bundle.manifest.files, str(given.output)
    found = pipeline.predict(some.items)
    routes = getattr(found.routes, "words", found.routes)
    same, form = some.alike(found.probabilities), exported["form"]
    # The user's pipeline is tried in four ways before it is timed.
    few = some.items[: min(TIMED, max(int(seconds / 10 / given.each), LEAST))]
    how, own = own_pipeline(given.checkpoint, few)
    ways: dict[str, Callable[[], object]] = {"your pipeline": own, "full depth": partial(full.predict, few)}
    ways["this bundle"] = partial(pipeline.predict, few)
    taken = timed(ways, seconds=seconds)
    over, over_full = (speed_up(taken[way], taken["this bundle"]) for way in ("your pipeline", "full depth"))
    each = [f"{1000 * median(spent) / len(few):.3g} ms" for spent in taken.values()]
    rows = [*zip(ways, (how, form, ""), each, ("1", "", over.text()), strict=True)]
    alike = {"full depth, fp32": exported["fp32"], f"full depth, {form}": exported["int8"]}
    alike["this bundle"] = float(same.mean())
    where = routes_of(routes.tier.tolist(), routes.exit_layer.tolist(), count=len(pipeline.tiers))
    kept = _kept(outcome)
    speed = f"{over.median:.1f}x your pipeline ({how})"
    if pays:
        speed = f"{speed}, {over_full.median:.2g}x full depth"
    else:
        speed = f"run your model {form}: {speed}; no exit and no first tier pays here"
    size = sum(record.bytes for record in files.values()) / 2**20
    line = f"{name}: {speed}; {kept}; {size:.1f} MiB"
    differing = _differing(some, found, routes, ~same)
    copies = [f"{given.texts.copies:,} copies of other texts were left out"] * bool(given.texts.copies)
    parts = [
        f"<h1>{escape(name)}</h1>",
        f"<p class=big>{escape(line)}.</p>",
        f"<p>Made of <code>{escape(str(given.checkpoint.source))}</code>. Use it:</p>",
        f"<pre>cascade predict {escape(name)} texts.txt\ncascade.load({escape(repr(name))})</pre>",
        "<h2>Speed</h2>",
        _table(("", "", "per text", "times as fast"), rows),
        f"<p>Measured in turns on this machine; over full depth {escape(over_full.text())} times.</p>",
        "<h2>Agreement with the original model</h2>",
        f"<p>{escape(kept)}.</p>",
        _table(("", "same answer"), [(of, percent(share)) for of, share in alike.items()]),
        "<h2>Where answers come from</h2>",
        _table(("", "share"), [(route, percent(share)) for route, share in where.items()]),
        f"<h2>{len(differing)} texts that it answers differently</h2>",
        _table(("text", "original", "bundle", "answered by"), differing),
        "<h2>How it was made</h2>",
        _table(("step", "seconds"), [(step, f"{spent:.0f}") for step, spent in steps.items()]),
        _table(("timed beside each other", "seconds"), [(one, f"{spent:.3g}") for one, spent in candidates.items()]),
        *(f"<p>{escape(note)}.</p>" for note in (*copies, *outcome.warnings)),
    ]
    head = f"<meta charset=utf-8><title>{escape(name)}</title><style>{STYLE}</style>"
    page = "\n".join([f"<!doctype html>\n<html lang=en>{head}", *parts, "</html>\n"])
    figures = {"over_pipeline": over.median, "over_full_depth": over_full.median, "pipeline": how, "pays": pays}
    return line, page, figures | {"alike": alike, "routes": where, "steps": dict(steps)}


def _kept(outcome: Outcome) -> str:
    """What is certified and was seen, in words."""
    if not isinstance(outcome, Certified):
        return f"nothing is certified: {getattr(outcome, 'why', '')}"
    taken = outcome.taken
    return f"{outcome.claim.describe()} (seen: {taken.events} of {taken.examples:,}, {percent(taken.rate)})"


def timed(ways: Mapping[str, Callable[[], object]], *, seconds: float) -> dict[str, list[float]]:
    """Seconds of each way in turns, after a first run that does not count."""
    for way in ways.values():
        way()
    return in_turns(ways, turns=TURNS[1], least=TURNS[0], seconds=seconds)


def own_pipeline(checkpoint: Checkpoint, items: Sequence[Any]) -> tuple[str, Callable[[], object]]:
    """The user's `transformers.pipeline` on the CPU at its best, in words, and as a function that answers all items."""
    pipe = TransformersPipeline.load(
        checkpoint.source,
        threads=torch.get_num_threads(),
        max_length=checkpoint.limit,
        multi_label=checkpoint.multi_label,
        tagging=checkpoint.tags,
    )
    pipe.labels(items[:8], batch_size=8)
    orders = {"as given": items, "sorted by length": sorted(items, key=lambda item: len(str(item)))}
    ways = {
        f"batches of {batch}, {name}": partial(pipe.labels, texts, batch_size=batch)
        for batch in BATCHES
        for name, texts in orders.items()
    }
    taken = in_turns(ways, turns=1)
    best = min(ways, key=taken.__getitem__)
    return best, ways[best]


def routes_of(tiers: Sequence[int], layers: Sequence[int], *, count: int) -> dict[str, float]:
    """Shares of the units by their route; `count`: of all tiers: the last one is the one with exits."""
    counts = Counter(zip(tiers, layers, strict=True))
    names = {key: "first tier" if key[0] < count else f"layer {key[1]}" if key[1] else "full depth" for key in counts}
    return {names[key]: counts[key] / len(tiers) for key in sorted(counts)}


def _differing(some: Answered, found: Any, routes: Any, differs: Any) -> list[tuple[str, str, str, str]]:
    """The first units with another answer: text, original's, bundle's, where from."""
    labels, rows = np.array(some.checkpoint.labels, dtype=object), []
    numbers, several = some.checkpoint.regression, some.checkpoint.multi_label

    def named(answer: Any) -> str:
        if numbers:
            return f"{answer[0]:.4g}"
        return ", ".join(labels[np.flatnonzero(answer)]) if several else str(labels[int(answer[0])])

    wanted = some.logits if numbers else some.answers
    answers = found.probabilities if numbers else answers_of(found.probabilities, multi_label=several)
    owners = np.repeat(np.arange(len(some.items)), some.counts)
    for unit in np.flatnonzero(differs)[:SHOWN].tolist():
        item = some.items[owners[unit]]
        text = " | ".join(item) if isinstance(item, tuple) else item if isinstance(item, str) else " ".join(item)
        where = f"tier {int(routes.tier[unit])}, layer {int(routes.exit_layer[unit])}"
        rows.append((text, named(wanted[unit]), named(answers[unit]), where))
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
