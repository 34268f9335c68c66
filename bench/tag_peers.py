"""`transformers.pipeline` on the tagging checkpoint that a bundle was made from: fp32, full depth, caller's order.

What `cascade-train exits --task tagging` writes has the weights of a `...ForTokenClassification` model under other
names: its backbone, and its last exit as the classifier. That stock model is built and given to the stock pipeline.
 Needs the `bench` extra.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, PreTrainedModel
from transformers.utils.hub import cached_file

from cascade_bench.peers import loading

__all__ = ["TagPipeline", "last_exit"]


@dataclass(frozen=True, eq=False)
class TagPipeline:
    """A token-classification pipeline as a peer.

    Attributes:
        pipe: transformers' pipeline; a tokenizer's `model_max_length` says how much of a sentence it reads.
    """

    pipe: transformers.TokenClassificationPipeline

    @classmethod
    def load(cls, checkpoint: str | Path, *, threads: int, max_length: int) -> TagPipeline:
        """Load a checkpoint.

        Args:
            checkpoint: what `cascade-train exits` wrote, or an ordinary token classifier; a folder or a Hub id.
            threads: of torch, in this whole process.
            max_length: the bundle's, so that both read as much of a sentence.

        Raises:
            OptionError: there is no such checkpoint.
        """
        with loading(checkpoint, threads=threads):
            tokenizer = AutoTokenizer.from_pretrained(checkpoint, use_fast=True)
            tokenizer.model_max_length = max_length
            pipe = transformers.pipeline(
                "token-classification", model=last_exit(checkpoint), tokenizer=tokenizer, device="cpu"
            )
        return cls(pipe)

    def labels(self, inputs: Sequence[Sequence[str]], *, batch_size: int) -> list[list[str]]:
        """Tags of sentences of words: each word's is that of its first piece.

        A word that the tokenizer drops, or that lies beyond the length it reads, gets the model's first label.
        """
        full = [number for number, words in enumerate(inputs) if words]
        texts = [" ".join(inputs[number]) for number in full]
        found: Any = self.pipe(texts, batch_size=batch_size, ignore_labels=[]) if texts else []
        names: Any = self.pipe.model.config.id2label
        tags = [[names[0]] * len(words) for words in inputs]
        for number, pieces in zip(full, found, strict=True):
            starts = list(accumulate((len(word) + 1 for word in inputs[number][:-1]), initial=0))
            own = tags[number]
            for piece in reversed(pieces):  # a word's first piece is written last
                own[bisect_right(starts, piece["start"]) - 1] = piece["entity"]
        return tags


def last_exit(checkpoint: str | Path) -> PreTrainedModel:
    """The stock token classifier with a multi-exit checkpoint's backbone and last head; an ordinary one as it is."""
    config = AutoConfig.from_pretrained(checkpoint)
    exits = getattr(config, "cascade_exits", None)
    if exits is None:
        made = AutoModelForTokenClassification.from_pretrained(checkpoint, torch_dtype=torch.float32)
    else:
        config.torch_dtype = torch.float32
        made = AutoModelForTokenClassification.from_config(config)
        tensors = load_file(str(cached_file(checkpoint, "model.safetensors")))
        last = f"heads.{len(exits['layers']) - 1}."
        renamed = {f"{made.base_model_prefix}.": "backbone.", "classifier.": last}
        made.load_state_dict(
            {
                new + name.removeprefix(old): tensor
                for new, old in renamed.items()
                for name, tensor in tensors.items()
                if name.startswith(old)
            }
        )
    model: PreTrainedModel = made.eval()
    return model
