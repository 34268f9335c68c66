"""Relative positions are those that transformers' models compute."""

from __future__ import annotations

import numpy as np
import torch
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from cascade.engine.packing import Actives, Packing, bucket_grid, buckets


def test_buckets_are_transformers() -> None:
    distances = np.arange(-700, 701)
    wanted = MPNetEncoder.relative_position_bucket(torch.from_numpy(distances), num_buckets=32)
    np.testing.assert_array_equal(buckets(distances), wanted.numpy())


def test_a_grid_has_the_bucket_of_each_pair() -> None:
    for longest in (1, 5, 200):
        places = np.arange(longest)
        found = bucket_grid(longest)
        np.testing.assert_array_equal(found[0], buckets(places - places[:, None]))
        assert found.flags.c_contiguous
        assert found.dtype == np.int64


def test_active_tokens_ask_from_where_they_stand() -> None:
    every, going = Packing.of(np.array([9, 2, 3])), np.array([0, 4, 8, 10, 11, 13])
    own = Packing.of(np.array([3, 1, 2]))
    found = Actives(every, own, going).array("buckets")
    places = [[0, 4, 8], [1], [0, 2]]
    assert found.shape == (3, 3, 9)
    for row, asking in enumerate(places):
        for number, place in enumerate(asking):
            np.testing.assert_array_equal(found[row, number], buckets(np.arange(9) - place))
    whole = Actives(every, every, np.arange(14)).array("buckets")
    assert whole is every.array("buckets")
