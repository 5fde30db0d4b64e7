"""Queries: matching sizes, restriction, and boxes that hold no value of the model's input type."""

from __future__ import annotations

import numpy as np
import pytest

from support import networks
from support.replay import TorchReplay
from verifier.errors import SpecError
from verifier.model.replay import nearest_inside
from verifier.query import Query
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec


class Float32Replay(TorchReplay):
    """Rounds to float32 as a float32 model does."""

    def representable(self, x, lower, upper):
        return nearest_inside(x, lower, upper, "float32")


def spec(lower, upper, n_outputs=1, count=1):
    n = len(lower)
    rows = LinearConstraints(np.zeros((1, n)), np.ones((1, n_outputs)), np.zeros(1), np.zeros(1, bool))
    disjunct = Disjunct(np.array(lower, float), np.array(upper, float), rows)
    return Spec(n, n_outputs, (disjunct,) * count)


@pytest.fixture
def network():
    return networks.dense(np.random.default_rng(0), (2, 3, 1))


@pytest.mark.parametrize(("n_in", "n_out", "word"), [(3, 1, "input"), (2, 4, "output")])
def test_sizes_must_match(network, n_in, n_out, word):
    with pytest.raises(SpecError, match=word):
        Query.of(network, spec([0] * n_in, [1] * n_in, n_out), TorchReplay(network))


def test_restriction_remembers_where_disjuncts_stood(network):
    query = Query.of(network, spec([0, 0], [1, 1], count=5), TorchReplay(network))
    assert query.restricted([1, 3, 4]).restricted([0, 2]).indices == (1, 4)


def test_a_side_without_a_float32_value_is_stretched_to_the_nearest(network):
    query = Query.of(network, spec([0.1, 0.0], [0.1, 1.0]), Float32Replay(network))
    (disjunct,) = query.disjuncts
    nearest = float(np.float32(0.1))
    assert (disjunct.lower[0], disjunct.upper[0]) == (min(0.1, nearest), max(0.1, nearest))
    assert (disjunct.lower[1], disjunct.upper[1]) == (0.0, 1.0)


def test_boxes_that_hold_float32_values_stay_the_same_objects(network):
    original = spec([0.1, 0.0], [0.2, 1.0])
    query = Query.of(network, original, Float32Replay(network))
    assert query.disjuncts[0].lower is original.disjuncts[0].lower
