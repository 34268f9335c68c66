"""What the regression check compares with: two works that stay as they are, and know nothing of the engine.

`Plain` is the bundle's graphs without an engine: padded rows in caller order, one batch after the other. `products`
is int8 matrix products alone: what the host can do. A change to either makes `reference_ratios.json` void.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from cascade.exceptions import OptionError
from cascade_bench.profile.peak import Product, runner, session_options

Arrays = Mapping[str, Any]

STAGE_INPUTS = {"hidden", "head_gather", "head_scatter", "bias", "gather", "firsts", "weights", "counts"}
UNSEEN = -40  # added to the scores of padding; its exponential, 4e-18, is no denormal number, which would be slow
ROWS = 32  # of a padded batch: what pipelines are usually given
PRODUCT = Product("int8", 1024, 384, 1536)  # 1024 tokens through the wide half of a layer
PRODUCTS = 256  # as many operations as six such layers have on about a thousand short texts


@dataclass(frozen=True, eq=False)
class Plain:
    """Tier 2 at full depth, plainly. `offset`: position id of a row's first token. `heads`: of attention."""

    tokenizer: Tokenizer
    embed: Any
    stages: Sequence[Any]
    offset: int
    heads: int

    @classmethod
    def from_folder(cls, folder: Path, *, threads: int) -> Plain:
        """Open a classifier's bundle, without verifying it.

        Raises:
            OptionError: a graph has an input that this reference does not know.
        """
        manifest = json.loads((folder / "cascade.json").read_text(encoding="utf-8"))
        tier2 = manifest["tiers"][-1] if "tiers" in manifest else manifest["tier2"]  # of format 3, of format 2
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_truncation(tier2["max_length"])
        tokenizer.enable_padding()
        options = session_options(threads)

        def session(file: str, known: set[str]) -> Any:
            made = onnxruntime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
            if unknown := sorted({value.name for value in made.get_inputs()} - known):
                raise OptionError(
                    f"the reference must know every input of {file}, does not know: {', '.join(unknown)}; "
                    "feed them in bench/harness/plain.py and write the reference ratios again"
                )
            return made

        return cls(
            tokenizer,
            session(tier2["embed"], {"input_ids", "token_type_ids", "position_ids"}),
            [session(stage["file"], STAGE_INPUTS) for stage in tier2["stages"]],
            tier2.get("position_offset", 0),
            tier2["heads"],
        )

    def __call__(self, texts: Sequence[str]) -> Any:
        """Logits of the last exit. Shape `(texts, labels)`, float32."""
        return np.concatenate([self._batch(texts[first : first + ROWS]) for first in range(0, len(texts), ROWS)])

    def _batch(self, texts: Sequence[str]) -> Any:
        rows = self.tokenizer.encode_batch(list(texts))
        ids = np.array([row.ids for row in rows], dtype=np.int64)
        mask = np.array([row.attention_mask for row in rows], dtype=np.bool_)
        embed = {
            "input_ids": ids.ravel(),
            "token_type_ids": np.array([row.type_ids for row in rows], dtype=np.int64).ravel(),
            "position_ids": np.arange(ids.size, dtype=np.int64) % ids.shape[1] + self.offset,
        }
        indices = padded_indices(mask, self.heads)
        made = {"hidden_out": _run(self.embed, embed)["hidden"]}
        for stage in self.stages:
            made = _run(stage, {"hidden": made["hidden_out"], **indices})
        return made["logits"]


def padded_indices(mask: Any, heads: int) -> dict[str, Any]:
    """What stages read beside hidden states, where padding is given to them as if it were tokens.

    Padding then takes as long as tokens do; only attention and pooling are told not to look at it. `mask`: True where a
    token is, of shape `(rows, longest)`.
    """
    rows, longest = mask.shape
    places = np.arange(mask.size, dtype=np.int64).reshape(rows, longest)
    numbers = np.arange(heads, dtype=np.int64)
    starts = places[:, :1]
    return {
        "head_gather": places[:, None, :] * heads + numbers[:, None],
        "head_scatter": (starts * heads + places - starts).reshape(-1, 1) + numbers * longest,
        "bias": np.where(mask, 0, UNSEEN)[:, None, None, :].astype(np.float32),
        "gather": places,
        "firsts": starts.ravel(),
        "weights": mask[:, None, :].astype(np.float32),
        "counts": mask.sum(axis=1, keepdims=True).astype(np.float32),
    }


def products(*, threads: int) -> Callable[[], object]:
    """A function that does all of them, on a pool of this many threads."""
    once = runner(PRODUCT, threads=threads)

    def run() -> None:
        for _ in range(PRODUCTS):
            once()

    return run


def _run(session: Any, feeds: Arrays) -> dict[str, Any]:
    names = [value.name for value in session.get_outputs()]
    known = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, known), strict=True))
