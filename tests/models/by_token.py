"""An exit policy of our own: exits fixed per token id, for tests of what words leave where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.core.rows import BoolArray
from cascade.exceptions import OptionError
from cascade.policies.exits import ExitState, register
from cascade.policies.registry import ModelInfo
from cascade.policies.unit_exits import UnitState


@register
@dataclass(frozen=True)
class ExitByToken:
    """A word exits at the layer that its first token's id has in a table (HashEE: Sun et al., 2022).

    Attributes:
        layers: by token id; ids beyond the table go to full depth.
    """

    layers: tuple[int, ...]

    def __call__(self, state: ExitState) -> BoolArray:
        assert isinstance(state, UnitState)
        table = np.array([*self.layers, np.iinfo(np.int64).max], dtype=np.int64)
        mask: BoolArray = table[np.minimum(state.ids, len(self.layers))] <= state.exit_layer
        return mask

    def check(self, model: ModelInfo) -> None:
        if not model.words or not set(self.layers) <= set(model.layers):
            raise OptionError(f"ExitByToken must name layers with an exit of words, got {self.layers[:3]}")
