"""`CascadeClassifier`: a bundle as an estimator of scikit-learn. Needs the `sklearn` extra."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cascade.core.labels import shortened
from cascade.core.tables import column_of
from cascade.exceptions import OptionError, need
from cascade.pipelines.classifier import Classifier
from cascade.policies.exits import MaxProbability
from cascade.policies.routing import Threshold

need("CascadeClassifier", "sklearn", "sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402

_load = lru_cache(maxsize=4)(Classifier.from_pretrained)  # clones share what was loaded


class CascadeClassifier(ClassifierMixin, BaseEstimator):
    """A classifier's bundle for scikit-learn's pipelines, searches and metrics. It is trained already.

    Clones and pickles hold the parameters alone: `model`, a bundle's folder or Hub id; `threshold`, below which the
    first tier defers, and `exit_threshold` of the last tier's exits, as the bundle says if left out; `threads`.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        threshold: float | None = None,
        exit_threshold: float | None = None,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.threshold = threshold
        self.exit_threshold = exit_threshold
        self.threads = threads

    @property
    def classifier(self) -> Classifier:
        """The pipeline with these thresholds."""
        if self.model is None:
            raise OptionError("model must be a bundle for classification, got None; give a folder or a Hub id")
        made = _load(self.model, threads=self.threads)
        if made.regression:
            raise OptionError(f"model must be a bundle with labels, but {self.model} answers numbers; use cascade.load")
        made = made if self.threshold is None else made.with_router(Threshold(self.threshold))
        return made if self.exit_threshold is None else made.with_exit_policy(MaxProbability(self.exit_threshold))

    @property
    def classes_(self) -> np.ndarray[Any, Any]:
        """The labels, sorted; of a multi-label bundle in its own order. Shape `(labels,)`."""
        made = self.classifier
        return np.array(made.labels if made.multi_label else sorted(made.labels))

    def fit(self, X: Any, y: Any = None) -> CascadeClassifier:  # noqa: N803  # scikit-learn's name
        """Nothing is learned; labels that the bundle does not have are an `OptionError`.

        `y`: labels, or their numbers in `classes_`, which `cross_val_predict` gives. Shape `(texts,)`.
        """
        made = self.classifier
        if y is not None and not made.multi_label:
            known = {*made.labels, *range(len(made.labels))}
            unknown = [label for label in column_of(y) if label not in known]
            if unknown:
                rule = f"y must hold the bundle's labels ({shortened(made.labels)})"
                raise OptionError(f"{rule}, got {unknown[0]!r}; rename them, or choose another bundle")
        return self

    def predict(self, X: Any) -> np.ndarray[Any, Any]:  # noqa: N803
        """The label of each text, shape `(texts,)`; multi-label zeros and ones, shape `(texts, labels)`."""
        chances = self.predict_proba(X)
        if self.classifier.multi_label:
            return (chances >= 0.5).astype(np.int64)
        return np.asarray(self.classes_[chances.argmax(axis=1)])

    def predict_proba(self, X: Any) -> np.ndarray[Any, Any]:  # noqa: N803
        """Probabilities in the order of `classes_`. Shape `(texts, labels)`."""
        made = self.classifier
        return made.predict(X).probabilities[:, [made.labels.index(label) for label in self.classes_.tolist()]]

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = tags.no_validation = True
        tags.input_tags.two_d_array = tags.target_tags.required = False
        tags.classifier_tags.multi_label = True
        return tags
