"""Tiny fine-tuned models, texts for them, and a build that takes seconds."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cascade.training.build import BuildOptions, Built, build, building, report
from tests.models import tiny
from tests.training.commands import fine_tuned

LABELS = ("right", "Übel", "LABEL_1", "a, b")
FAMILY = ("texts", "pairs", "several labels", "one label", "a number", "tags", "an adapter")
OTHERS = ("other texts", "other pairs", "other labels", "other tags", "another number")  # of a family without exits
KINDS = (*FAMILY, *OTHERS)
OPTIONS = BuildOptions(max_disagreement=0.2, threads=1, minutes=60)


@dataclass(frozen=True)
class Case:
    """A checkpoint with its file of texts, and a folder for what is made of it."""

    kind: str
    model: Path
    file: Path
    items: list[Any]
    output: Path

    def build(self, options: BuildOptions = OPTIONS, **more: Any) -> Built:
        return build(self.model, [self.file], self.output, options=options, **more)

    @property
    def work(self) -> Path:
        return self.output.with_name(f"{self.output.name}.build")


def items(kind: str, *, count: int = 130, seed: int = 3) -> list[Any]:
    rng = random.Random(seed)
    words = [[rng.choice(tiny.WORDS) for _ in range(rng.randint(2, 9))] for _ in range(2 * count)]
    texts = list(dict.fromkeys(map(" ".join, words)))[:count]
    if kind.endswith("tags"):
        return [text.split() for text in texts]
    return list(zip(texts, texts[::-1], strict=True)) if kind.endswith("pairs") else texts


def write(file: Path, some: list[Any], labels: list[Any] | None = None) -> Path:
    """Text lines, or JSON lines where there is more to say than a text."""
    if all(isinstance(item, str) for item in some) and labels is None:
        file.write_text("".join(f"{item}\n" for item in some), encoding="utf-8")
        return file
    rows = []
    for number, item in enumerate(some):
        row = {"tokens": item} if isinstance(item, list) else {"text": item}
        row = {"text": item[0], "text_pair": item[1]} if isinstance(item, tuple) else row
        rows.append(row if labels is None else {**row, "label": labels[number]})
    file = file.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few epochs, a few turns."""
    for name, epochs in {"frozen": 30.0, "static": 2.0, "transformer": 2.0, "tuned": 1.0}.items():
        monkeypatch.setitem(building.EPOCHS, name, epochs)
    monkeypatch.setattr(building, "COPIES", 1)
    monkeypatch.setattr(report, "TURNS", (1, 1))


@pytest.fixture
def case(tmp_path: Path, quick: None) -> Callable[[str], Case]:
    def made(kind: str = "texts") -> Case:
        problem = "regression" if kind.endswith("number") else None
        problem = "multi_label_classification" if kind in ("several labels", "other labels") else problem
        labels = ("only",) if kind in ("one label", "a number", "another number") else LABELS
        family = "ernie" if kind in OTHERS else "bert"
        whole, tagging = tmp_path / ("whole" if kind == "an adapter" else "model"), kind.endswith("tags")
        model = fine_tuned(family, whole, tagging=tagging, labels=labels, problem_type=problem)
        if kind == "an adapter":
            peft = pytest.importorskip("peft")
            config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
            peft.get_peft_model(model, config).save_pretrained(tmp_path / "model")
            told = tmp_path / "model" / "adapter_config.json"
            told.write_text(json.dumps({**json.loads(told.read_text()), "base_model_name_or_path": str(whole)}))
            for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
                shutil.copy(whole / name, tmp_path / "model")
        some = items(kind)
        return Case(kind, tmp_path / "model", write(tmp_path / "texts.txt", some), some, tmp_path / "bundle")

    return made
