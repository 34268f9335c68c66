"""Choose sentences whose answers rest on no narrow decision, and write what the shipped bundles answer.

`python -m tests.golden`
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tests.golden import FOLDER, NAMES, TOLERANCE, answers, pipeline
from tests.test_floors import ROOT

WANTED = 100
CHANGES = (0.98, 0.99, 1.01, 1.02)  # of the temperatures: more than rounding, and less than a reader would notice
FILES = {"sentiment": "sentiment", "intents": "intents", "pos": "tags"}


def candidates(name: str) -> list[Any]:
    """The project's own sentences, then two of them joined; requests also with words before and after them."""
    lines = (ROOT / "cascade" / "cli" / "demo" / f"{FILES[name]}.jsonl").read_text(encoding="utf-8").splitlines()
    own = [json.loads(line).get("text", json.loads(line).get("tokens")) for line in lines]
    joined = [(own[at], own[at + gap]) for gap in (1, 2) for at in range(len(own) - gap)]
    if name == "pos":
        return own + [first + second for first, second in joined]
    if name == "intents":
        return own + [f"hello, {text}" for text in own] + [f"{text}, thanks" for text in own]
    return own + [f"{first} {second}" for first, second in joined]


def main() -> None:
    """Write a file for each bundle."""
    for name in NAMES:
        own, items = pipeline(name), candidates(name)
        wanted = answers(own, items)
        kept = set(range(len(items)))
        for factor in CHANGES:
            warmer = [[one * factor for one in of_tier] for of_tier in own.policies.temperatures]
            found = answers(own.with_policies(replace(own.policies, temperatures=tuple(map(tuple, warmer)))), items)
            kept -= {
                row
                for row, (one, other) in enumerate(zip(wanted, found, strict=True))
                if {**one, "score": 0} != {**other, "score": 0} or abs(one["score"] - other["score"]) > TOLERANCE / 2
            }
        chosen = [wanted[row] for row in sorted(kept)][:WANTED]
        if len(chosen) < WANTED:
            raise SystemExit(f"{name} must have {WANTED} such sentences, got {len(chosen)}")
        lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in chosen)
        (FOLDER / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
