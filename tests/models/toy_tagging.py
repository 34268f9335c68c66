"""A toy tagger in numpy with the graphs' interface, sentences for it, and a masked oracle of halt-and-copy.

One layer per stage: attention of every active token to all tokens of its sentence, then tanh. The oracle computes every
layer for all tokens, one sentence at a time, and copies where a token is halted. Both round as they go, so that the
order of sums does not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.core.confidence import probabilities
from cascade.core.rows import FloatArray, IntArray, Rows, Units
from cascade.runtime.backend import Array
from tests.models.toy import HEADS, LAYERS, SIZE, WIDTH, Toy

VOCABULARY = 60
INDICES = ("head_gather", "active", "query_head_gather", "head_scatter", "words")
Floats = npt.NDArray[np.float64]


@dataclass
class ToyTagger(Toy):
    """Tiers of numpy, and what they were asked."""

    per_unit = True
    stage_inputs = ("hidden", "bias", *INDICES)

    actives: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.table = rng.normal(size=(VOCABULARY, WIDTH))
        self.types = rng.normal(size=(2, WIDTH))
        self.query, self.key, self.value, self.own = rng.normal(size=(4, self.exits, WIDTH, WIDTH))
        self.heads = 3 * rng.normal(size=(self.exits + 1, WIDTH, self.labels))

    def stage(self, index: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        assert all(feeds[name].dtype == np.int64 for name in INDICES)
        self.calls += 1
        self.tokens += len(feeds["hidden"])
        self.actives += len(feeds["active"])
        hidden = feeds["hidden"].astype(np.float64)
        mine = hidden[feeds["active"]]
        query = (mine @ self.query[index]).round(9).reshape(-1, SIZE)[feeds["query_head_gather"]]
        key, value = (
            (hidden @ weight[index]).reshape(-1, SIZE)[feeds["head_gather"]] for weight in (self.key, self.value)
        )
        seen = attend(query, key, value, feeds["bias"].astype(np.float64))
        seen = seen.reshape(-1, SIZE)[feeds["head_scatter"]].reshape(-1, WIDTH)
        new = np.tanh((mine @ self.own[index] + seen).round(5))
        logits = (new[feeds["words"]] @ self.heads[index]).round(4)
        return {"hidden_out": new.round(5).astype(np.float32), "logits": logits.astype(np.float32)}

    def padded(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        mask = feeds["attention_mask"][..., None]
        hidden = self.table[feeds["input_ids"]] + self.types[feeds["token_type_ids"]]
        mean = (hidden * mask).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
        return {"logits": ((hidden + mean).round(6) @ self.heads[-1]).round(4).astype(np.float32)}

    def oracle(self, words: Units, exits: IntArray, position_offset: int = 0) -> FloatArray:
        """Probabilities of every word at every exit, where words halt after the layers `exits`, of shape `(words,)`.

        Returns:
            Shape `(words, exits, labels)`; of exits later than a word's own: of its copied state.
        """
        result = np.zeros((len(words), self.exits, self.labels), dtype=np.float32)
        for row in range(words.n_rows):
            begin, end = words.rows.offsets[row : row + 2]
            mine = range(words.offsets[row], words.offsets[row + 1])
            halts = np.full(end - begin, max(LAYERS))  # special tokens never do
            for word in mine:
                first = words.first_token[word] - begin
                halts[first : first + words.n_tokens[word]] = exits[word]
            feeds = {
                "input_ids": words.rows.ids[begin:end],
                "token_type_ids": words.rows.types[begin:end],
                "position_ids": np.arange(end - begin) + position_offset,
            }
            hidden = self.embed(feeds)["hidden"].astype(np.float64)
            for index in range(self.exits):
                query = (hidden @ self.query[index]).round(9)
                key, value = hidden @ self.key[index], hidden @ self.value[index]
                heads = (states.reshape(-1, HEADS, SIZE).swapaxes(0, 1) for states in (query, key, value))
                seen = attend(*heads).swapaxes(0, 1).reshape(-1, WIDTH)
                new = np.tanh((hidden @ self.own[index] + seen).round(5))
                active = (halts >= LAYERS[index])[:, None]
                raw = np.where(active, new, hidden)
                hidden = raw.round(5).astype(np.float32).astype(np.float64)
                for word in mine:
                    logits = (raw[words.first_token[word] - begin] @ self.heads[index]).round(4)
                    result[word, index] = probabilities(logits.astype(np.float32))
        return result


def attend(query: Floats, key: Floats, value: Floats, bias: Floats | float = 0.0) -> Floats:
    """`[..., queries, size]` by `[..., tokens, size]`, with `bias` added to the scores `[..., queries, tokens]`."""
    scores = np.einsum("...qw,...kw->...qk", query, key) + bias
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    seen: Floats = np.einsum("...qk,...kw->...qw", weights / weights.sum(axis=-1, keepdims=True), value)
    return seen


def sentences_of(pieces: Sequence[Sequence[int]], seed: int = 0, *, prefix: int = 1, suffix: int = 1) -> Units:
    """Random sentences whose words have these numbers of pieces, between special tokens."""
    rng = np.random.default_rng(seed)
    lengths = [prefix + sum(row) + suffix for row in pieces]
    offsets = np.concatenate(([0], np.cumsum(np.array(lengths, dtype=np.int64)))).astype(np.int64)
    firsts = []
    for row, begin in zip(pieces, offsets[:-1].tolist(), strict=True):
        firsts += [begin + prefix + sum(row[:word]) for word in range(len(row))]
    tokens = int(offsets[-1])
    return Units(
        rows=Rows(ids=rng.integers(0, VOCABULARY, tokens), types=rng.integers(0, 2, tokens), offsets=offsets),
        first_token=np.array(firsts, dtype=np.int64),
        n_tokens=np.array([count for row in pieces for count in row], dtype=np.int64),
        offsets=np.concatenate(([0], np.cumsum([len(row) for row in pieces]))).astype(np.int64),
    )
