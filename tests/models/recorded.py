"""Recorded answers of tiers that never ran, for the tests of certification: documents of known difficulty."""

from __future__ import annotations

import numpy as np

from cascade.calibration import Costs
from cascade.calibration.answers import Answers
from cascade.calibration.temperature import Temperatures
from cascade.core.confidence import probabilities

COSTS = Costs(tier1=0.05, stages=(0.3, 0.3, 0.3), always=0.02)


def recorded(
    documents: int,
    *,
    labels: int = 3,
    multi_label: bool = False,
    windows: int = 1,
    labelled: bool = True,
    noise: float = 1.0,
    seed: int = 0,
) -> Answers:
    """Each head sees the truth through noise, tier 1 through most and the last exit through least.

    `windows`: of each document at most; with more than one the documents have 1 to so many.
    """
    random = np.random.default_rng(seed)
    counts = random.integers(1, windows + 1, documents) if windows > 1 else np.ones(documents, dtype=np.int64)
    owner = np.repeat(np.arange(documents, dtype=np.int64), counts)
    rows = len(owner)
    if multi_label or labels == 1:
        truth = random.integers(0, 2, (documents, labels))
        signal = (4.0 * truth - 2.0)[owner]
    else:
        truth = random.integers(0, labels, documents)
        signal = 4.0 * np.eye(labels)[truth][owner]
    shared = random.normal(size=(rows, labels))
    heads = [
        probabilities(
            (signal + noise * shared + own * random.normal(size=(rows, labels))).astype(np.float32),
            multi_label=multi_label,
        )
        for own in (1.5, 1.2, 0.7, 0.0)
    ]
    return Answers(
        tier1=heads[0],
        tier2=np.stack(heads[1:], axis=1),
        documents=owner,
        lengths=random.integers(5, 40, rows),
        layers=(2, 4, 6),
        truth=truth if labelled else None,
        temperatures=Temperatures(1.0, (1.0, 1.0, 1.0)),
        multi_label=multi_label,
    )
