"""Pseudo-costs: what is learned from splits decides which neuron comes next."""

from __future__ import annotations

import numpy as np
import pytest

from verifier.search.pseudo_costs import PseudoCosts


@pytest.fixture
def costs() -> PseudoCosts:
    return PseudoCosts(3)


def best(costs: PseudoCosts, *scores: float) -> int:
    return int(costs.rank(np.array(scores)).argmax())


def test_before_anything_is_learned_the_scores_decide(costs):
    assert best(costs, 0.2, 0.5, 0.3) == 1
    assert np.all(np.diff(costs.rank(np.array([0.1, 0.2, 0.3]))) > 0)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_the_unit_of_the_scores_does_not_matter(costs, scale):
    assert best(costs, 0.2 * scale, 0.5 * scale, 0.3 * scale) == 1
    for sign in (-1, 1):
        costs.learn(1, sign, 0.5 * scale, 0.01 * scale)
        costs.learn(2, sign, 0.3 * scale, 0.3 * scale)
    assert best(costs, 0.2 * scale, 0.5 * scale, 0.3 * scale) == 2


def test_a_neuron_that_gained_little_falls_behind(costs):
    for sign in (-1, 1):
        costs.learn(1, sign, 0.5, 0.01)
        costs.learn(2, sign, 0.3, 0.3)
    assert best(costs, 0.2, 0.5, 0.3) == 2


def test_both_sides_have_to_gain(costs):
    costs.learn(0, 1, 1.0, 2.0)
    costs.learn(0, -1, 1.0, 0.0)
    for sign in (-1, 1):
        costs.learn(1, sign, 1.0, 1.0)
    assert best(costs, 1.0, 1.0, 0.0) == 1


def test_an_unseen_neuron_is_expected_to_gain_as_the_others_do(costs):
    for sign in (-1, 1):
        costs.learn(0, sign, 1.0, 0.1)
        costs.learn(1, sign, 1.0, 0.3)
    first, second, unseen = costs.rank(np.ones(3))
    assert first < unseen < second


@pytest.mark.parametrize("gain", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_teaches_nothing(costs, gain):
    before = costs.rank(np.ones(3))
    costs.learn(0, 1, 1.0, gain)
    assert np.array_equal(costs.rank(np.ones(3)), before)


def test_a_bound_that_fell_counts_as_no_gain(costs):
    costs.learn(1, 1, 1.0, 1.0)
    costs.learn(0, 1, 1.0, -5.0)
    ranked = costs.rank(np.ones(3))
    assert (ranked > 0).all()
    assert ranked[0] < ranked[1]


def test_a_tiny_score_does_not_outweigh_the_others(costs):
    for _ in range(5):
        costs.learn(0, 1, 1.0, 0.1)
        costs.learn(0, -1, 1.0, 0.1)
    costs.learn(1, 1, 1e-12, 0.1)
    costs.learn(1, -1, 1e-12, 0.1)
    assert best(costs, 1.0, 0.2, 0.0) == 0
