"""Deferral within a budget or a latency: a quantile, and a measurement."""

from __future__ import annotations

import numpy as np
import pytest

from cascade import Classifier, Tagger
from cascade.calibration.thresholds import plain
from cascade.calibration.thresholds.plain import within_budget, within_latency
from cascade.exceptions import OptionError
from cascade.policies.routing import Threshold, defer_none
from tests.calibration.conftest import texts
from tests.models.tagged import sentences


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_a_budget_is_a_quantile(classifier: Classifier, share: float) -> None:
    given = texts(200)
    found = within_budget(classifier, given, share)
    really = classifier.with_router(found.router).predict(given)
    assert really.stats.deferred / 200 == pytest.approx(found.deferred)
    assert found.deferred == pytest.approx(share, abs=0.03)
    assert found.seconds > 0


def test_a_budget_of_words(tagger: Tagger) -> None:
    given = sentences(60)
    found = within_budget(tagger, given, 0.3)
    really = tagger.with_router(found.router).predict(given)
    assert really.stats.deferred_share == pytest.approx(found.deferred)
    assert found.deferred <= 0.3


def test_a_latency_defers_what_it_can(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    given = texts(200)
    sure = np.sort(classifier.with_router(defer_none).predict(given).routes.confidence)

    def cost(pipeline: Classifier, _items: object) -> float:
        """A text costs 1 ms, a deferred one 9 ms more."""
        assert isinstance(pipeline.router, Threshold)
        return 0.001 + 0.009 * float((sure < np.float32(pipeline.router.threshold)).mean())

    monkeypatch.setattr(plain, "_seconds", cost)
    found = within_latency(classifier, given, 0.004)
    assert found.seconds == cost(classifier.with_router(found.router), given) <= 0.004
    assert found.deferred == pytest.approx(1 / 3, abs=0.03)
    everything = within_latency(classifier, given, 1.0)
    assert everything.deferred > 0.95
    with pytest.raises(OptionError, match=r"tier 1 alone keeps, got 0\.5 ms, and tier 1 takes 1 ms per item here"):
        within_latency(classifier, given, 0.0005)


def test_bad_use(classifier: Classifier) -> None:
    with pytest.raises(OptionError, match=r"the share to defer must be above 0 and below 1, got 2"):
        within_budget(classifier, texts(5), 2)
    with pytest.raises(OptionError, match=r"the latency must be above 0 seconds and finite, got -1"):
        within_latency(classifier, texts(5), -1)
