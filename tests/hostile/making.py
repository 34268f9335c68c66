"""What is broken and what commands are killed at: tiny bundles, checkpoints and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cascade import Classifier
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from tests.models.toy import WORDS, random_texts, toy_bundle
from tests.models.toy_tags import tag_bundle
from tests.text.test_entities import byte_level


def tiny_bundles(folder: Path) -> tuple[Path, ...]:
    """A toy of texts, one of words, others with several labels and bytes, and an exported BERT for each task."""
    from cascade_export import Calibration, ExportOptions, export_bundle
    from tests.models import tiny, tiny_tagging

    toys = (toy_bundle(folder / "texts").folder, tag_bundle(folder / "words").folder)
    tiny.tier2(folder / "tier2", depth=2)
    tiny.tier1_static(folder / "tier1")
    tiny.tagger(folder / "tagger", depth=2)
    tiny_tagging.tier1_transformer(folder / "tags")
    made = [*toys, toy_bundle(folder / "several", multi_label=True).folder]
    made.append(tag_bundle(folder / "bytes", tokenizer=byte_level()).folder)
    options = ExportOptions(agreement=0)
    for name, second, first, texts in (
        ("bert", "tier2", "tier1", tiny.TEXTS),
        ("ner", "tagger", "tags", tiny_tagging.SENTENCES),
    ):
        calibration = Calibration(texts)
        made.append(
            export_bundle(
                folder / second, folder / first, folder / name, calibration=calibration, options=options
            ).folder
        )
    return tuple(made)


def inputs(folder: Path) -> None:
    """Everything that the killed commands read."""
    from tests.models import tiny
    from tests.training.build.conftest import LABELS, items
    from tests.training.build.conftest import write as write_items
    from tests.training.commands import TEXTS, fine_tuned, write

    Classifier.from_pretrained(toy_bundle(folder / "sure").folder, threads=1).with_temperatures(
        6.0, (6.0, 6.0, 6.0)
    ).save_pretrained(folder / "toy")
    (folder / "texts.txt").write_text("".join(f"{one}\n" for one in random_texts(60_000, seed=3)))
    rng = np.random.default_rng(0)
    texts = list(dict.fromkeys(" ".join(rng.choice(WORDS[4:], rng.integers(3, 9))) for _ in range(900)))
    full = Classifier.from_pretrained(folder / "toy", threads=1).with_router(defer_all).with_exit_policy(never)
    rows = [{"text": one, "label": label} for one, label in zip(texts, full.predict(texts).labels, strict=True)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny.tier2(folder / "tier2")
    tiny.tier1_static(folder / "tier1")
    tiny.backbone(folder / "backbone")
    write(folder / "rows.jsonl", TEXTS)
    fine_tuned("bert", folder / "model", labels=LABELS)
    write_items(folder / "build.txt", items("texts", count=200))
