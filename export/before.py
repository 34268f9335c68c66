"""Tiers of a finished bundle in front of a tier that is new: a cascade of any number, one export at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import Bundle
from cascade.bundle.tiers import TOKENIZER_FILE
from cascade.exceptions import BundleError
from cascade.policies.routing import Router

ALIKE = ("task", "problem_type", "labels", "truncation", "encode_special_tokens")


def behind(
    bundle: Bundle, manifest: Manifest, files: Mapping[str, bytes | Path], tokenizer: str, router: Router
) -> tuple[Manifest, dict[str, bytes | Path]]:
    """The tiers of a bundle, and behind them those of a manifest, with the files of both.

    Args:
        bundle: its tiers keep graphs, tokenizer, policies and figures.
        manifest: of the new tier, whose number, and so whose paths, come after the bundle's.
        files: of the new tier.
        tokenizer: text of its `tokenizer.json`, which the bundle's tiers share if it is theirs.
        router: what the bundle's last tier defers.

    Raises:
        BundleError: they are not for the same task and labels, or read texts in another way.
    """
    for name in ALIKE:
        given, new = getattr(bundle.manifest, name), getattr(manifest, name)
        if given != new:
            raise BundleError(
                f"all tiers must have the same {name}, the new one has {new}, {bundle.folder} has {given}; export both "
                "alike"
            )
    placed: dict[str, bytes | Path] = {}
    tiers = []
    for tier in bundle.manifest.tiers:
        placed |= {path: bundle.path(path) for path in tier.graphs}
        same = json.loads(bundle.read(tier.tokenizer)) == json.loads(tokenizer)
        where = TOKENIZER_FILE if same else f"before/{tier.tokenizer.removeprefix('before/')}"
        placed |= {} if same else {where: bundle.path(tier.tokenizer)}
        tiers.append(replace(tier, tokenizer=where))
    under, own = bundle.manifest.policies, manifest.policies
    policies = replace(
        own,
        routers=(*under.routers, router, *own.routers),
        exits=under.exits + own.exits,
        temperatures=under.temperatures + own.temperatures,
        blend=(*under.blend, 0.0, *own.blend),
    )
    figures = {name: row for name, row in bundle.manifest.figures.items() if name.startswith("tier")}
    merged = replace(
        manifest, tiers=(*tiers, *manifest.tiers), policies=policies, figures={**figures, **manifest.figures}
    )
    return merged, placed | dict(files)
