"""The static tagger: what a piece sees of its neighbours, and how it begins from its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascade.training.models.static_tagger import StaticForTokenClassification, StaticTaggerConfig
from cascade.training.models.students import StaticTagger, Transformer, principal_components
from tests.models import tiny

IDS = torch.tensor([[2, 40, 50, 60, 70, 80, 3]])
ALL = torch.ones_like(IDS)


def made(*, reach: int = 1, layers: int = 1, sentence: bool = False) -> StaticForTokenClassification:
    torch.manual_seed(0)
    config = StaticTaggerConfig(
        vocab_size=160, width=4, hidden=5, reach=reach, layers=layers, sentence=sentence, num_labels=3
    )
    model = StaticForTokenClassification(config)
    tiny.spread(model)
    model.train(False)
    return model


def logits(model: torch.nn.Module, ids: torch.Tensor = IDS, mask: torch.Tensor = ALL) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(ids, mask).logits
    return found


def test_a_piece_by_hand() -> None:
    """Three embeddings side by side, one linear layer, GELU, one linear layer; zeros beyond the ends."""
    model = made(reach=1)
    table, layer = model.embeddings.weight, model.hidden[0]
    zeros = torch.zeros(4)
    for place in range(IDS.shape[1]):
        near = [table[IDS[0, at]] if 0 <= at < IDS.shape[1] else zeros for at in (place - 1, place, place + 1)]
        hidden = torch.nn.functional.gelu(layer(torch.cat(near)))
        torch.testing.assert_close(logits(model)[0, place], model.out(hidden))


@pytest.mark.parametrize(("reach", "layers"), [(0, 1), (1, 1), (2, 1), (1, 2), (2, 2)])
def test_how_far_a_piece_sees(reach: int, layers: int) -> None:
    model = made(reach=reach, layers=layers)
    changed = IDS.clone()
    changed[0, 0] = 100
    same = torch.isclose(logits(model), logits(model, changed), atol=0, rtol=0).all(-1)[0].tolist()
    sees = reach * layers
    assert same == [place > sees for place in range(IDS.shape[1])]


def test_a_whole_sentence_by_hand() -> None:
    """The mean of all embeddings through a layer of its own, added before GELU."""
    model = made(reach=0, sentence=True)
    states = model.embeddings.weight[IDS[0]]
    inner = model.hidden[0](states) + model.about[0](states.mean(0))
    torch.testing.assert_close(logits(model)[0], model.out(torch.nn.functional.gelu(inner)))


@pytest.mark.parametrize("sentence", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_padding_changes_nothing(layers: int, sentence: bool) -> None:
    model = made(reach=2, layers=layers, sentence=sentence)
    padded = torch.cat((IDS, torch.tensor([[5, 6, 7]])), dim=1)
    mask = torch.cat((ALL, torch.zeros(1, 3, dtype=torch.long)), dim=1)
    torch.testing.assert_close(logits(model, padded, mask)[:, :7], logits(model))


def test_round_trip(tmp_path: Path) -> None:
    model = made(reach=2, layers=2)
    model.save_pretrained(tmp_path)
    again = StaticForTokenClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again), logits(model))
    assert (again.config.model_type, again.config.reach, again.config.layers) == ("cascade_static_tagger", 2, 2)


def test_dropout_takes_whole_tokens_in_training_only() -> None:
    model = made(reach=0)
    torch.testing.assert_close(logits(model), logits(model), atol=0, rtol=0)
    model.config.dropout = 0.5
    model.dropout.p = 0.0
    model.train()
    nothing = model.out(torch.nn.functional.gelu(model.hidden[0](torch.zeros(4))))
    many = IDS.repeat(100, 1)
    dropped = torch.isclose(logits(model, many, torch.ones_like(many)), nothing).all(-1).float().mean()
    assert 0.4 < float(dropped) < 0.6


@pytest.mark.parametrize("width", [8, 24])
def test_a_static_student_begins_with_its_teachers_embeddings(width: int, tmp_path: Path) -> None:
    teacher = tiny.tagger(tmp_path)
    student: Any = StaticTagger(width=width).build_tagger(teacher)
    embeddings: Any = teacher.backbone.get_input_embeddings()
    found, wanted = (torch.pdist(table.weight.detach()) for table in (student.embeddings, embeddings))
    # Projection onto the first components keeps most of the distances; all of them where nothing is left out.
    assert np.corrcoef(found.numpy(), wanted.numpy())[0, 1] > (0.7 if width < 16 else 0.9999)
    assert [student.config.id2label[number] for number in range(3)] == list(tiny.TAGS)


def test_a_transformer_student_begins_with_its_teachers_layers(tmp_path: Path) -> None:
    teacher = tiny.tagger(tmp_path)
    same: Any = Transformer(layers=2, width=16, heads=2).build_tagger(teacher)
    with torch.inference_mode():
        found = same.bert.eval()(IDS).last_hidden_state
        torch.testing.assert_close(found, teacher.states(IDS, ALL, None)[2])
    narrow: Any = Transformer(layers=1, width=8, heads=2).build_tagger(teacher)
    embeddings: Any = teacher.backbone.get_input_embeddings()
    table = embeddings.weight.detach()
    torch.testing.assert_close(narrow.bert.embeddings.word_embeddings.weight, table @ principal_components(table, 8))
