"""Targets for hypothesis: seconds in `make test`, hours by `make fuzz`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cascade.exceptions import CascadeError
from tests.fuzz.texts import is_shown

T = TypeVar("T")
RANDOM = st.randoms(use_true_random=False)


def fuzzed(times: int, *strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A target that is given a `random.Random`, then what is drawn from `strategies`.

    `times`: so many times as often as the profile says (25 in `make test`).
    """
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    assert settings.default is not None
    most = settings(
        max_examples=times * settings.default.max_examples,
        suppress_health_check=slow,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),  # what a `Random` drew hardly shrinks
    )
    return lambda target: most(given(RANDOM, *strategies)(target))


def tried(call: Callable[[], T]) -> tuple[T | None, str]:
    """What a call gives, or None and how it was refused: in one line that can be shown on any terminal."""
    try:
        return call(), ""
    except CascadeError as error:
        refusal = str(error)
    assert refusal
    assert is_shown(refusal)
    assert "\n" not in refusal
    return None, refusal
