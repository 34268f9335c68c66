"""How soon a monitor reports texts of another kind, and how often it reports texts of the same kind.

    python -m tests.simulations.shift models/sentiment --calibration calibration.jsonl --held-out dev.jsonl \\
        --other trec6/dev.jsonl --other qnli/dev.jsonl --other snips/dev.jsonl

Found on two AVX2 cores, SST-2's 1,500 calibration rows: of 200 streams of 20,000 dev rows 5 raise the alarm (8 without
depth); all of TREC-6 do within 117 texts, of QNLI's questions within 189, of SNIPS within 109, at once or after others.

Features are recorded once. A stream draws held-out texts with replacement; of other files, each text once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from cascade.core.rows import Doubles
from cascade.monitoring.monitor import EVERY
from cascade.monitoring.shift import ShiftDetector
from cascade.pipelines.loading import load
from cascade.pipelines.profiling import depth_of, features, profile_of
from cascade.text.reading import read_examples
from cascade_bench.systems.local import Model

Recorded = dict[str, Doubles]
OLD = 5000  # held-out texts before the others


def singles(file: str) -> list[str]:
    """The texts of a file; of pairs the first, of words a text."""
    with Path(file).open(encoding="utf-8") as stream:
        words = '"tokens"' in stream.readline()
    found: list[Any] = [
        " ".join(one.tokens or ()) if words else one.text
        for one in read_examples(file, tokens_column="tokens" if words else None, label_column=None)
    ]
    return [one if isinstance(one, str) else one[0] for one in found]


def recorded(model: Model, texts: Sequence[str], profile: Any) -> Recorded:
    """Features of texts."""
    answers: Any = model.predict(texts)
    return features(model, texts, np.array(list(map(depth_of, answers))), profile.slots, np.random.default_rng(0))


def delay(profile: Any, stream: Recorded, *, after: ShiftDetector | None = None) -> int | None:
    """The text of a stream, from 1, at which the alarm is raised; None if it is not."""
    begun = after or ShiftDetector(profile=profile)
    found = begun.after({name: values[::EVERY] for name, values in stream.items()})
    return None if found.alarm_at is None else (found.alarm_at - begun.process.outcomes - 1) * EVERY + 1


def drawn(held_out: Recorded, numbers: Any) -> Recorded:
    """The features of some texts."""
    return {name: values[numbers] for name, values in held_out.items()}


def said(found: list[int | None]) -> str:
    """Delays in words."""
    known = sorted(one for one in found if one is not None)
    if not known:
        return f"no alarm in {len(found)} streams"
    middle, most = known[len(known) // 2], known[-1]
    return f"alarm in {len(known)} of {len(found)} streams, at text {middle} in the median, {most} at the latest"


@click.command()
@click.argument("model")
@click.option("--calibration", required=True, help="Texts of the profile.")
@click.option("--held-out", required=True, help="Texts of the same kind.")
@click.option("--other", multiple=True, help="Texts of another kind.")
@click.option("--streams", default=200, show_default=True, help="Of held-out texts; as many of each other kind.")
@click.option("--texts", default=20_000, show_default=True, help="Of a stream of held-out texts.")
@click.option("--seed", default=0, show_default=True)
def main(
    model: str, calibration: str, held_out: str, other: Sequence[str], streams: int, texts: int, seed: int
) -> None:
    """Replay the label-free test on recorded features."""
    pipeline, random = load(model), np.random.default_rng(seed)
    profile = profile_of(pipeline, singles(calibration), seed=seed)
    if profile is None:
        raise click.ClickException("--calibration must hold 100 texts at least; give more")
    same = recorded(pipeline, singles(held_out), profile)
    count = len(next(iter(same.values())))
    for edges, name in ((profile, "all features"), (profile.of_texts(), "features of texts alone")):
        found = [delay(edges, drawn(same, random.integers(0, count, texts))) for _ in range(streams)]
        click.echo(f"{name}: {texts:,} held-out texts: {said(found)}")
        old = ShiftDetector(profile=edges).after(drawn(same, random.integers(0, count, OLD // EVERY)))
        for file in other:
            kind = recorded(pipeline, singles(file), profile)
            orders = [random.permutation(len(kind["new"])) for _ in range(streams)]
            for begun, words in ((None, "at once"), (old, f"after {OLD:,} others")):
                late = [delay(edges, drawn(kind, order), after=begun) for order in orders]
                click.echo(f"  {Path(file).parent.name or file}, {words}: {said(late)}")


if __name__ == "__main__":
    main()
