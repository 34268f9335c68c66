"""Cascaded, early-exiting text classification and token tagging on CPUs.

import cascade

clf = cascade.load("models/sentiment")
clf(["a gripping film", "dull"])

tag = cascade.load("models/pos")
tag.predict([["a", "gripping", "film"]]).tags

Policies live in `cascade.policies`.
"""

from cascade._version import __version__ as __version__
from cascade.bundle.certificate import Certificate
from cascade.core.results import (
    Prediction,
    Predictions,
    Route,
    Routes,
    SentenceRoutes,
    Stats,
    TagPrediction,
    TagPredictions,
)
from cascade.engine.streaming import StreamOptions
from cascade.exceptions import (
    BundleError,
    BundleNotFoundError,
    CascadeError,
    CertificateWarning,
    DataError,
    InputError,
    MissingExtraError,
    OptionError,
    TaskError,
)
from cascade.monitoring.monitor import Monitor
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.drop_in import pipeline
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.text.entities import AggregationStrategy

__all__ = [
    "AggregationStrategy", "BundleError", "BundleNotFoundError", "CascadeError", "Certificate", "CertificateWarning",
    "Classifier", "DataError", "InputError", "MissingExtraError", "Monitor", "OptionError", "Prediction",
    "Predictions", "Route", "Routes", "SentenceRoutes", "Stats", "StreamOptions", "TagPrediction", "TagPredictions",
    "Tagger", "TaskError", "load", "pipeline",
]  # fmt: skip
