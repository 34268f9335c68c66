"""Checkpoints and bundles that the tests of the exporter share: read, never written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.bundle.opening import Bundle
from cascade.core.rows import Units
from cascade.text.tokenizer import Tokenizer
from cascade_export import Calibration, ExportOptions, export_bundle
from cascade_export.packed.stages import TierGraphs, export_tier2, pack
from tests.models import tiny, tiny_tagging

LABELLED = Calibration(tiny.TEXTS, ["positive", "positive", "negative", "negative"] * 2, "some texts")
TAGGED = Calibration(tiny_tagging.SENTENCES, tiny_tagging.TAGS, "some sentences")


@pytest.fixture(scope="session")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints `tier2`, `static`, `transformer` of a classifier; `tagger`, `tag-static`, `tag-transformer`."""
    folder = tmp_path_factory.mktemp("tiers")
    tiny.tier2(folder / "tier2", depth=2)
    padded = tiny.tokenizer()  # as a trainer may leave it
    padded.enable_padding()
    padded.enable_truncation(5)
    padded.save(str(folder / "tier2" / "tokenizer.json"))
    tiny.tier1_static(folder / "static")
    tiny.tier1_transformer(folder / "transformer")
    tiny.tagger(folder / "tagger", depth=2)
    tiny_tagging.tier1_static(folder / "tag-static")
    tiny_tagging.tier1_transformer(folder / "tag-transformer")
    return folder


@pytest.fixture(scope="session")
def exported(tiers: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """The bundle with this first tier, labelled texts or tagged sentences having calibrated it; int8 at any price."""
    made: dict[str, Bundle] = {}

    def bundle_of(tier1: str) -> Bundle:
        if tier1 not in made:
            tier2, calibration = ("tagger", TAGGED) if tier1.startswith("tag") else ("tier2", LABELLED)
            output, options = tmp_path_factory.mktemp("bundle") / "out", ExportOptions(agreement=0)
            made[tier1] = export_bundle(tiers / tier2, tiers / tier1, output, calibration=calibration, options=options)
        return made[tier1]

    return bundle_of


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> TierGraphs:
    """Packed graphs of a tiny classifier."""
    return export_tier2(pack(tiny.tier2(tmp_path_factory.mktemp("tier2"), width=32)))


@pytest.fixture(scope="module")
def batch() -> Units:
    """Rows of texts that it can read."""
    return Tokenizer(tiny.tokenizer(), max_length=64).encode(tiny.TEXTS * 3).units
