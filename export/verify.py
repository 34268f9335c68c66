"""ONNX against torch: nothing is written that does not answer as its checkpoint does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cascade.core.rows import FloatArray, IntArray, Units
from cascade.engine.packing import Packing, padded
from cascade.exceptions import BundleError
from cascade.policies.batching import SortedByLength, batches
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.tagging import MultiExitTagger
from cascade_export.packed.chain import Encoded, at_words, chain_logits, per_token, tokens, units
from cascade_export.packed.graphs import TierTwoGraphs

__all__ = ["SAMPLES", "TOLERANCE", "check", "check_tier2", "random_exits", "torch_tier1", "torch_tier2"]

TOLERANCE = 1e-4  # of the largest logit, if that is above 1; fp32 graphs differ from torch by about 1e-6
SAMPLES = (
    "Good.",
    "I would not watch it again.",
    "Where can I change the date of my trip?",
    "The room was clean, the staff were kind, and the breakfast was the best we had all week.",
    "It starts well, but after an hour nothing has happened and nobody on the screen seems to mind.",
    "not bad at all",
    "Please cancel my order and tell me when the money is back on my account.",
    "How do I say thank you in Finnish?",
    "ok",
    "The second half is a mess: too many people, too many endings, and a song that nobody needed.",
    "What will the weather be like tomorrow morning?",
    "My card was declined twice at the same shop.",
    "A quiet, patient film that trusts its audience, and one of the few this year that I will think about again.",
    "Set an alarm for half past six.",
    "Honestly? I expected worse.",
    "The battery lasts two days; the camera, on the other hand, is only fit for sunny afternoons.",
    "Who wrote this, and why did nobody stop them?",
    "Turn the lights in the kitchen off.",
    "We waited for forty minutes, the soup was cold and the bill was wrong, so no, we shall not come back.",
    "Remind me to call my sister on Sunday.",
    "It works.",
    "A funny, warm and slightly silly story about two brothers who inherit a bakery.",
    "What is the exchange rate between euros and yen?",
    "I do not understand what this button does.",
    "There is not a dull minute in it.",
    "The plot has holes that you could drive a train through, yet I laughed until I cried.",
    "Send 20 to Anna for the tickets.",
    "Meh.",
    "Is there a vegetarian dish on the menu that is not a salad?",
    "The lecture was long, dry, badly lit and, strangely enough, fascinating from beginning to end.",
    "It could have been great.",
    "The parcel arrived a day early and in perfect condition.",
)
"""Sentences of everyday kinds and lengths, for when no calibration texts are given."""


def check_tier2(
    graphs: TierTwoGraphs,
    model: MultiExitModel | MultiExitTagger,
    batch: Encoded,
    rows: IntArray,
    reference: FloatArray,
    *,
    names: Sequence[str],
    position_offset: int,
) -> list[float]:
    """Compare every stage with torch: at full depth, and of a tagger with words leaving at random too.

    Args:
        graphs: fp32.
        model: what they were made of.
        batch: texts or sentences.
        rows: those that are compared. Shape `(compared,)`.
        reference: the graphs' logits of the whole batch. Shape `(rows or words, exits, labels)`.
        names: of the stages, for messages.
        position_offset: position id of a row's first token.

    Returns:
        Each stage's largest difference.

    Raises:
        BundleError: one is above the tolerance.
    """
    part, exits = batch.select(rows), range(len(names))
    found, expected = reference[units(batch, rows)], torch_tier2(model, part)
    differences = [check(names[i], found[:, i], expected[:, i]) for i in exits]
    if not isinstance(part, Units):
        return differences
    leaving = random_exits(part, len(names))
    found = chain_logits(graphs, part, position_offset=position_offset, exits=leaving)
    expected = torch_tier2(model, part, exits=leaving)
    for i in exits:
        inside = leaving >= i
        if inside.any():
            halted = check(f"{names[i]}, with words that have left,", found[inside, i], expected[inside, i])
            differences[i] = max(differences[i], halted)
    return differences


def torch_tier2(
    model: MultiExitModel | MultiExitTagger, batch: Encoded, *, exits: IntArray | None = None
) -> FloatArray:
    """The checkpoint's own logits.

    Args:
        model: in evaluation mode.
        batch: texts for a classifier, sentences for a tagger.
        exits: as for `chain.chain_logits`.

    Returns:
        Shape `(rows or words, exits, labels)`. Of a word that has left: what the head says of the state that it kept.
    """
    depth = model.layers[-1]
    layers = np.array(model.layers, np.int64)

    def run(rows: IntArray, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        stops = {}
        if exits is not None and isinstance(batch, Units):
            part = batch.select(rows)
            packing = Packing.of(part.rows.lengths)
            last = per_token(part, layers[exits[units(batch, rows)]], others=depth)
            stops["exit_layers"] = torch.from_numpy(np.where(packing.mask, last[packing.gather], depth))
        logits: torch.Tensor = model(ids, mask, types, **stops)["logits"]
        return logits

    return _in_batches(run, batch)


def torch_tier1(model: Any, batch: Encoded, *, max_length: int) -> FloatArray:
    """The checkpoint's own logits. Shape `(rows or words, labels)`."""
    takes_types = getattr(model.config, "type_vocab_size", 0) > 1

    def run(_rows: IntArray, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs |= {"token_type_ids": types} if takes_types else {}
        logits: torch.Tensor = model(**inputs).logits
        return logits

    return _in_batches(run, batch, max_length=max_length)


def random_exits(words: Units, exits: int) -> IntArray:
    """An exit for each word, from 0, drawn with equal chances; the same for the same words. Shape `(words,)`."""
    return np.random.default_rng(len(words)).integers(0, exits, len(words))


def check(name: str, found: FloatArray, expected: FloatArray) -> float:
    """Compare a graph's logits with torch's.

    Args:
        name: of the graph, for the message.
        found: from the graph. Any shape.
        expected: from torch. The same shape.

    Returns:
        The largest absolute difference.

    Raises:
        BundleError: it is above the tolerance.
    """
    difference = float(np.abs(found - expected).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:  # not "above": a NaN must fail
        raise BundleError(
            f"{name} must answer as its checkpoint within {allowed:.0e}, the largest difference was {difference:.1e}; "
            "nothing was written; use the versions of torch and transformers that trained the checkpoint"
        )
    return difference


def _in_batches(run: Any, batch: Encoded, *, max_length: int = 1 << 30) -> FloatArray:
    """Padded rows of like length through torch, put back in order; of a tagger's grids, what the words' places say."""
    lengths = tokens(batch).lengths
    numbers, parts = [], []
    with torch.no_grad():
        for rows in batches(SortedByLength(32), lengths):
            part = batch.select(rows)
            grids = padded(tokens(part), max_length=min(max_length, int(lengths.max())))
            found = run(rows, *(torch.from_numpy(grid) for grid in grids)).float().numpy()
            parts.append(at_words(found, part) if isinstance(part, Units) else found)
            numbers.append(units(batch, rows))
    ordered: FloatArray = np.concatenate(parts)[np.argsort(np.concatenate(numbers))]
    return ordered
