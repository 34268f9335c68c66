"""Which answers are sampled."""

from __future__ import annotations

import numpy as np

from cascade.monitoring.state import Sampler


def test_the_sample_is_the_same_however_answers_come() -> None:
    sampler = Sampler(share=0.1, seed=5)
    found: list[int] = []
    for begin, end in ((0, 1), (1, 1), (1, 5000), (5000, 9000)):
        found += [row + begin for row in sampler.draw(end - begin)]
    assert found == np.flatnonzero(np.random.default_rng(5).random(9000) < 0.1).tolist()
