"""`cascade calibrate` of three tiers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from cascade import Classifier
from cascade.bundle.opening import open_bundle
from cascade.bundle.writing import write_bundle
from cascade.policies.routing import DeferAll
from cascade.policies.settings import Policies
from tests.models.cli import Command, lines


def test_three_tiers(run: Command, model: Path, data: Path, tmp_path: Path) -> None:
    """The middle one is ten times as dear as the last and no better: it is said, and not run."""
    bundle = open_bundle(model)
    (first, second), own = bundle.manifest.tiers, bundle.manifest.policies
    policies = Policies(
        routers=(*own.routers, *own.routers),
        exits=(*own.exits, own.exits[1]),
        temperatures=(*own.temperatures, own.temperatures[1]),
    )
    files: dict[str, bytes | Path] = {path: bundle.path(path) for path in bundle.manifest.files}
    three = write_bundle(
        tmp_path / "three", files, replace(bundle.manifest, tiers=(first, second, second), policies=policies)
    ).folder
    report, folder = tmp_path / "report.json", tmp_path / "out"
    asked = ("calibrate", three, "--data", data, "--max-drop", "0.2")
    done = run.well(*asked, "--output", folder, "--json", report)
    told = "defer_all: tier 2 is not run"
    assert told in done.out
    assert "below that of tier 3 at full depth" in done.out
    assert "tier 2           answers 0 %" in done.out
    written, pipeline = json.loads(report.read_text()), Classifier.from_pretrained(folder, threads=1)
    assert isinstance(pipeline.policies.routers[1], DeferAll)
    assert pipeline.certificate is not None
    assert [share for share, _ in written["figures"]["answered"]][1] == 0
    texts = [row["text"] for row in lines(data.read_text())]
    assert 2 not in pipeline.predict(texts).routes.tier
    plain = run.well(*asked, "--no-guarantee")
    assert told in plain.out
    assert ", full tier 3 " in plain.out
