"""Robustness properties built in memory."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from verifier.errors import OptionError
from verifier.vnnlib import robustness


def test_one_disjunct_per_other_class_and_one_box() -> None:
    x = np.array([[0.0, 0.5], [0.25, 1.0]])
    spec = robustness(x, 0.125, 1, 3)
    assert (spec.n_inputs, spec.n_outputs) == (4, 3)
    assert [d.constraints.outputs.tolist() for d in spec.disjuncts] == [[[-1, 1, 0]], [[0, 1, -1]]]
    for disjunct in spec.disjuncts:
        assert disjunct.lower.tolist() == [0, 0.375, 0.125, 0.875]
        assert disjunct.upper.tolist() == [0.125, 0.625, 0.375, 1]
        assert disjunct.lower is spec.disjuncts[0].lower
        assert disjunct.upper is spec.disjuncts[0].upper
        assert not disjunct.constraints.mentions_inputs
        assert disjunct.constraints.inputs.shape == (1, 4)


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_meaning(winner: int) -> None:
    spec = robustness(np.array([0.5]), 0.1, 1, 3)
    y = np.zeros(3)
    y[winner] = 1.0
    assert spec.holds_exactly(np.array([0.45]), y) is (winner != 1)
    assert spec.holds_exactly(np.array([0.45]), np.zeros(3))  # a tie counts against the label
    assert not spec.holds_exactly(np.array([0.3]), y)


def test_the_box_contains_the_ball_and_hardly_more() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=1000) * 10.0 ** rng.integers(-20, 20, 1000)
    radius = np.abs(rng.normal(size=1000)) * 10.0 ** rng.integers(-20, 20, 1000)
    disjunct = robustness(x, radius, 0, 2, bounds=None).disjuncts[0]
    for value, r, low, high in zip(x, radius, disjunct.lower, disjunct.upper, strict=True):
        lowest, highest = Fraction(value) - Fraction(r), Fraction(value) + Fraction(r)
        assert Fraction(low) <= lowest < Fraction(np.nextafter(low, np.inf))
        assert Fraction(np.nextafter(high, -np.inf)) < highest <= Fraction(high)


def test_radius_zero_and_bounds_by_input() -> None:
    spec = robustness(np.array([0.1, 0.2]), 0, 0, 2, bounds=(np.array([0, 0.2]), np.array([1, 0.3])))
    assert spec.disjuncts[0].lower.tolist() == spec.disjuncts[0].upper.tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([np.nan]), 0.1, 0, 2), "finite numbers"),
        ((np.zeros(0), 0.1, 0, 2), "at least one"),
        ((np.zeros(2), -0.1, 0, 2), "the radius must be finite and not negative"),
        ((np.zeros(2), np.nan, 0, 2), "the radius"),
        ((np.zeros(2), np.inf, 0, 2), "the radius"),
        ((np.zeros(2), np.zeros(3), 0, 2), "do not have the shape of the input"),
        ((np.zeros(2), 0.1, 2, 2), "the label must be one of 0 to 1"),
        ((np.zeros(2), 0.1, -1, 2), "the label"),
        ((np.zeros(2), 0.1, 0, 1), "another class"),
        ((np.array([128.0]), 8.0, 0, 2), "outside the bounds by more than the radius; is it scaled like them"),
        ((np.zeros(2), 0.1, 0, 2, (1.0, 0.0)), "outside the bounds"),
        ((np.zeros(2), 0.1, 0, 2, (np.nan, 1.0)), "outside the bounds"),
        ((np.zeros(2), 0.1, 0, 2, (np.zeros(3), 1.0)), "do not have the shape of the input"),
        ((np.array([1e308]), 1e308, 0, 2, None), "beyond the range of float64"),
    ],
)
def test_refusals(arguments: tuple, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        robustness(*arguments)
