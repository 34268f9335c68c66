"""Sentences with tags: made up, labelled by a toy tagger, as lines of a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from tests.models import tiny


def sentences(count: int, seed: int = 4) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    words = [*tiny.WORDS, "unforgettable", "xylophones"]
    return [rng.choice(words, rng.integers(1, 12)).tolist() for _ in range(count)]


def lines(some: list[list[str]], tags: list[list[str]]) -> str:
    return "".join(json.dumps({"tokens": words, "tags": own}) + "\n" for words, own in zip(some, tags, strict=True))


def labelled(tagger: Tagger, folder: Path, name: str, *, count: int, seed: int) -> Path:
    """Labelled by full-depth tier 2, every ninth word wrongly."""
    some = sentences(count, seed)
    tags = tagger.with_router(defer_all).with_exit_policy(never).predict(some).tags
    number = 0
    for own in tags:
        for place in range(len(own)):
            number += 1
            if number % 9 == 0:
                own[place] = "B-LOC"
    file = folder / name
    file.write_text(lines(some, tags))
    return file
