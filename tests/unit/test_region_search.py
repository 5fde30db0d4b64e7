"""The search for minima over regions, where nothing is left to split."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from support.planted import linear
from verifier.bounds.ball import Ball, Norm
from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.ball_objective import Lowest
from verifier.bounds.beta_crown import Rows
from verifier.deadline import Deadline
from verifier.model.network import build
from verifier.model.operators import Input, Relu
from verifier.search.regions import RegionSearch


@pytest.mark.parametrize("seed", range(20))
def test_the_minimum_of_a_linear_region_is_not_rounded_to_float32(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, centre = rng.normal(size=3), torch.from_numpy(rng.uniform(1, 2, size=3))
    # Both ReLUs are active all over the ball.
    network = build(
        [
            (Input((1, 3)), ()),
            (linear(np.array([weight, -weight]), np.array([50.0, 50.0])), (0,)),
            (Relu(), (1,)),
            (linear(np.array([[1.0, 0.0]]), np.array([0.0])), (2,)),
        ]
    )
    side = torch.full((3,), 0.25, dtype=torch.float64)
    ball = Ball(Norm.LINF, centre, side, side, torch.ones(3, dtype=torch.float64), 0.25)
    rows = Rows(torch.ones(1, 1, 1, dtype=torch.float64), None, torch.zeros(1, 1, dtype=torch.float64))
    search = RegionSearch(network, ball_bounds(network, ball), rows, Lowest(ball, 100.0))

    def attempt(points: Tensor, owner: Tensor) -> float:
        return 100.0

    search.work(Deadline.never(), attempt)
    exact = Fraction(50) + sum(
        Fraction(w) * Fraction(c) - abs(Fraction(w)) / 4 for w, c in zip(weight.tolist(), centre.tolist(), strict=True)
    )
    assert search.exhausted
    assert Fraction(search.lower) <= exact
    assert float(exact - Fraction(search.lower)) < 1e-9
