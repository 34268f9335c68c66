"""The static first tiers: what a token sees of its neighbours, and that padding says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from cascade.training.models.static import (
    StaticConfig,
    StaticForSequenceClassification,
    StaticForTokenClassification,
    StaticTaggerConfig,
    neighbourhoods,
    side_by_side,
    with_zero,
)
from tests.models import tiny

IDS = torch.tensor([[2, 40, 50, 60, 70, 80, 3]])


COMMON: Any = {"vocab_size": 160, "num_labels": 3}


def built(kind: type[Any], sizes: StaticConfig) -> Any:
    torch.manual_seed(0)
    made = kind(sizes)
    tiny.spread(made)
    return made.eval()


def classifier(reach: int = 0, grams: int = 0) -> Any:
    return built(StaticForSequenceClassification, StaticConfig(width=6, hidden=8, reach=reach, grams=grams, **COMMON))


def tagger(*, reach: int = 1, layers: int = 1, sentence: bool = False) -> Any:
    sizes = StaticTaggerConfig(width=4, hidden=5, reach=reach, layers=layers, sentence=sentence, **COMMON)
    return built(StaticForTokenClassification, sizes)


def logits(model: nn.Module, ids: Tensor = IDS, *, padding: int = 0) -> Tensor:
    row = torch.cat((ids, torch.full((len(ids), padding), 5)), dim=1)
    mask = torch.cat((torch.ones_like(ids), torch.zeros(len(ids), padding, dtype=torch.long)), dim=1)
    with torch.inference_mode():
        found: Tensor = model(row, mask).logits
    return found


def test_neighbours_side_by_side_are_what_a_convolution_reads() -> None:
    ids = torch.tensor([[3, 1, 8, 0, 5], [2, 2, 7, 6, 4]])
    assert neighbourhoods(ids, 1, absent=9)[0].tolist() == [[9, 3, 1], [3, 1, 8], [1, 8, 0], [8, 0, 5], [0, 5, 9]]
    convolution = nn.Conv1d(4, 5, kernel_size=3, padding=1, bias=False)
    table = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    wanted = convolution(table[ids].transpose(1, 2)).transpose(1, 2)
    weight = convolution.weight.permute(0, 2, 1).reshape(5, 12)
    torch.testing.assert_close(side_by_side(with_zero(table), neighbourhoods(ids, 1, absent=9)) @ weight.T, wanted)


def test_a_classifiers_answer_by_hand() -> None:
    made = classifier(reach=1)
    with torch.no_grad():
        rows = [torch.zeros(6), *made.embeddings.weight[IDS[0]], torch.zeros(6)]
        states = torch.stack([gelu(made.runs(torch.cat(rows[i : i + 3]))) for i in range(IDS.shape[1])])
        weight = torch.exp(made.importance.weight[IDS[0]])
        pooled = torch.cat(((weight * states).sum(0) / (weight.sum() + 1e-6), states.amax(0)))
        wanted = made.out(gelu(made.hidden(made.norm(pooled))))
    torch.testing.assert_close(logits(made)[0], wanted)


def test_a_token_with_the_one_before_it_by_hand() -> None:
    """They are further tokens of the text; a token without a row, here the one at 60, has no part in any."""
    made = built(StaticForSequenceClassification, StaticConfig(width=6, hidden=8, grams=7, rows=159, **COMMON))
    made.places[:] = torch.cat((torch.arange(60), torch.tensor([159]), torch.arange(60, 159)))
    before = [(2, 40), (40, 50), (70, 80), (80, 3)]
    numbers = [2, 40, 50, 69, 79, 3, *(hashed(*pair) - 1 for pair in before)]
    with torch.no_grad():
        weight = torch.exp(made.importance.weight[numbers])
        mean = (weight * made.embeddings.weight[numbers]).sum(0) / (weight.sum() + 1e-6)
        wanted = made.out(gelu(made.hidden(made.norm(mean))))
    torch.testing.assert_close(logits(made, padding=2)[0], wanted)


@pytest.mark.parametrize(("reach", "grams", "same"), [(0, 0, True), (1, 0, False), (0, 50, False)])
def test_only_with_a_reach_or_grams_does_the_order_of_tokens_count(reach: int, grams: int, same: bool) -> None:
    made, swapped = classifier(reach, grams), IDS[:, [0, 2, 1, 3, 4, 5, 6]]
    assert torch.allclose(logits(made), logits(made, swapped), atol=1e-6) is same


def test_a_taggers_token_by_hand() -> None:
    """Three embeddings side by side, one linear layer, GELU, one linear layer; zeros beyond the ends."""
    made = tagger(reach=1)
    rows = [torch.zeros(4), *made.embeddings.weight[IDS[0]], torch.zeros(4)]
    for place in range(IDS.shape[1]):
        hidden = gelu(made.hidden[0](torch.cat(rows[place : place + 3])))
        torch.testing.assert_close(logits(made)[0, place], made.out(hidden))


def test_a_whole_sentence_by_hand() -> None:
    """The mean of all embeddings through a layer of its own, added before GELU."""
    made = tagger(reach=0, sentence=True)
    states = made.embeddings.weight[IDS[0]]
    inner = made.hidden[0](states) + made.about[0](states.mean(0))
    torch.testing.assert_close(logits(made)[0], made.out(gelu(inner)))


@pytest.mark.parametrize(("reach", "layers"), [(0, 1), (1, 1), (2, 1), (1, 2), (2, 2)])
def test_how_far_a_token_sees(reach: int, layers: int) -> None:
    made, changed = tagger(reach=reach, layers=layers), IDS.clone()
    changed[0, 0] = 100
    same = torch.isclose(logits(made), logits(made, changed), atol=0, rtol=0).all(-1)[0].tolist()
    assert same == [place > reach * layers for place in range(IDS.shape[1])]


MODELS = [
    *((classifier, {"reach": reach}) for reach in (0, 1, 2)),
    (classifier, {"grams": 7}),
    *((tagger, {"reach": 2, "layers": layers, "sentence": own}) for layers in (1, 2) for own in (False, True)),
]


@pytest.mark.parametrize(("build", "sizes"), MODELS)
def test_padding_and_saving_change_nothing(build: Any, sizes: dict[str, Any], tmp_path: Path) -> None:
    made = build(**sizes)
    found = logits(made, padding=3)
    torch.testing.assert_close(found if build is classifier else found[:, : IDS.shape[1]], logits(made))
    made.save_pretrained(tmp_path)
    again = type(made).from_pretrained(tmp_path)
    assert {name: getattr(again.config, name) for name in sizes} == sizes
    torch.testing.assert_close(logits(again), logits(made))


def test_sizes_that_a_checkpoint_does_not_tell_are_the_old_ones() -> None:
    """`config.json` leaves defaults out, so they are part of its format."""
    first, second = StaticConfig(), StaticTaggerConfig()
    assert (first.width, first.hidden, first.reach, first.grams) == (256, 256, 0, 0)
    assert (second.width, second.hidden, second.reach, second.layers, second.sentence) == (192, 256, 2, 1, False)


@pytest.mark.parametrize(("build", "sizes"), MODELS[:2] + MODELS[3:5])
def test_dropout_takes_whole_tokens_in_training_only(build: Any, sizes: dict[str, Any]) -> None:
    made, others = build(**sizes), IDS + 7
    made.config.dropout, made.dropout.p = 1.0, 0.0
    assert not torch.allclose(logits(made), logits(made, others))
    made.train()
    torch.testing.assert_close(logits(made), logits(made, others))


def hashed(first: int, second: int) -> int:
    return 160 + (first * 1_000_003 + second * 7919) % 7


@pytest.mark.parametrize("grams", [0, 7])
def test_a_pairs_texts_are_read_apart(grams: int) -> None:
    """By hand, and a text alone has no second one."""
    sizes = StaticConfig(width=6, hidden=8, separator=3, grams=grams, **COMMON)
    made = built(StaticForSequenceClassification, sizes)
    row = [2, 40, 50, 3, 60, 70, 80, 3]
    pairs = [*map(hashed, row, row[1:])] if grams else []

    def pooled(ids: list[int]) -> Tensor:
        weight = torch.exp(made.importance.weight[ids])
        found: Tensor = made.norm((weight * made.embeddings.weight[ids]).sum(0) / (weight.sum() + 1e-6))
        return found

    with torch.no_grad():
        for length, first, second in ((8, row[:4] + pairs[:3], row[4:] + pairs[3:]), (4, row[:4] + pairs[:3], [])):
            a, b = pooled(first), pooled(second)
            wanted = made.out(gelu(made.hidden(torch.cat((a, b, (a - b).abs(), a * b)))))
            ids = torch.tensor([row[:length]])
            torch.testing.assert_close(logits(made, ids)[0], wanted)
            torch.testing.assert_close(logits(made, ids, padding=2)[0], wanted)


@pytest.mark.parametrize("sizes", [{"reach": 0}, {"reach": 1}, {"grams": 7}])
def test_padding_says_nothing_beside_a_pair(sizes: dict[str, Any]) -> None:
    made = built(StaticForSequenceClassification, StaticConfig(width=6, hidden=8, separator=3, **sizes, **COMMON))
    row = torch.tensor([[2, 40, 50, 3, 60, 70, 80, 3]])
    torch.testing.assert_close(logits(made, row, padding=3), logits(made, row))


@pytest.mark.parametrize(("build", "sizes"), [own for own in MODELS if "grams" not in own[1]])
def test_a_table_of_some_tokens(build: Any, sizes: dict[str, Any], tmp_path: Path) -> None:
    """Tokens with a row answer as in a table of all; one without is read like a row of zeros that weighs nothing."""
    pieces = IDS[0, 1:]
    whole = build(**sizes)
    with torch.no_grad():
        whole.embeddings.weight[2] = 0
        if build is classifier:
            whole.importance.weight[2] = -1e9
    small = type(whole)(type(whole.config)(**whole.config.to_dict() | {"rows": len(pieces)})).eval()
    kept = dict(whole.state_dict())
    tables = {name: tensor[pieces] for name, tensor in kept.items() if len(tensor) == 160}
    places = torch.full((160,), len(pieces))
    places[pieces] = torch.arange(len(pieces))
    small.load_state_dict(kept | tables | {"places": places})
    if sizes.get("reach") and build is classifier:  # there even the state of a place without a token counts
        torch.testing.assert_close(logits(small, IDS[:, 1:]), logits(whole, IDS[:, 1:]))
    else:
        torch.testing.assert_close(logits(small), logits(whole))
    small.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(type(small).from_pretrained(tmp_path)), logits(small))
