"""`load`: any bundle, opened and verified once, becomes the pipeline of its task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec

from cascade.pipelines.base import Pipeline
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger

P = ParamSpec("P")


def _any_kind(loading: Callable[P, Pipeline]) -> Callable[P, Classifier | Tagger]:
    known: Any = loading  # of no other kind
    return known  # type: ignore[no-any-return]


load: Final = _any_kind(Pipeline.from_pretrained)
"""Load a bundle as what it is for, a `Classifier` or a `Tagger`; arguments and errors as in their `from_pretrained`."""
