"""A tier behind the tiers of a bundle that is finished: `cascade-export --before`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import normalizers

from cascade import Classifier
from cascade.bundle.opening import Bundle
from cascade.exceptions import BundleError, OptionError
from cascade.policies.routing import Threshold, defer_none
from cascade_export import ExportOptions, export_bundle
from cascade_export.cli import main
from tests.export.conftest import LABELLED
from tests.models import tiny

FP32, TEXTS = ExportOptions(int8=False), list(tiny.TEXTS)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with exits of another family and with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("other") / "roberta"
    tiny.tier2(folder, "roberta")
    own = tiny.tokenizer()
    own.normalizer = normalizers.Replace("good", "bad")
    own.save(str(folder / "tokenizer.json"))
    return folder


def test_three_tiers_answer_as_their_bundles(
    exported: Callable[[str], Bundle], tiers: Path, other: Path, tmp_path: Path
) -> None:
    two = exported("static")
    alone = export_bundle(other, None, tmp_path / "alone", calibration=LABELLED, options=FP32)
    options = ExportOptions(int8=False, router=Threshold(0.7))
    made = export_bundle(other, None, tmp_path / "three", calibration=LABELLED, options=options, before=two.folder)
    assert len(made.manifest.tiers) == 3
    assert made.manifest.policies.routers == (*two.manifest.policies.routers, Threshold(0.7))
    assert made.manifest.figures["tier1"] == two.manifest.figures["tier1"]
    assert made.manifest.figures["tier3"] == alone.manifest.figures["tier1"]
    card = (made.folder / "README.md").read_text()
    assert "| tier 3, layer 3 |" in card
    three, first, last = (Classifier.from_pretrained(one.folder, threads=1) for one in (made, two, alone))
    full = three.with_policies(three.policies.full_depth()).predict(TEXTS)
    wanted = last.with_policies(last.policies.full_depth()).predict(TEXTS)
    np.testing.assert_allclose(full.probabilities, wanted.probabilities, atol=1e-5)
    assert set(full.routes.tier) == {3}
    stopped = three.with_policies(replace(three.policies, routers=(three.policies.routers[0], defer_none)))
    np.testing.assert_array_equal(stopped.predict(TEXTS).probabilities, first.predict(TEXTS).probabilities)
    # A fourth one: tokenizers that are already there go along.
    four = export_bundle(tiers / "tier2", None, tmp_path / "four", options=FP32, before=made.folder)
    tokenizers = [tier.tokenizer for tier in four.manifest.tiers]
    assert tokenizers == ["tokenizer.json", "tokenizer.json", "before/tokenizer.json", "tokenizer.json"]
    texts = Classifier.from_pretrained(four.folder, threads=1)
    np.testing.assert_array_equal(
        texts.with_policies(replace(texts.policies, routers=(*three.policies.routers, defer_none)))
        .predict(TEXTS)
        .probabilities,
        three.predict(TEXTS).probabilities,
    )


def test_the_command(exported: Callable[[str], Bundle], other: Path, tmp_path: Path) -> None:
    two = exported("static")
    with pytest.raises(SystemExit) as end:
        main(["--tier2", str(other), "--before", str(two.folder), "--int8", "none", "--output", str(tmp_path / "out")])
    assert end.value.code == 0
    assert len(Classifier.from_pretrained(tmp_path / "out", threads=1).tiers) == 3


def test_tiers_that_do_not_fit(exported: Callable[[str], Bundle], tiers: Path, tmp_path: Path) -> None:
    two = exported("static").folder
    with pytest.raises(OptionError, match="before must be left out with tier1"):
        export_bundle(tiers / "tier2", tiers / "static", tmp_path / "a", options=FP32, before=two)
    tiny.tier2(tmp_path / "turned", labels=tuple(reversed(tiny.LABELS)))
    with pytest.raises(BundleError, match="all tiers must have the same labels, the new one has"):
        export_bundle(tmp_path / "turned", None, tmp_path / "b", options=FP32, before=two)
    options = ExportOptions(int8=False, truncation=True)
    with pytest.raises(BundleError, match="all tiers must have the same truncation, the new one has True"):
        export_bundle(tiers / "tier2", None, tmp_path / "c", options=options, before=two)
