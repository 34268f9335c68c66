"""Which answers are sampled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cascade.monitoring.sampling import Sampler


def test_numbers_are_drawn_in_blocks_and_the_sample_is_as_if_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Generator:
        def __init__(self) -> None:
            self.inner = np.random.default_rng(5)

        def random(self, count: int) -> Any:
            sizes.append(count)
            return self.inner.random(count)

    sampler = Sampler(share=0.1, seed=0)
    monkeypatch.setattr(sampler, "_random", Generator())
    found = [row for row in range(5000) if sampler.draw_one()]
    found += [row + 5000 for row in sampler.draw(4000)]
    assert found == np.flatnonzero(np.random.default_rng(5).random(9000) < 0.1).tolist()
    assert len(sizes) <= 3
