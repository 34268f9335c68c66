"""`transformers.pipeline` on the checkpoint that a bundle was made from: fp32, full depth, caller's order.

What `cascade-train exits` writes is no stock architecture: weights of a tagger with linear heads are put into the stock
model, other backbones and their last head behind a stock interface. Needs the `bench` extra.
"""

from __future__ import annotations

import copy
import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from cascade.bundle.hub import can_be_id
from cascade.exceptions import OptionError, need

need("comparing with transformers", "bench", "torch", "transformers", "safetensors")

import torch  # noqa: E402
import transformers  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel  # noqa: E402
from transformers.modeling_outputs import SequenceClassifierOutput  # noqa: E402

from cascade.training.models.config import adapted, load_config, load_model  # noqa: E402
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger, pool  # noqa: E402


class LastExit(PreTrainedModel):
    """The backbone and last head of a multi-exit checkpoint, with the interface of a stock one."""

    config_class = PretrainedConfig
    _supports_sdpa = True

    def __init__(self, whole: MultiExitModel | MultiExitTagger) -> None:
        super().__init__(copy.deepcopy(whole.config))  # which kinds of attention there are is the backbone's business
        backbone: Any = AutoModel.from_config(whole.config, **whole.family.options).float()
        backbone.load_state_dict(whole.backbone.state_dict())
        if whole.family.final_norm is not None:  # every exit has a copy of its own
            backbone.get_submodule(whole.family.final_norm).load_state_dict(whole.norms[-1].state_dict())
        self.backbone, self.head = backbone, whole.heads[-1]
        self.pooling = whole.pooling[-1] if isinstance(whole, MultiExitModel) else None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Logits of shape `(rows, labels)`, or of each token, from ids and mask of shape `(rows, longest)`."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and getattr(self.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = token_type_ids
        hidden = self.backbone(**inputs).last_hidden_state
        read = hidden if self.pooling is None else pool(hidden, attention_mask, self.pooling)
        return SequenceClassifierOutput(logits=self.head(read))


def last_exit(checkpoint: str | Path, *, tagging: bool) -> PreTrainedModel:
    """As a stock model in fp32: a multi-exit one with its last head, others as they are (adapters merged)."""
    config = AutoConfig.from_pretrained(checkpoint) if adapted(checkpoint) is None else load_config(checkpoint)
    kind: Any = MultiExitTagger if tagging else MultiExitModel
    if getattr(config, "cascade_exits", None) is not None:
        made: Any = LastExit(kind.from_pretrained(checkpoint))
    else:
        made = load_model(kind.whole, checkpoint)
    model: PreTrainedModel = made.float().eval()
    return model


@dataclass(frozen=True, eq=False)
class TransformersPipeline:
    """A pipeline of either task; rows longer than `max_length` tokens are truncated. `tagging`: items are sentences."""

    pipe: Any
    max_length: int
    multi_label: bool = False
    tagging: bool = False

    @classmethod
    def load(
        cls, checkpoint: str | Path, *, threads: int, max_length: int, multi_label: bool = False, tagging: bool = False
    ) -> TransformersPipeline:
        """Load what `cascade-train exits` wrote, or an ordinary classifier: a folder or a Hub id.

        `threads` are torch's, in this whole process; all else is the bundle's, so that both read as much of a text. An
        `OptionError`: there is no such checkpoint.
        """
        with loading(checkpoint, threads=threads):
            tokenizer = AutoTokenizer.from_pretrained(checkpoint, use_fast=True)
            tokenizer.model_max_length = max_length
            model = last_exit(checkpoint, tagging=tagging)
            task = "token-classification" if tagging else "text-classification"
            make: Any = transformers.pipeline  # its overloads know tasks by literal names only
            pipe = make(task, model=model, tokenizer=tokenizer, device="cpu")
        return cls(pipe, max_length, multi_label, tagging)

    def labels(self, items: Sequence[Any], *, batch_size: int) -> list[Any]:
        """In the form of a bundle's answers."""
        if self.tagging:
            return self._tags(items, batch_size)
        given: Any = [{"text": text[0], "text_pair": text[1]} if isinstance(text, tuple) else text for text in items]
        options: dict[str, Any] = {"batch_size": batch_size, "truncation": True, "max_length": self.max_length}
        if not self.multi_label:
            return [answer["label"] for answer in self.pipe(given, **options)]
        names = (self.pipe.model.config.id2label or {}).values()
        said = self.pipe(given, top_k=None, **options)
        chosen = [{answer["label"] for answer in some if answer["score"] >= 0.5} for some in said]
        return [tuple(name for name in names if name in yes) for yes in chosen]

    def _tags(self, sentences: Sequence[Sequence[str]], batch_size: int) -> list[list[str]]:
        """Each word's is that of its first piece; one that is dropped, or beyond what is read, gets the first label."""
        full = [number for number, words in enumerate(sentences) if words]
        texts = [" ".join(sentences[number]) for number in full]
        found: Any = self.pipe(texts, batch_size=batch_size, ignore_labels=[]) if texts else []
        names: Any = self.pipe.model.config.id2label
        tags = [[names[0]] * len(words) for words in sentences]
        for number, pieces in zip(full, found, strict=True):
            starts = list(accumulate((len(word) + 1 for word in sentences[number][:-1]), initial=0))
            own = tags[number]
            for piece in reversed(pieces):  # a word's first piece is written last
                own[bisect_right(starts, piece["start"]) - 1] = piece["entity"]
        return tags


@contextmanager
def loading(checkpoint: str | Path, *, threads: int) -> Iterator[None]:
    """Set torch's threads, in this whole process, and tell in one line why a checkpoint cannot be loaded.

    An `OptionError`: there is no such checkpoint, or one of another kind.
    """
    torch.set_num_threads(threads)
    before = transformers.logging.get_verbosity()
    # The pipeline logs an error for any class that is not its own, and then uses it.
    transformers.logging.set_verbosity(logging.CRITICAL)
    try:
        if not (Path(checkpoint).exists() or can_be_id(str(checkpoint))):
            raise FileNotFoundError("there is no such folder")
        yield
    except (OSError, ValueError, KeyError) as fault:
        reason = " ".join(str(fault).split())
        told = f"--checkpoint must be a folder or Hub id with a model for transformers, got {checkpoint} ({reason})"
        raise OptionError(f"{told}; give what cascade-train exits wrote") from None
    finally:
        transformers.logging.set_verbosity(before)
