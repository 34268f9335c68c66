"""Cascaded, early-exiting text classification and token tagging on CPUs.

from cascade import Classifier, Tagger

clf = Classifier.from_pretrained("models/sentiment")
clf(["a gripping film", "dull"])

tag = Tagger.from_pretrained("models/pos")
tag.predict([["a", "gripping", "film"]]).tags

Policies live in `cascade.routing`, `cascade.exits` and `cascade.batching`; those of a tagger also in
`cascade.word_exits`, `cascade.windows` and `cascade.decoding`.
"""

from cascade.aggregation import AggregationStrategy
from cascade.certificate import Certificate
from cascade.classifier import Classifier
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
from cascade.monitor import Monitor
from cascade.results import (
    Prediction,
    Predictions,
    Route,
    Routes,
    SentenceRoutes,
    Stats,
    TagPrediction,
    TagPredictions,
)
from cascade.streaming import StreamOptions
from cascade.tagger import Tagger

__version__ = "0.1.0"

__all__ = [
    "AggregationStrategy",
    "BundleError",
    "BundleNotFoundError",
    "CascadeError",
    "Certificate",
    "CertificateWarning",
    "Classifier",
    "DataError",
    "InputError",
    "MissingExtraError",
    "Monitor",
    "OptionError",
    "Prediction",
    "Predictions",
    "Route",
    "Routes",
    "SentenceRoutes",
    "Stats",
    "StreamOptions",
    "TagPrediction",
    "TagPredictions",
    "Tagger",
    "TaskError",
]
