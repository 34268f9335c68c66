"""What the regression check compares with: it feeds the graphs rightly, padding and all, and answers as the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.engine.packing import Packing
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade_bench.harness.plain import Plain, padded_indices
from cascade_bench.harness.ratios import agreement
from cascade_bench.systems.local import whole
from cascade_export import Calibration, ExportOptions, Int8, export_bundle
from tests.bench.test_harness import TEXTS
from tests.models import tiny


def test_indices_without_padding_are_those_of_the_engine() -> None:
    made = padded_indices(np.ones((4, 5), dtype=np.bool_), 3)
    expected = Packing.of(np.full(4, 5), heads=3).feeds(made)
    assert set(made) == set(expected)
    for name, values in expected.items():
        assert made[name].dtype == values.dtype
        np.testing.assert_array_equal(made[name], values, err_msg=name)


def test_indices_of_padding_by_hand() -> None:
    made = padded_indices(np.array([[True, True, True], [True, False, False]]), 2)
    assert made["head_gather"].tolist() == [[[0, 2, 4], [1, 3, 5]], [[6, 8, 10], [7, 9, 11]]]
    assert made["head_scatter"].tolist() == [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]
    assert made["bias"].tolist() == [[[[0, 0, 0]]], [[[0, -40, -40]]]]
    assert made["counts"].tolist() == [[3], [1]]


def test_it_answers_as_full_depth_does(bundle: Path, classifier: Classifier) -> None:
    plain = Plain.from_folder(bundle, threads=1)
    logits = plain(TEXTS).astype(np.float64)
    made = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(made, whole(classifier).predict(TEXTS).probabilities, atol=1e-5)
    assert agreement(classifier, plain, TEXTS) == 1
    assert agreement(classifier, plain, TEXTS[::-1]) == 1


@pytest.mark.parametrize(("family", "pooling"), [("bert", "mean"), ("roberta", "first")])
def test_padding_is_not_looked_at_by_attention(tmp_path: Path, family: str, pooling: str) -> None:
    tiny.tier2(tmp_path / "tier2", family, pooling=pooling)
    tiny.tier1_static(tmp_path / "tier1")
    # fp32, because int8 products saturate on x86 CPUs without VNNI: there the reference differs from the engine.
    options, calibration = ExportOptions(int8=Int8.NONE), Calibration(tiny.TEXTS, ["positive", "negative"] * 4)
    folders = [tmp_path / name for name in ("tier2", "tier1", "out")]
    bundle = export_bundle(*folders, calibration=calibration, options=options)
    plain = Plain.from_folder(bundle.folder, threads=1)
    texts = [*tiny.TEXTS, "good " * 40]
    np.testing.assert_allclose(plain(texts), np.concatenate([plain([text]) for text in texts]), atol=1e-4)
    assert agreement(Classifier.from_pretrained(bundle.folder, threads=1), plain, texts) == 1


def test_agreement_by_hand(classifier: Classifier) -> None:
    best = whole(classifier).predict(TEXTS[:4]).probabilities.argmax(axis=1)
    best[0] = (best[0] + 1) % 3

    def plain(texts: object) -> Any:
        return np.eye(3)[best]

    assert agreement(classifier, plain, TEXTS[:4]) == 0.75  # type: ignore[arg-type]  # any function answers


def test_an_input_that_it_does_not_know(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / "cascade.json").read_text())
    manifest["tiers"][1]["embed"] = manifest["tiers"][0]["file"]
    for name in ("onnx", "tier2", "tokenizer.json"):
        (tmp_path / name).symlink_to(bundle / name)
    (tmp_path / "cascade.json").write_text(json.dumps(manifest))
    with pytest.raises(OptionError, match=r"every input of onnx/model.onnx, does not know: attention_mask; feed"):
        Plain.from_folder(tmp_path, threads=1)
