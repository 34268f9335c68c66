"""`cascade-train prune`: narrower feed-forward parts, from texts without labels and without gradients.

Layer by layer, the neurons whose removal costs least once the others stand in for them go (Optimal Brain Surgeon,
Hassibi and Stork, NeurIPS 1992, equation 5, for all outputs of a layer at once), and the weights of the others are
fitted so that the layer makes of the narrower model's states what it made of the original's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cascade.core.checks import check_inside
from cascade.exceptions import DataError, OptionError
from cascade.policies.batching import TokenBudget, batches
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.data import TrainingRows, grids, tokenizer_of
from cascade.training.loop import LoopOptions
from cascade.training.models.families import FAMILIES, Family
from cascade.training.models.teacher import Teacher, WholeModel, teacher_of
from cascade.training.run import Run

STEP = 64  # neurons that go at once; widths are multiples of it, as int8 products like them
FEWEST, MOST = 5, 10  # tokens: for each neuron that stays at least, for each that was there at most
RIDGE = 1e-3  # of the neurons' mean variance: how firmly weights stay what they were
TYPES = [name for name, own in FAMILIES.items() if own.layer != "gated" and name != "albert"]  # its layers are one


Errors: TypeAlias = dict[str, float]
"""Shares of the variance of a layer's outputs: `error`, that is lost; `unfitted`, that were with the old weights."""


@dataclass(frozen=True)
class PruneOptions:
    """What a user chooses of a narrower model.

    Attributes:
        ffn: share of the neurons of each feed-forward part that stay, above 0 and below 1, to the nearest 64.
        max_length: tokens per row at most.
    """

    ffn: float = 0.5
    max_length: int = 128

    def __post_init__(self) -> None:
        check_inside("ffn", self.ffn, "0.5 is usual")


def prune(run: Run, options: PruneOptions | None = None) -> dict[str, Any]:
    """Write a checkpoint of the same kind with narrower feed-forward parts.

    `run` is from a folder that `cascade-train exits` wrote or a fine-tuned model; of its `train` files, without labels,
    a random part is read: ten tokens for each neuron. The report, which also stands in `training.json`, has of each
    layer the share of its outputs' variance that is lost, `error`, and what were lost if the weights that stay were as
    before, `unfitted`. A `DataError`: the texts are too few; an `OptionError`: a model of another family; a share that
    leaves nothing, or everything.
    """
    options, task = options or PruneOptions(), run.task
    run.begin(LoopOptions())
    model = teacher_of(run.source, task.model)
    kind = model.config.model_type
    if kind not in TYPES:
        raise OptionError(f"prune takes a model_type of {', '.join(TYPES)}, got {kind}; leave it as it is")
    name = "hidden_dim" if hasattr(model.config, "hidden_dim") else "intermediate_size"
    full: int = getattr(model.config, name)
    width = round(options.ffn * full / STEP) * STEP
    if not 0 < width < full:
        told = f"--ffn must leave a multiple of {STEP} of the {full} neurons of a layer, and fewer than all"
        raise OptionError(f"{told}, got {options.ffn:g}; 0.5 is usual")
    text = task.tokenizer(load_tokenizer_text(run.source))
    tokenizer = tokenizer_of(text, max_length=min(options.max_length, model.longest))
    (examples,), _ = run.read(require_labels=False)
    rows = task.encode(tokenizer, examples, names=model.labels, multi_label=model.multi_label)
    order = np.random.default_rng(0).permutation(len(rows))
    read = np.cumsum(rows.units.rows.lengths[order])
    if read[-1] < FEWEST * width:
        raise DataError(
            f"{examples.source}: there must be {FEWEST} tokens for each of the {width} neurons that stay, "
            f"{FEWEST * width}, got {read[-1]}; give more texts, or a smaller --ffn"
        )
    rows = rows.select(order[: np.searchsorted(read, MOST * full) + 1])
    layers = narrow(model, rows, FAMILIES[kind], width=width)
    setattr(model.config, name, width)
    saved: Any = model.model if isinstance(model, WholeModel) else model
    details = {"rows": len(rows), "neurons": width, "scores": {}, "layers": layers}
    return run.finish("prune", saved, text, options, max_length=tokenizer.max_length, details=details)


