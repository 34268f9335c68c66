"""Impossible options are refused with rule and value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cascade.exceptions import OptionError
from cascade.training.loop import LoopOptions
from cascade.training.models.students import Static, StaticTagger
from cascade.training.recipes.first_tier import FirstTierOptions
from cascade.training.recipes.objectives import Objective


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        *(
            (LoopOptions, {name: 0}, f"{name} must be above 0, got 0")
            for name in ("epochs", "batch_size", "head_factor")
        ),
        (LoopOptions, {"warmup": 1}, r"warmup must be in \[0, 1\), got 1"),
        *((LoopOptions, {"average": bad}, r"average must be in \[0, 1\), got ") for bad in (-0.1, 1.0)),
        (FirstTierOptions, {"copies": -1}, "copies must be a whole number of at least 0"),
        (Objective, {"weights": (1.0, -1.0)}, r"must not be negative and not all zero, got \(1.0, -1.0\)"),
        (Objective, {"weights": (0.0, 0.0)}, "not all zero"),
        (FirstTierOptions, {"imitation": 2}, r"imitation must be in \[0, 1\], got 2"),
        (FirstTierOptions, {"temperature": 0}, "temperature must be above 0, got 0"),
        (Static, {"reach": -1}, "reach of a static first tier must be at least 0, got -1"),
        (StaticTagger, {"layers": 0}, "layers of a static first tier must be at least 1, got 0"),
        (StaticTagger, {"reach": -1}, "reach of a static first tier must be at least 0, got -1"),
    ],
)
def test_impossible_options(value: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        value(**options)
