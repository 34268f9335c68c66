"""What a policy needs so that its threshold can be chosen on examples."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from cascade.core.rows import FloatArray


@runtime_checkable
class Tunable(Protocol):
    """A policy that compares a score with a threshold. Calibration and tuning know no more of it than this.

    An exit policy lets a unit exit where its score is at least the threshold; a router keeps it there and defers it
    below. `policy.at(t)(state)` is therefore `policy.score(state) >= t`, negated for a router.
    """

    def score(self, state: Any) -> FloatArray:
        """How sure each unit is, in [0, 1], higher is surer. NaN counts as unsure. Shape `(units,)`."""

    def at(self, threshold: Any) -> Any:
        """The same policy with this threshold in [0, 1]; an exit policy also takes a tuple with one per exit."""