@torch.no_grad()
def narrow(model: Teacher, rows: TrainingRows, family: Family, *, width: int) -> list[Errors]:
    """Leave `width` neurons of each feed-forward part of a model, in place; of each layer `error` and `unfitted`."""
    layers = family.layers(model.backbone)
    grid = [grids(rows.select(own), padding=model.padding) for own in batches(TokenBudget(), rows.units.rows.lengths)]
    inside = [batch["attention_mask"].bool() for batch in grid]
    entered = [_entered(model, layers, batch) for batch in grid]
    hidden = wanted = [states for states, _ in entered]
    found = []
    for number, layer in enumerate(tqdm(layers, desc="prune", unit="layer")):
        expand, contract, norm = (
            layer.get_submodule(own) for own in (family.parts.expand, family.parts.contract, family.parts.output_norm)
        )
        run = [partial(_ran, own[number], contract, norm) for _, own in entered]
        made = [own(states) for own, states in zip(run, wanted, strict=True)]
        neurons, targets = list[Tensor](), list[Tensor]()
        for own, states, (_, _, _, aim), mask in zip(run, hidden, made, inside, strict=True):
            _, inner, given, summed = own(states)
            neurons.append(inner[mask])
            targets.append((aim - summed + given)[mask])
        keep, weight, bias, errors = fitted(torch.cat(neurons), torch.cat(targets), contract.weight.T, width)
        found.append({"layer": number + 1} | errors)
        _set(expand, expand.weight[keep], expand.bias[keep])
        _set(contract, weight.T.contiguous(), bias)
        hidden, wanted = [own(states)[0] for own, states in zip(run, hidden, strict=True)], [new for new, *_ in made]
    return found


def kept(covariance: Tensor, weights: Tensor, width: int) -> Tensor:
    """Numbers, rising, of the neurons that stay, in float64.

    A neuron costs what its outputs lose once all others are fitted again: its row of weights, squared, over its place
    on the diagonal of the inverse. What goes is taken out of the inverse, `STEP` neurons at a time, until `width` stay.
    Shapes: `covariance` of the neurons `(neurons, neurons)`, `weights` from them to the outputs `(neurons, outputs)`.
    """
    left = torch.arange(len(covariance), device=covariance.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance + _ridge(covariance)))
    while len(left) > width:
        cost = weights.square().sum(1) / inverse.diagonal()
        order = cost.argsort()
        out, stay = order[: min(STEP, len(left) - width)], order[min(STEP, len(left) - width) :].sort().values
        share = torch.linalg.solve(inverse[out][:, out], inverse[out][:, stay])
        weights = weights[stay] - share.T @ weights[out]
        inverse = inverse[stay][:, stay] - inverse[stay][:, out] @ share
        left = left[stay]
    return left


def fitted(neurons: Tensor, target: Tensor, weights: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor, Errors]:
    """Which neurons stay (`kept`), their new weights and bias, by least squares towards a target, and the errors.

    The new weights are drawn towards those of before. Shapes: `neurons` `(tokens, neurons)`, `target` `(tokens,
    outputs)`, `weights` `(neurons, outputs)`; so many as `width` stay.
    """
    mean, aim = neurons.mean(0), target.mean(0)
    neurons, target, weights = neurons - mean, target - aim, weights.double()
    covariance, energy = (neurons.T @ neurons).double(), target.square().sum().double()
    keep = kept(covariance, weights, width)
    own, cross, old = covariance[keep][:, keep], (neurons[:, keep].T @ target).double(), weights[keep]
    new = old + torch.linalg.solve(own + _ridge(covariance)[:width, :width], cross - own @ old)

    def lost(some: Tensor) -> float:
        return float((((own @ some - 2 * cross) * some).sum() + energy) / energy)

    return keep, new.float(), aim - mean[keep] @ new.float(), {"error": lost(new), "unfitted": lost(old)}


def _ridge(covariance: Tensor) -> Tensor:
    least = RIDGE * covariance.diagonal().mean() + torch.finfo(torch.float64).tiny
    return least * torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)


def _set(linear: nn.Module, weight: Tensor, bias: Tensor) -> None:
    own: Any = linear
    own.weight, own.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    own.out_features, own.in_features = weight.shape


def _entered(
    model: Teacher, layers: Sequence[nn.Module], batch: dict[str, Tensor]
) -> tuple[Tensor, list[Callable[[Tensor], Tensor]]]:
    """States before the first layer, and each layer as a function of states alone."""
    states, calls = list[Tensor](), list[Callable[[Tensor], Tensor]]()

    def enter(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = dict(kwargs)
        states.append(args[0] if args else named.pop("hidden_states", named.pop("x", None)))

        def call(hidden: Tensor) -> Tensor:
            made = layer(hidden, *args[1:], **named)
            return made[0] if isinstance(made, tuple) else made  # type: ignore[no-any-return]

        calls.append(call)

    hooks = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in layers]
    model(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch})
    for hook in hooks:
        hook.remove()
    return states[0], calls


def _ran(
    call: Callable[[Tensor], Tensor], contract: nn.Module, norm: nn.Module, states: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New states; and on the way there the neurons, what they give, and its sum with what came past them."""
    seen = list[Tensor]()
    hooks = (
        contract.register_forward_hook(lambda _module, args, given: seen.extend((args[0], given))),
        norm.register_forward_pre_hook(lambda _module, args: seen.append(args[0])),
    )
    new = call(states)
    for hook in hooks:
        hook.remove()
    neurons, given, summed = seen
    return new, neurons, given, summed
