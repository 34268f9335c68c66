import numpy as np
import pytest

from cascade.core.results import Prediction, Predictions, Route, Routes, Stats


def routes() -> Routes:
    return Routes(np.array([1, 2, 2]), np.array([0, 4, 6]), np.array([0.9, 0.8, 0.5], dtype=np.float32))


def predictions() -> Predictions:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], dtype=np.float32)
    return Predictions(["a", "b", "a"], p, routes(), Stats(texts=3, units=4, tokens=20, deferred=2))


def test_routes_read_like_a_list() -> None:
    columns = routes()
    assert len(columns) == 3
    assert columns[1] == Route(2, 4, float(np.float32(0.8)))
    assert [route.tier for route in columns] == [1, 2, 2]
    assert columns[-1].exit_layer == 6
    assert columns[1:] == Routes(columns.tier[1:], columns.exit_layer[1:], columns.confidence[1:])
    assert type(columns[0].confidence) is float
    with pytest.raises(IndexError):
        columns[3]


def test_routes_compare_by_value_and_have_no_hash() -> None:
    other = Routes(np.array([1, 2, 1]), np.array([0, 4, 0]), routes().confidence)
    assert routes() == routes()
    assert routes() != other
    assert routes() != [1, 2, 3]
    with pytest.raises(TypeError, match="unhashable"):
        hash(routes())


def test_predictions_read_like_a_list() -> None:
    answers = predictions()
    assert len(answers) == 3
    first, second, _ = answers
    assert isinstance(first, Prediction)
    assert (first.label, first.route) == ("a", answers.routes[0])
    np.testing.assert_array_equal(second.probabilities, answers.probabilities[1])
    assert [answer.label for answer in answers[:2]] == ["a", "b"]
    assert answers[-1].route.exit_layer == 6


def test_short_reprs() -> None:
    assert repr(routes()) == "Routes(3: 1 by tier 1, 2 by tier 2)"
    assert repr(predictions()) == "Predictions(3: ['a', 'b', 'a'], deferred 50.0%)"
    longer = Predictions(["a"] * 4, np.ones((4, 1), dtype=np.float32), routes(), Stats())
    assert repr(longer) == "Predictions(4: ['a', 'a', 'a', ...], deferred 0.0%)"


def test_stats() -> None:
    assert Stats().deferred_share == 0
    assert Stats(units=4, deferred=1).deferred_share == 0.25
    assert Stats().exits == {}
    assert Stats() == Stats()
