"""What stays fp32 so that int8 answers as fp32: smoothing first, then tables, then stages."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cascade.core.rows import Units
from cascade_export import ExportOptions
from cascade_export.int8 import quantise
from cascade_export.packed.chain import chain_logits, chain_ranges
from cascade_export.packed.stages import TierGraphs
from cascade_export.texts import Agreement, Sample
from tests.models.graphs import operators, quantised, scaled


@pytest.mark.parametrize("spoilt", [[1], [0, 2], [2]])
def test_stages_that_disagree_go_back_to_fp32(
    graphs: TierGraphs, batch: Units, spoilt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """These stages' ranges are spoilt, so they and no others must stay fp32."""

    def wrong(*given: object, **options: object) -> object:
        embed, *stages = chain_ranges(*given, **options)  # type: ignore[arg-type]  # handed through
        for stage in spoilt:
            stages[stage] = {name: own / np.float32(1000) for name, own in stages[stage].items()}
        return [embed, *stages]

    monkeypatch.setattr(quantise, "chain_ranges", wrong)
    kept = quantised(graphs, batch, bar=0.9)
    assert kept.precisions == ["fp32" if stage in spoilt else "int8" for stage in range(3)]
    assert quantised(graphs, batch, bar=0.0).precisions == ("int8",) * 3
    assert "QuantizeLinear" not in operators(kept.graphs.stages[spoilt[0]])
    assert kept.smoothed
    assert np.array_equal(kept.logits, chain_logits(kept.graphs, batch))


@pytest.mark.parametrize(("bits", "misses", "form"), [(8, 1, "int8"), (7, 1, "int7"), (7, 2, "int8")])
def test_smoothing_comes_before_fp32(
    graphs: TierGraphs, batch: Units, monkeypatch: pytest.MonkeyPatch, bits: int, misses: int, form: str
) -> None:
    answers = iter([Agreement(0.9, 3, 1.0)] * misses + [Agreement(1.0, 0, 0.1)])
    monkeypatch.setattr(Sample, "compare", lambda *given, **options: next(answers))
    kept = quantised(graphs, batch, bar=0.98, weight_bits=bits)
    assert kept.precisions == (form,) * 3
    assert kept.smoothed
    stage = kept.graphs.stages[0]
    assert scaled(stage) == operators(stage).count("QuantizeLinear") == 6


def test_when_everything_disagrees_everything_is_fp32(
    graphs: TierGraphs, batch: Units, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object, **options: object) -> Agreement:
        return Agreement(0.0, 24, 1.0)

    monkeypatch.setattr(Sample, "compare", never)
    kept = quantised(graphs, batch, bar=0.98)
    assert kept.precisions == ["fp32"] * 3
    assert not kept.smoothed


def test_agreement(batch: Units) -> None:
    reference = np.array([[1, 0], [0, 1], [2, 0], [0, 2]], np.float32)
    other = np.array([[1, 0.5], [1, 0], [2, 0], [0, 2]], np.float32)
    single = Sample(batch, np.array([0, 1, 1, 1]))
    multi = Sample(batch, np.array([[1, 0], [0, 1], [1, 1], [0, 1]]), multi_label=True)
    found = single.compare(other, reference)
    assert found == Agreement(share=0.75, different=1, largest=1.0)
    assert found.meets(0.98), "one row alone never fails"
    assert not Agreement(0.9, 2, 1.0).meets(0.98)
    assert multi.compare(-other, reference).different == 4
    shifted = multi.figures(reference - 0.5, reference)
    assert single.figures(reference, reference)["accuracy"] == shifted["accuracy"] == 0.75


def test_sentences_differ_with_any_of_their_words(batch: Units) -> None:
    """The first two words are one sentence, the last is one by itself."""
    reference = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]]
    other, ends = reference.copy(), np.array([2, 5, 6])
    other[:2] = other[:2, ::-1]
    sample = Sample(batch, sentences=ends)
    assert sample.compare(other, reference, by_sentence=True) == Agreement(share=1 - 1 / 3, different=1, largest=1.0)
    assert sample.compare(other, reference).different == 2
    other[5] = other[5, ::-1]
    assert sample.compare(other, reference, by_sentence=True).different == 2
    assert Sample(batch).compare(other, reference, by_sentence=True).different == 3, "texts are whole"


@pytest.mark.parametrize("by_sentence", [False, True])
def test_the_bar_is_of_what_was_asked(
    graphs: TierGraphs, batch: Units, by_sentence: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def compare(*given: object, by_sentence: bool) -> Agreement:
        asked.append(by_sentence)
        return Agreement(1.0, 0, 0.0)

    monkeypatch.setattr(Sample, "compare", compare)
    options = ExportOptions(by_sentence=by_sentence)
    quantise.quantise_tier(graphs, chain_logits(graphs, batch), Sample(batch), options)
    assert asked == [by_sentence]


def test_tables_stay_fp32_before_a_stage_does(
    graphs: TierGraphs, batch: Units, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "quantise_tables", _zeroed)
    kept = quantised(graphs, batch, bar=0.9)
    assert (kept.precisions, kept.smoothed) == (["int8"] * 3, True)
    assert kept.graphs.embed is graphs.embed
    assert np.array_equal(kept.logits, chain_logits(kept.graphs, batch))


def _zeroed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose tables say nothing."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if len(tensor.dims) == 2:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    return made
