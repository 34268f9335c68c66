"""A bundle's operating point: observed on labelled texts, chosen by `cascade.calibration`, written into the bundle."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cascade.bundle.opening import Bundle
from cascade.bundle.writing import copy_bundle
from cascade.calibration import Costs, Examples, OperatingPoint, observe
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.policies import exits, routing
from cascade.policies.exits import MaxProbability
from cascade.policies.routing import DeferNone
from cascade_bench.data import Labelled

__all__ = ["Observed", "export_options", "look", "write"]


@dataclass(frozen=True)
class Observed:
    """What the tiers of a bundle say about labelled texts, and what they cost here."""

    examples: Examples
    costs: Costs


def look(
    classifier: Classifier,
    data: Labelled,
    *,
    tier1_share: float | None = None,
    progress: Callable[[int], object] | None = None,
) -> Observed:
    """Run both tiers once. Windows of a long document count as one example each.

    Args:
        classifier: whose tiers run.
        data: labelled texts.
        tier1_share: cost of tier 1 as a share of tier 2; then layers are counted and nothing is timed.
        progress: called with rows done, twice for each row.
    """
    begin = time.perf_counter()
    encoded = classifier.tokenizer.encode(data.texts)
    seconds = time.perf_counter() - begin
    examples, costs = observe(
        classifier.tier1,
        classifier.tier2,
        encoded.units.rows,
        data.targets[encoded.numbers],
        tokenize_seconds=seconds,
        progress=progress,
    )
    if tier1_share is not None:
        costs = Costs.by_layers(examples.layers, tier1=tier1_share)
    return Observed(examples, costs)


def export_options(point: OperatingPoint) -> str | None:
    """What to give `cascade-export` for this point; `None` where its options cannot say it."""
    router, policy = point.router, point.exit_policy
    threshold = 0.0 if isinstance(router, DeferNone) else getattr(router, "threshold", None)
    if (
        point.blend
        or threshold is None
        or not isinstance(policy, MaxProbability)
        or isinstance(policy.threshold, tuple)
    ):
        return None
    return f"--threshold {threshold!r} --exit-threshold {policy.threshold!r}"


def write(classifier: Classifier, point: OperatingPoint, *, model: str, data: str, max_drop: float) -> None:
    """Make the point the default of a bundle on this disk, whole or not at all; its figures say what it was chosen on.

    Args:
        classifier: loaded from the bundle.
        point: what to write.
        model: the bundle's folder, as the user named it.
        data: the file of examples, for the figures.
        max_drop: the bound, for the figures.

    Raises:
        OptionError: the bundle is not a folder of this disk.
    """
    if not Path(model).expanduser().is_dir():
        raise OptionError(f"--write needs a bundle in a folder, was: {model}; download it, or use save_pretrained")
    router, policy = routing.to_json(point.router), exits.to_json(point.exit_policy)
    chosen: dict[str, Any] = {
        "router": router,
        "exit_policy": policy,
        "data": Path(data).name,
        "max_drop": max_drop,
        **{
            name: getattr(point, name)
            for name in ("blend", "accuracy", "drop", "drop_error", "deferred", "mean_layer", "predicted_speed_up")
        },
    }
    bundle = classifier.bundle
    manifest = replace(bundle.manifest, figures={**bundle.manifest.figures, "operating_point": chosen})
    copy_bundle(
        Bundle(bundle.folder, manifest),
        bundle.folder,
        router=router,
        exit_policy=policy,
        blend=point.blend,
        overwrite=True,
    )
