"""`cascade-bench table` and `thresholds` on a tagger's bundle. Options are read by `cli`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cascade.calibration import WordGrid, WordPoint
from cascade.core.console import table as aligned
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import AtExit, ExitPolicy, any_of
from cascade.policies.unit_exits import TokenExit
from cascade.runtime.threads import check_threads
from cascade_bench import machine, render, tag_operating
from cascade_bench.console import bar
from cascade_bench.rivals import rivals
from cascade_bench.table import measure
from cascade_bench.tag_data import TagColumns, read_tagged
from cascade_bench.taggers import tag_contenders

__all__ = ["TagTable", "TagThresholds"]

SUBSET = 256  # sentences on which the pipeline's batch sizes are tried


@dataclass(frozen=True, kw_only=True)
class TagTable:
    """Options of `cascade-bench table`; see its help."""

    model: str
    file: str
    columns: TagColumns
    exit_table_file: str | None
    token_exit: float | None
    depth_cap: int | None
    checkpoint: str | None
    repeats: int
    threads: int | None
    json_file: Path | None
    markdown: bool

    def __call__(self) -> None:
        """Measure and print."""
        count = check_threads(self.threads)
        tagger = Tagger.from_pretrained(self.model, threads=count)
        data = read_tagged(self.file, tagger.labels, columns=self.columns)
        learned = None
        if self.exit_table_file is not None:
            learned = read_tagged(self.exit_table_file, tagger.labels, columns=self.columns)
        before = machine.facts(threads=count)
        rates: dict[int, float] = {}
        with bar() as step:
            policy = self._exit_policy(tagger)
            chosen = rivals(tagger.with_exit_policy(policy), data, table_data=learned, progress=step)
            who = tag_contenders(tagger, chosen, exit_policy=policy)
            if self.checkpoint is not None:
                from cascade_bench import peers, tag_peers

                pipeline = tag_peers.TagPipeline.load(
                    self.checkpoint, threads=count, max_length=tagger.tier2.max_length
                )
                size, rates = peers.best_batch_size(pipeline, data.sentences[:SUBSET], progress=step)
                who.append(peers.contender(pipeline, size))
            made = measure(who, data, repeats=self.repeats, progress=step)
        click.echo((render.as_markdown if self.markdown else render.as_text)(made, before))
        policies = {"cascade": tagger.exit_policy, "tier 2 alone": policy, **chosen}
        shown = "; ".join(f"{name}: {policy!r}" for name, policy in policies.items())
        click.echo(
            f"{chr(10) * self.markdown}Router {tagger.router!r}, {tagger.windows!r}, blend {tagger.blend:g}. "
            f"Exit policies: {shown}."
        )
        if rates:
            tried = ", ".join(f"{size}: {rate:.0f}" for size, rate in rates.items())
            some = min(SUBSET, len(data.sentences))
            click.echo(f"{chr(10) * self.markdown}Pipeline, sentences/s by batch size on {some} sentences: {tried}.")
        if self.json_file is not None:
            details: dict[str, Any] = {
                "model": self.model,
                "data": Path(self.file).name,
                "sentences": len(data.sentences),
                "exit_table_data": None if self.exit_table_file is None else Path(self.exit_table_file).name,
                "router": repr(tagger.router),
                "windows": repr(tagger.windows),
                "decoding": repr(tagger.decoding),
                "blend": tagger.blend,
                "exit_policies": {name: repr(policy) for name, policy in policies.items()},
                "repeats": self.repeats,
                "checkpoint": self.checkpoint,
                "pipeline_sentences_per_second_by_batch_size": rates,
            }
            if hasattr(os, "getloadavg"):
                details["load_average_after"] = list(os.getloadavg())
            render.write_json(self.json_file, render.as_json(made, before, details))

    def _exit_policy(self, tagger: Tagger) -> ExitPolicy:
        """Of tier 2 alone."""
        if self.token_exit is None and self.depth_cap is None:
            return tagger.exit_policy
        given: list[ExitPolicy] = []
        if self.token_exit is not None:
            given.append(TokenExit(self.token_exit))
        if self.depth_cap is not None:
            given.append(AtExit(self.depth_cap))
        return any_of(*given)


@dataclass(frozen=True, kw_only=True)
class TagThresholds:
    """Options of `cascade-bench thresholds`; see its help."""

    model: str
    file: str
    columns: TagColumns
    max_drop: float
    drops: Sequence[float]
    f1: bool
    caps: bool
    tier1_share: float | None
    save: bool
    threads: int | None

    def __call__(self) -> None:
        """Choose, print, and perhaps write."""
        tagger = Tagger.from_pretrained(self.model, threads=self.threads)
        data = read_tagged(self.file, tagger.labels, columns=self.columns)
        with bar() as step:
            found = tag_operating.operate(
                tagger,
                data,
                max_drop=self.max_drop,
                f1=self.f1,
                grid=WordGrid(caps=self.caps),
                tier1_share=self.tier1_share,
                progress=step,
            )
        policies = ["blend", "router", "windows", "exit policy"]
        head = ["allowed", "accuracy", "drop", "deferred", "mean layer", "predicted", *policies]
        replayed = [
            [f"{drop * 100:.2f}", *_replayed(tag_operating.cheapest(found.points, drop))]
            for drop in sorted({*self.drops, self.max_drop})
        ]
        click.echo("Replayed, cheapest within each bound (predicted: times faster than full-depth tier 2):\n")
        click.echo(aligned(head, replayed, right=tuple(range(6))))
        kinds = tag_operating.kinds(found.points, self.max_drop)
        click.echo(f"\nReplayed, {self.max_drop * 100:.2f} points allowed, by kind:\n")
        rows = [[name, *_replayed(point)] for name, point in kinds.items()]
        click.echo(aligned(["", *head[1:]], rows, right=(1, 2, 3, 4, 5)))
        metric = "entity F1" if self.f1 else "accuracy"
        click.echo(f"\nReally run (full-depth tier 2: {metric} {found.full:.2%} in {found.full_seconds:.3g} s):\n")
        best = found.best
        rows = [
            [
                "->" if one is best else "",
                f"{one.score:.2%}",
                f"{(found.full - one.score) * 100:.2f}",
                "yes" if one.within else "no",
                f"{found.full_seconds / one.seconds:.2f}",
                f"{one.point.blend:g}",
                repr(one.point.router),
                repr(one.point.windows),
                repr(one.point.exit_policy),
            ]
            for one in found.tried
        ]
        head = ["", metric, "drop", "within", "times faster", *policies]
        click.echo(aligned(head, rows, right=(1, 2, 4)))
        if best not in found.tried:
            click.echo("\nNothing that was run kept the bound and was faster: the choice is tier 2 at full depth.")
        if self.save:
            tag_operating.write(tagger, found, model=self.model, data=self.file, max_drop=self.max_drop, f1=self.f1)
            point = best.point
            click.echo(
                f"Written to {self.model}: {point.router!r}, {point.windows!r}, {point.exit_policy!r}, "
                f"blend {point.blend:g}"
            )


def _replayed(point: WordPoint) -> list[str]:
    return [
        f"{point.accuracy:.2%}",
        f"{point.drop * 100:.2f}",
        f"{point.deferred:.1%}",
        f"{point.mean_layer:.2f}" if point.deferred else "",
        f"{point.predicted_speed_up:.2f}",
        f"{point.blend:g}",
        repr(point.router),
        repr(point.windows),
        repr(point.exit_policy),
    ]
