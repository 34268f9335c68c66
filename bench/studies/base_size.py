"""An encoder of BERT base's size with random weights: full depth in int8 beside optimum and ONNX Runtime in int8.

    python bench/studies/base_size.py models/sentiment --data dev.jsonl --texts 200 --threads 2

Found on two AMX cores (12 layers of width 768): full depth is 2.22 [2.10, 2.33] times as fast as optimum's int8
pipeline in caller order, and 1.55 [1.50, 1.65] times where that is given sorted texts.

Answers mean nothing. The tokenizer is a bundle's. Needs the extras bench, export and train, and 1.5 GB of disk.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, BertConfig

from cascade.bundle.opening import open_bundle
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.static import StaticConfig, StaticForSequenceClassification
from cascade_bench.peers.cli import as_text
from cascade_bench.peers.table import compare
from cascade_bench.systems.baselines import BASELINES
from cascade_bench.systems.local import FULL
from cascade_bench.systems.process import Job
from cascade_bench.table.data import Data, read_items
from cascade_bench.timing import machine

TESTED = (FULL, "optimum-int8", "onnxruntime-int8")
LABELS = ("no", "yes")
POSITIONS = 512
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
EXPORT = "import sys; from cascade_export.cli import main; main(sys.argv[1:])"


def draw(layers: int, width: int, heads: int, tokenizer: Path, second: Path, first: Path) -> None:
    """Both checkpoints: a BERT with random weights, and the least static model, which nothing runs."""
    vocabulary = int(Tokenizer.from_file(str(tokenizer / TOKENIZER[0])).get_vocab_size())
    torch.manual_seed(0)
    names: dict[str, Any] = {"id2label": dict(enumerate(LABELS)), "problem_type": "single_label_classification"}
    both = {"vocab_size": vocabulary, "max_position_embeddings": POSITIONS, **names}
    config = BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads,
                        intermediate_size=4 * width, **both)  # fmt: skip
    MultiExitModel(AutoModel.from_config(config, add_pooling_layer=False)).save_pretrained(second)
    StaticForSequenceClassification(StaticConfig(width=8, hidden=8, **both)).save_pretrained(first)
    for folder in (second, first):
        for name in TOKENIZER:
            shutil.copyfile(tokenizer / name, folder / name)


@click.command()
@click.argument("model")
@click.option("--data", required=True, help="Texts; they give the lengths of rows.")
@click.option("--texts", default=200, show_default=True, help="The first of the file.")
@click.option("--layers", default=12, show_default=True)
@click.option("--width", default=768, show_default=True)
@click.option("--heads", default=12, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Turns of each.")
@click.option("--only", multiple=True, default=TESTED, show_default=True)
def main(
    model: str, data: str, texts: int, layers: int, width: int, heads: int, threads: int, repeats: int, only: list[str]
) -> None:
    """Draw weights, export them, run the peers."""
    items = read_items(data)[:texts]
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as place:
        second, first, bundle, work = (Path(place) / name for name in ("checkpoint", "first", "bundle", "work"))
        work.mkdir()
        draw(layers, width, heads, open_bundle(model).folder, second, first)
        places = ["--tier2", str(second), "--tier1", str(first), "--output", str(bundle)]
        options = [*places, "--agreement", "0", "--no-fp32"]
        subprocess.run([sys.executable, "-c", EXPORT, *options], check=True)  # noqa: S603  # our exporter
        job = Job(str(bundle), str(second), str(work), threads, POSITIONS)
        answers = Data(items, [LABELS[0]] * len(items), notes=("Random weights: only seconds mean something.",))
        table = compare([BASELINES[key] for key in only], job, answers, repeats=repeats)
    click.echo(as_text(table, machine.facts(threads=threads)))


if __name__ == "__main__":
    main()
