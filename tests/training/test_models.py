"""Multi-exit models: fine-tuned heads are kept, gradients stop and tokens halt where asked, checkpoints round-trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModel, GPT2Config

from cascade.exceptions import DataError, OptionError
from cascade.training.models.multi_exit import MultiExitModel, pool
from tests.models import tiny
from tests.training.commands import Case, fine_tuned

IDS = torch.tensor([[2, 40, 50, 60, 61, 3], [2, 70, 71, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
EXIT_LAYERS = torch.tensor([[3, 1, 2, 2, 3, 3], [3, 1, 1, 3, 3, 3]])
REAL = MASK.bool()


def logits_of(model: torch.nn.Module, **more: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(IDS, MASK, **more)["logits"]
    return logits


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_fine_tuned_head_becomes_the_last_exit(family: str, case: Case, tmp_path: Path) -> None:
    stock = fine_tuned(family, tmp_path, tagging=case.name == "tagging", labels=("c", "b", "a"))
    # The data lack a label and have the others in another order: the checkpoint's stay.
    model = case.model.from_checkpoint(tmp_path, labels=["a", "c"]).eval()
    assert model.labels == ("c", "b", "a")
    with torch.inference_mode():
        wanted = stock(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(logits_of(model)[:, -1], wanted, atol=1e-5, rtol=1e-5)
    assert set(getattr(model, "pooling", ["first"])) == {"first"}
    other = case.model.from_checkpoint(tmp_path, labels=[], pooling="mean").eval()
    assert [*getattr(other, "pooling", ["mean", "mean", "first"])] == ["mean", "mean", "first"]
    torch.testing.assert_close(logits_of(other)[:, -1], wanted, atol=1e-5, rtol=1e-5)
    other.save_pretrained(tmp_path / "again")
    torch.testing.assert_close(logits_of(case.model.from_pretrained(tmp_path / "again")), logits_of(other))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_round_trip_and_going_on(family: str, case: Case, tmp_path: Path) -> None:
    model = case.teacher(tmp_path, family, layers=(1, 3))
    again = case.model.from_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(again), logits_of(model))
    assert (again.layers, again.labels, again.digest()) == ((1, 3), model.labels, model.digest())
    exits: dict[str, Any] = {"layers": [1, 3], "pooling": "mean", "activation": "tanh"}
    if case.name == "tagging":
        exits = {"task": "token-classification", "layers": [1, 3]}
    assert json.loads((tmp_path / "config.json").read_text())["cascade_exits"] == exits
    on = case.model.from_checkpoint(tmp_path, labels=model.labels, dropout=0.25).eval()
    fields = {"distilbert": "attention_dropout", "modernbert": "mlp_dropout"}
    assert getattr(on.config, fields.get(family, "hidden_dropout_prob")) == 0.25
    torch.testing.assert_close(logits_of(on), logits_of(model))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_detached_exits_teach_only_the_layers_since_the_exit_before(family: str, tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path, family, layers=(1, 3))
    table: Any = model.backbone.get_input_embeddings()

    def gradient(exit_: int) -> float:
        model.zero_grad()
        model(IDS, MASK)["logits"][:, exit_].pow(2).sum().backward()
        grad = table.weight.grad
        return 0.0 if grad is None else float(grad.abs().sum())

    assert min(gradient(0), gradient(1)) > 0
    model.configure_training(detach=True, frozen=False)
    assert gradient(0) > 0
    assert gradient(1) == 0


def test_labels_and_their_numbers(tmp_path: Path) -> None:
    names = tuple(f"LABEL_{number}" for number in range(11))
    fine_tuned("bert", tmp_path, labels=names)
    for found in (("0", "2", "10"), ()):
        assert MultiExitModel.from_checkpoint(tmp_path, labels=found).labels == names


def test_a_checkpoint_keeps_its_problem(tmp_path: Path) -> None:
    multi, single = "multi_label_classification", "single_label_classification"
    for name, problem in (("multi", multi), ("single", single), ("silent", None), ("regression", "regression")):
        fine_tuned("bert", tmp_path / name, problem_type=problem)
    for name, asked, wanted in (
        ("multi", False, multi), ("multi", True, multi), ("single", False, single), ("silent", False, single),
        ("silent", True, multi),
    ):  # fmt: skip
        model = MultiExitModel.from_checkpoint(tmp_path / name, labels=[], multi_label=asked)
        assert model.config.problem_type == wanted
    with pytest.raises(OptionError, match="a regression must have one output, got 2; fine-tune one for each"):
        MultiExitModel.from_checkpoint(tmp_path / "regression", labels=[])
    # transformers 5 refuses a single label that is one of one.
    older = [(single, multi)] if int(transformers.__version__.split(".")[0]) < 5 else []
    for problem, wanted in (("regression", "regression"), (None, multi), *older):
        fine_tuned("bert", tmp_path / "one", labels=["LABEL_0"], problem_type=problem)
        made = MultiExitModel.from_checkpoint(tmp_path / "one", labels=["0.5"] if problem == "regression" else [])
        assert made.config.problem_type == wanted
    tiny.tier2(tmp_path / "exits")
    for name in ("single", "exits"):
        with pytest.raises(OptionError, match="--multi-label must fit the checkpoint's problem_type, which is single"):
            MultiExitModel.from_checkpoint(tmp_path / name, labels=[], multi_label=True)


def test_a_hub_id_that_gives_nothing_is_no_folder_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"We couldn't connect to load {name}. Check your internet connection")

    monkeypatch.setattr("cascade.training.models.config.AutoConfig.from_pretrained", refuse)
    with pytest.raises(OptionError, match="to load runs/nowhere; there is no such folder either, check the path"):
        MultiExitModel.from_pretrained("runs/nowhere")


@pytest.mark.parametrize(("found", "multi_label"), [((), False), ((), True), (("a",), False)])
def test_a_pre_trained_checkpoint_needs_labels(found: tuple[str, ...], multi_label: bool, backbone: Path) -> None:
    with pytest.raises(DataError, match="must have at least two labels"):
        MultiExitModel.from_checkpoint(backbone, labels=found, multi_label=multi_label)


@pytest.mark.parametrize(
    ("found", "multi_label", "message"),
    [
        (("0", "1"), True, "several labels must be lists of names, got only 0 and 1; write"),
        (("-1", "2.5"), False, "must be names or whole numbers, got -1; for a regression start from a checkpoint"),
    ],
)
def test_numbers_that_are_no_names(found: tuple[str, ...], multi_label: bool, message: str, backbone: Path) -> None:
    with pytest.raises(DataError, match=message):
        MultiExitModel.from_checkpoint(backbone, labels=found, multi_label=multi_label)


def test_stock_checkpoints_are_refused(tmp_path: Path) -> None:
    fine_tuned("bert", tmp_path / "stock")
    with pytest.raises(OptionError, match=r"must hold a multi-exit model .* see cascade-train exits"):
        MultiExitModel.from_pretrained(tmp_path / "stock")


def test_impossible_models(case: Case) -> None:
    backbone = tiny.encoder(tiny.config("bert"))
    for layers in ((1, 2), (3, 1), (0, 3), (), (1, 1, 3)):
        with pytest.raises(OptionError, match="exits must rise from 1 or more and end at the last layer, 3, got"):
            case.model(backbone, layers=layers)
    other = AutoModel.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10))
    with pytest.raises(OptionError, match=r"model_type must be one of bert, roberta, .*, got gpt2"):
        case.model(other)
    with pytest.raises(OptionError, match="pooling must be mean or first, for all exits or one per exit, got max"):
        MultiExitModel(backbone, pooling="max")
    with pytest.raises(OptionError, match=r"for all exits or one per exit, got \('mean',\)"):
        MultiExitModel(backbone, pooling=("mean",))


def test_mean_pooling_ignores_padding() -> None:
    hidden, mask = torch.tensor([[[1.0], [3.0], [100.0]]]), torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "mean").tolist() == [[2.0]]
    assert pool(hidden, mask, "first").tolist() == [[1.0]]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_halted_tokens_keep_their_state(family: str, tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path, family)
    torch.testing.assert_close(logits_of(model, exit_layers=torch.full_like(IDS, 3)), logits_of(model), atol=0, rtol=0)
    with torch.inference_mode():
        free = model.states(IDS, MASK, None)
        states = model.states(IDS, MASK, None, EXIT_LAYERS)
    torch.testing.assert_close(states[0], free[0])
    torch.testing.assert_close(states[1], free[1])  # everything is active in layer 1
    for layer in (2, 3):
        halted, active = (layer > EXIT_LAYERS) & REAL, (layer <= EXIT_LAYERS) & REAL
        assert torch.equal(states[layer][halted], states[layer - 1][halted])
        assert not torch.isclose(states[layer][active], states[layer - 1][active]).all(-1).any()
    # Layer 2 still sees what layer 1 made of everything; only layer 3 sees old states.
    active = (EXIT_LAYERS >= 2) & REAL
    torch.testing.assert_close(states[2][active], free[2][active])
    assert not torch.allclose(states[3][(EXIT_LAYERS == 3) & REAL], free[3][(EXIT_LAYERS == 3) & REAL], atol=1e-3)


def test_halting_by_hand(tmp_path: Path) -> None:
    """BERT's layers one by one: active tokens ask, every token's last state is asked about."""
    model = tiny.tagger(tmp_path, "bert")
    encoder: Any = model.backbone.encoder
    embeddings: Any = model.backbone.embeddings
    with torch.inference_mode():
        for row, length in enumerate((6, 4)):
            state = embeddings(input_ids=IDS[row : row + 1, :length])[0]
            for number, layer in enumerate(encoder.layer, start=1):
                active = torch.flatten((EXIT_LAYERS[row, :length] >= number).nonzero())
                attention = layer.attention.self
                heads = (-1, attention.num_attention_heads, attention.attention_head_size)
                query = attention.query(state[active]).view(heads)
                key, value = (part(state).view(heads) for part in (attention.key, attention.value))
                scores = torch.einsum("qhd,khd->hqk", query, key) / heads[2] ** 0.5
                context = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).flatten(1)
                attended = layer.attention.output(context, state[active])
                state = state.index_copy(0, active, layer.output(layer.intermediate(attended), attended))
                found = logits_of(model, exit_layers=EXIT_LAYERS)[row, number - 1, :length]
                torch.testing.assert_close(found, model.heads[number - 1](state), atol=1e-5, rtol=1e-5)


def test_halting_ends_with_the_call(tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path)
    before = logits_of(model)
    assert not torch.allclose(logits_of(model, exit_layers=EXIT_LAYERS), before)
    torch.testing.assert_close(logits_of(model), before, atol=0, rtol=0)
    with pytest.raises(IndexError):
        model(IDS + 10_000, MASK, exit_layers=EXIT_LAYERS)
    torch.testing.assert_close(logits_of(model), before, atol=0, rtol=0)
