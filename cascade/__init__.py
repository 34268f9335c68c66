"""Cascaded, early-exiting text classification on CPUs.

from cascade import Classifier

clf = Classifier.from_pretrained("models/sentiment")
clf(["a gripping film", "dull"])

Policies live in `cascade.routing`, `cascade.exits` and `cascade.batching`.
"""

from cascade.classifier import Classifier
from cascade.exceptions import (
    BundleError,
    BundleNotFoundError,
    CascadeError,
    DataError,
    InputError,
    MissingExtraError,
    OptionError,
)
from cascade.results import Prediction, Predictions, Route, Routes, Stats
from cascade.streaming import StreamOptions

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "BundleNotFoundError",
    "CascadeError",
    "Classifier",
    "DataError",
    "InputError",
    "MissingExtraError",
    "OptionError",
    "Prediction",
    "Predictions",
    "Route",
    "Routes",
    "Stats",
    "StreamOptions",
]
