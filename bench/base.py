"""An encoder of any size with random weights, by default of BERT base's, at full depth here and in its peers.

What a product costs does not depend on what is multiplied, so sizes can be compared without a trained model of each.
Answers mean nothing: neither accuracy nor exits can be looked at. The tokenizer is that of a bundle, so that rows have
the lengths that real texts have.
 Needs the `export` and `train` extras beside `bench`.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from cascade.core.checks import check_whole
from cascade.exceptions import BundleError, MissingExtraError, OptionError
from cascade_bench.data import Labelled
from cascade_bench.peer_kinds import FULL, KINDS
from cascade_bench.peer_process import Job
from cascade_bench.peers_table import PeerTable, compare
from cascade_bench.statistics import Interval, speed_up

try:
    import torch
    from transformers import AutoModel, BertConfig, PretrainedConfig

    from cascade.training.models.multi_exit import MultiExitModel
    from cascade.training.models.static import StaticConfig, StaticForSequenceClassification
except ImportError as error:
    raise MissingExtraError(
        f"making a model needs the bench, export and train extras, but {error.name} is missing; "
        'pip install "cascade-encoder[bench,export,train]"'
    ) from error

__all__ = ["PEERS", "Made", "Shape", "gains", "make", "measure"]

PEERS = (FULL, "optimum-int8", "onnxruntime-int8")
LABELS = ("no", "yes")
POSITIONS = 512
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
EXPORT = "import sys; from cascade_export.cli import main; main(sys.argv[1:])"

Progress = Callable[[str], object]
Config = TypeVar("Config", bound=PretrainedConfig)


@dataclass(frozen=True)
class Shape:
    """Sizes of a BERT; its feed-forward layers are four times as wide as its states. The defaults are BERT base's."""

    layers: int = 12
    width: int = 768
    heads: int = 12

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads"):
            check_whole(name, getattr(self, name), "leave it out for that of BERT base")
        if self.width % self.heads:
            raise OptionError(
                f"width must be a multiple of heads, were: {self.width} and {self.heads}; BERT base has 768 and 12"
            )

    def __str__(self) -> str:
        return f"{self.layers} layers of width {self.width}, {self.heads} heads"


@dataclass(frozen=True)
class Made:
    """A checkpoint with random weights, and the bundle that was exported from it. Folders."""

    checkpoint: Path
    bundle: Path


def make(shape: Shape, tokenizer: Path, folder: Path, *, seed: int = 0, progress: Progress | None = None) -> Made:
    """Draw weights and export them.

    Tier 1 is a static model of the least size, which nobody runs. int8 stages are kept however they answer, as answers
    that are drawn by lot agree with nothing.

    Args:
        shape: of tier 2.
        tokenizer: a folder with `tokenizer.json` and `tokenizer_config.json`, such as a bundle's.
        folder: an empty one; about 0.5 GB for BERT base.
        seed: of the weights.
        progress: called before each step.

    Raises:
        BundleError: the exporter refused.
    """
    say = progress or (lambda _step: None)
    say("drawing weights")
    made = Made(folder / "checkpoint", folder / "bundle")
    vocabulary = _draw(shape, tokenizer, made.checkpoint, folder / "first", seed=seed)
    if not vocabulary:
        raise BundleError(f"the tokenizer must have tokens, but {tokenizer} has none; give another bundle")
    gc.collect()  # modules refer to each other, and their weights are large
    say("exporting")
    given = {"--tier2": made.checkpoint, "--tier1": folder / "first", "--output": made.bundle, "--agreement": 0}
    options = [str(part) for pair in given.items() for part in pair]
    done = subprocess.run(  # noqa: S603  # this project's own exporter in this interpreter
        [sys.executable, "-c", EXPORT, *options, "--no-fp32"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise BundleError(f"a model with random weights must be exported, but cascade-export ended with: {said}")
    return made


def measure(
    made: Made,
    texts: Sequence[str | tuple[str, str]],
    folder: Path,
    *,
    threads: int,
    repeats: int = 7,
    progress: Progress | None = None,
) -> PeerTable:
    """Full depth here against `PEERS` in int8, each in a process of its own, in turns.

    Args:
        made: see `make`.
        texts: in the caller's order.
        folder: an empty one for converted files; about 0.8 GB for BERT base.
        threads: of everybody.
        repeats: turns of each, but for slow ones.
        progress: called before each piece of work.

    Raises:
        OptionError: nobody could be run.
    """
    job = Job(
        model=str(made.bundle),
        checkpoint=str(made.checkpoint),
        folder=str(folder.absolute()),
        threads=threads,
        max_length=POSITIONS,
    )
    data = Labelled(list(texts), [LABELS[0]] * len(texts), np.zeros(len(texts), dtype=np.int64))
    return compare([KINDS[key] for key in PEERS], job, data, repeats=repeats, progress=progress)


def gains(table: PeerTable) -> dict[str, Interval]:
    """How many times as fast as each line of a table full depth is, by the line's name; empty where it failed."""
    full = next((row for row in table.rows if row.kind.key == FULL), None)
    if full is None:
        return {}
    found = {row.name: speed_up(row.seconds, full.seconds) for row in table.rows if row is not full}
    return {name: gain for name, gain in found.items() if gain is not None}


def _draw(shape: Shape, tokenizer: Path, second: Path, first: Path, *, seed: int) -> int:
    """Both checkpoints; how many tokens the tokenizer knows."""
    from tokenizers import Tokenizer

    vocabulary = int(Tokenizer.from_file(str(tokenizer / TOKENIZER[0])).get_vocab_size())
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        max_position_embeddings=POSITIONS,
    )
    MultiExitModel(AutoModel.from_config(_named(config), add_pooling_layer=False)).save_pretrained(second)
    own = StaticConfig(vocab_size=vocabulary, width=8, hidden=8, max_position_embeddings=POSITIONS)
    StaticForSequenceClassification(_named(own)).save_pretrained(first)
    for folder in (second, first):
        for name in TOKENIZER:
            shutil.copyfile(tokenizer / name, folder / name)
    return vocabulary


def _named(config: Config) -> Config:
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {name: number for number, name in enumerate(LABELS)}
    config.problem_type = "single_label_classification"
    return config
