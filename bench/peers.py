"""`transformers.pipeline` on the checkpoint that a bundle was made from: fp32, full depth, caller's order.

The checkpoint that `cascade-train exits` writes is no stock architecture, so its backbone and its last head are put
behind the interface of a `...ForSequenceClassification` model: the same backbone class of transformers with the same
attention kernels, one pooling, one head of two linear layers, no exits, no hooks, no hidden states kept. It does the
work of `BertForSequenceClassification` and nothing else. An ordinary checkpoint is given to the pipeline as it is.
 Needs the `bench` extra.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cascade.core.results import Label
from cascade.exceptions import MissingExtraError, OptionError
from cascade.text.tokenizer import Text
from cascade_bench.contenders import PIPELINE, Answered, Contender

try:
    import torch
    import transformers
    from safetensors.torch import load_file
    from torch import Tensor, nn
    from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
    from transformers.activations import ACT2FN
    from transformers.modeling_outputs import SequenceClassifierOutput
    from transformers.utils.hub import cached_file
except ImportError as error:
    raise MissingExtraError(
        f"comparing with transformers needs the bench extra, but {error.name} is missing; "
        'pip install "cascade-encoder[bench]", or leave out --checkpoint'
    ) from error

__all__ = ["BATCH_SIZES", "LastExit", "Peer", "Pipeline", "best_batch_size", "contender", "loading"]

BATCH_SIZES = (1, 8, 16, 32, 64, 128)
WITHOUT_POOLER = ("bert", "roberta", "albert")  # whose constructors know `add_pooling_layer`; the others have none


class Peer(Protocol):
    """A pipeline that answers: `Pipeline`, `tag_peers.TagPipeline`."""

    def labels(self, inputs: Sequence[Any], *, batch_size: int) -> Sequence[Any]:
        """Labels of texts, or tags of sentences."""


class LastExit(PreTrainedModel):
    """The backbone and last head of a multi-exit checkpoint, with the interface of a sequence classifier."""

    config_class = PretrainedConfig
    _supports_sdpa = True

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        known = {"add_pooling_layer": False} if config.model_type in WITHOUT_POOLER else {}
        self.backbone = AutoModel.from_config(config, **known)
        exits: Mapping[str, Any] = config.cascade_exits
        self.pooling = exits["pooling"]
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[exits["activation"]]
        self.out = nn.Linear(config.hidden_size, config.num_labels)

    @classmethod
    def from_folder(cls, checkpoint: str | Path) -> LastExit:
        """Load what `cascade-train exits` wrote. `checkpoint`: a folder or a Hub id."""
        config = AutoConfig.from_pretrained(checkpoint)
        tensors = load_file(str(cached_file(checkpoint, "model.safetensors")))
        last = f"heads.{len(config.cascade_exits['layers']) - 1}."
        kept = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
        kept |= {name.removeprefix(last): tensor for name, tensor in tensors.items() if name.startswith(last)}
        config.torch_dtype = torch.float32
        model = cls(config)
        model.load_state_dict(kept)
        model.train(False)
        return model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Logits of shape `(rows, labels)` from ids and mask of shape `(rows, longest)`."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and self.config.model_type != "distilbert":
            inputs["token_type_ids"] = token_type_ids
        hidden = self.backbone(**inputs).last_hidden_state
        if self.pooling == "first":
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        return SequenceClassifierOutput(logits=self.out(self.activation(self.dense(pooled))))


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A text-classification pipeline as a peer.

    Attributes:
        pipe: transformers' pipeline.
        max_length: tokens of a row at most; longer texts are truncated.
        multi_label: the labels are independent yes/no decisions.
    """

    pipe: transformers.TextClassificationPipeline
    max_length: int
    multi_label: bool = False

    @classmethod
    def load(cls, checkpoint: str | Path, *, threads: int, max_length: int, multi_label: bool = False) -> Pipeline:
        """Load a checkpoint.

        Args:
            checkpoint: what `cascade-train exits` wrote, or an ordinary sequence classifier; a folder or a Hub id.
            threads: of torch, in this whole process.
            max_length: the bundle's, so that both read as much of a text.
            multi_label: as the bundle.

        Raises:
            OptionError: there is no such checkpoint.
        """
        with loading(checkpoint, threads=threads):
            config = AutoConfig.from_pretrained(checkpoint)
            tokenizer = AutoTokenizer.from_pretrained(checkpoint, use_fast=True)
            own = getattr(config, "cascade_exits", None)
            model = LastExit.from_folder(checkpoint) if own else _stock(checkpoint)
            pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
        return cls(pipe, max_length, multi_label)

    def labels(self, inputs: Sequence[Text], *, batch_size: int) -> list[Label]:
        """Labels of texts, in the form of `Predictions.labels`."""
        given: Any = [{"text": text[0], "text_pair": text[1]} if isinstance(text, tuple) else text for text in inputs]
        options: dict[str, Any] = {"batch_size": batch_size, "truncation": True, "max_length": self.max_length}
        if not self.multi_label:
            return [answer["label"] for answer in self.pipe(given, **options)]
        names = (self.pipe.model.config.id2label or {}).values()
        answers: Any = self.pipe(given, top_k=None, **options)
        chosen = [{answer["label"] for answer in some if answer["score"] >= 0.5} for some in answers]
        return [tuple(name for name in names if name in yes) for yes in chosen]


@contextmanager
def loading(checkpoint: str | Path, *, threads: int) -> Iterator[None]:
    """Set torch's threads, and tell in one line why a checkpoint cannot be loaded.

    Args:
        checkpoint: which.
        threads: of torch, in this whole process.

    Raises:
        OptionError: there is no such checkpoint, or one of another kind.
    """
    torch.set_num_threads(threads)
    before = transformers.logging.get_verbosity()
    # The pipeline logs an error for any class that is not its own, and then uses it.
    transformers.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    except (OSError, ValueError, KeyError) as fault:
        reason = " ".join(str(fault).split())
        raise OptionError(
            f"--checkpoint must be a folder or Hub id with a model for transformers, was: {checkpoint} ({reason}); "
            "give what cascade-train exits wrote"
        ) from None
    finally:
        transformers.logging.set_verbosity(before)


def best_batch_size(
    pipeline: Peer,
    inputs: Sequence[Any],
    *,
    sizes: Sequence[int] = BATCH_SIZES,
    progress: Callable[[str], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[int, dict[int, float]]:
    """Try batch sizes on some texts or sentences, each twice, the better run counting.

    Returns:
        The fastest size, and texts or sentences per second by size.
    """
    pipeline.labels(inputs[:32], batch_size=8)
    rates = {}
    for size in sizes:
        taken = []
        for _ in range(2):
            if progress is not None:
                progress(f"pipeline, batches of {size}")
            begin = clock()
            pipeline.labels(inputs, batch_size=size)
            taken.append(clock() - begin)
        rates[size] = len(inputs) / min(taken)
    return max(rates, key=rates.__getitem__), rates


def contender(pipeline: Peer, batch_size: int) -> Contender:
    """The pipeline beside the contenders of a bundle."""

    def run(inputs: Sequence[Any]) -> Answered:
        return Answered(pipeline.labels(inputs, batch_size=batch_size))

    return Contender(PIPELINE, f"transformers.pipeline, fp32, batches of {batch_size}", run)


def _stock(checkpoint: str | Path) -> PreTrainedModel:
    made = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint, torch_dtype=torch.float32)
    model: PreTrainedModel = made.eval()
    return model
