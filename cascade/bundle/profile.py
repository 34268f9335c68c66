"""What the texts of a calibration looked like: what a monitor compares texts in use with."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any, Final

import numpy as np

from cascade.bundle.form import Positive, Rule
from cascade.core.checks import is_number
from cascade.core.rows import BoolArray

SLOTS: Final = 1 << 15  # a bit for each token id, modulo this
DEPTH: Final = "depth"  # the feature that depends on the policies
FEATURES: Final = (DEPTH, "length", "new")


def _are_edges(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        name in FEATURES
        and isinstance(own, list | tuple)
        and all(map(is_number, own))
        and all(a < b for a, b in pairwise(own))
        for name, own in value.items()
    )


def _are_slots(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(base64.b64decode(value, validate=True)) == SLOTS // 8
    except (binascii.Error, ValueError):
        return False


_EDGES: Final[Rule] = (f"lists of rising numbers by feature ({', '.join(FEATURES)})", _are_edges)
_SLOTS: Final[Rule] = (f"base64 of {SLOTS // 8} bytes", _are_slots)


@dataclass(frozen=True)
class Profile:
    """Features of texts that the models had not seen, as a monitor needs them. Make it with `pipelines.profiling`.

    Attributes:
        texts: how many the edges are of.
        edges: values of each feature that cut these texts into runs of about equal size, rising.
        known: a bit for each token id, modulo 32,768, that occurs in as many other texts; base64.
    """

    texts: Positive
    edges: Annotated[Mapping[str, tuple[float, ...]], _EDGES]
    known: Annotated[str, _SLOTS] = field(repr=False)

    @property
    def slots(self) -> BoolArray:
        """The bits of `known`. Shape `(32768,)`."""
        bits = np.frombuffer(base64.b64decode(self.known), dtype=np.uint8)
        return np.unpackbits(bits).astype(np.bool_)

    def of_texts(self) -> Profile:
        """What does not depend on policies."""
        return replace(self, edges={name: own for name, own in self.edges.items() if name != DEPTH})
