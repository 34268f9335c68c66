"""From a fine-tuned checkpoint and texts to a bundle, a certificate and a report. Needs three extras."""

from __future__ import annotations

from cascade.training.build.building import Built, build
from cascade.training.build.looking import BuildOptions

__all__ = ["BuildOptions", "Built", "build"]
