"""Bounds over balls: valid at sampled points, and attained where they should be exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.networks import convolutional, dense, residual
from verifier.bounds.ball import Ball, Norm
from verifier.bounds.ball_bounds import ball_bounds, least
from verifier.bounds.ball_objective import Lowest, Nearest
from verifier.bounds.beta_crown import AscentOptions, Root, Rows, bound_regions
from verifier.bounds.crown import backward, relax
from verifier.bounds.level import Level


def random_ball(rng: np.random.Generator, norm: Norm, n: int) -> Ball:
    below, above = rng.uniform(0, 1, n), rng.uniform(0, 1, n)
    if rng.random() < 0.3:
        below, above = below + 5, above + 5
    if rng.random() < 0.3:
        above[0] = 0
    weights = np.ones(n) if norm is Norm.L0 else rng.uniform(0.5, 2, n)
    radius = float(rng.integers(0, n + 1)) if norm is Norm.L0 else rng.uniform(0.05, 2)
    groups = torch.arange(n) if norm is Norm.L0 else None
    centre = rng.normal(size=n)
    whole = Ball(norm, *map(torch.from_numpy, (centre, below, above, weights)), 1e3, groups)
    return whole.shrunk(radius)


def sample(rng: np.random.Generator, ball: Ball, count: int) -> torch.Tensor:
    """Moves inside the ball, many of them at its edge: [count, n]."""
    n = len(ball.centre)
    d = torch.from_numpy(rng.uniform(-1, 1, (count, n)))
    d = torch.where(torch.from_numpy(rng.random((count, n)) < 0.3), 0.0, d)
    if ball.norm is Norm.L0:
        order = torch.from_numpy(rng.random((count, n))).argsort(1).argsort(1)
        d = torch.where(order < int(ball.radius), d, 0.0)
        return torch.where(d < 0, d * ball.below, d * ball.above)
    scale = ball.radius / (ball.length(d) + 1e-12) * torch.from_numpy(rng.uniform(0, 1, count) ** 0.2)
    moved = scale[:, None] * d * (1 - 1e-12)
    return torch.minimum(torch.maximum(moved, -ball.below), ball.above)


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("seed", range(25))
def test_least_is_below_all_samples_and_attained(norm: Norm, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ball = random_ball(rng, norm, int(rng.integers(1, 7)))
    rows = torch.from_numpy(rng.normal(size=(3, len(ball.centre))))
    rows[0, 0] = 0
    bound = ball.least(rows)
    moves = sample(rng, ball, 200)
    assert bool((ball.length(moves) <= ball.radius + 1e-9).all())
    assert bool((rows @ moves.T >= bound[:, None] - 1e-12).all())
    furthest = ball.furthest(rows)
    assert bool((ball.length(furthest) <= ball.radius * (1 + 1e-9) + 1e-12).all())
    assert torch.allclose((rows * furthest).sum(1), bound, atol=1e-9)


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("seed", range(25))
def test_distance_is_below_all_samples_and_attained(norm: Norm, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    ball = random_ball(rng, norm, int(rng.integers(1, 7)))
    rows = torch.from_numpy(rng.normal(size=(1, len(ball.centre))))
    moves = sample(rng, ball, 300)
    gains = -(rows @ moves.T)[0]
    lengths = ball.length(moves)
    for i in range(0, 300, 10):
        if gains[i] <= 1e-9:
            continue
        need = gains[i : i + 1]
        distance = float(ball.distance(rows, need)[0])
        assert distance <= float(lengths[i]) + 1e-12
        step = ball.step(rows, need * (1 - 1e-12))
        assert float(-(rows * step).sum()) >= float(need) * (1 - 1e-9) - 1e-12
        # For l0 the bound is that of the fractional relaxation; the next whole number is the answer.
        exact = np.ceil(distance - 1e-9) if norm is Norm.L0 else distance
        assert float(ball.length(step)[0]) == pytest.approx(exact, rel=1e-9, abs=1e-9)
    # More than the box holds is infinitely far.
    everything = (rows.abs() * torch.maximum(ball.below, ball.above)).sum() + 1
    assert ball.distance(rows, everything[None]).item() == np.inf


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("make", [lambda rng: dense(rng, (4, 5, 5, 2)), residual, convolutional])
def test_bounds_over_balls_contain_the_network(norm: Norm, make) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        network = make(rng)
        ball = random_ball(rng, norm, network.n_inputs)
        nodes = ball_bounds(network, ball)
        points = ball.centre + sample(rng, ball, 100)
        for value, bound in zip(network.values(points), nodes, strict=True):
            assert bound.level is Level.RIGOROUS
            assert bool((value >= bound.lower - 1e-9).all())
            assert bool((value <= bound.upper + 1e-9).all())
        rows = torch.from_numpy(rng.normal(size=(1, 3, *network.output_shape)))
        found = backward(relax(network, nodes), len(network.nodes) - 1, rows)
        outputs = network.forward(points) @ rows.reshape(3, -1).T
        assert bool((outputs >= least(found, ball)[0] - 1e-9).all())


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L1, Norm.L2])
def test_optimised_objectives_stay_below_samples(norm: Norm) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network = dense(rng, (4, 6, 6, 3))
        ball = random_ball(rng, norm, 4)
        nodes = ball_bounds(network, ball)
        outputs = torch.from_numpy(rng.normal(size=(1, 1, 3)))
        rows = Rows(outputs, None, torch.zeros(1, 1, dtype=torch.float64))
        points = ball.centre + sample(rng, ball, 2000)
        values = (network.forward(points) @ outputs[0, 0]).numpy()
        lower, upper = ball.box()
        root = Root(network, lower[None], upper[None], nodes, Lowest(ball, 0.0))
        plain = bound_regions(root, rows, root.undivided(), AscentOptions(iterations=1)).lower
        found = bound_regions(root, rows, root.undivided(), AscentOptions(iterations=30)).lower
        assert float(plain) <= float(found) + 1e-6
        assert float(found) <= values.min() + 1e-9
        # Shift the rows so that some samples satisfy them: none may be nearer than the distance claimed.
        side = float(np.quantile(values, 0.1))
        shifted = replace(rows, bounds=torch.full((1, 1), side, dtype=torch.float64))
        nearest = Root(network, lower[None], upper[None], nodes, Nearest(ball, 0.5))
        claimed = float(bound_regions(nearest, shifted, nearest.undivided(), AscentOptions()).lower) + 0.5
        inside = ball.length(points - ball.centre)[torch.from_numpy(values <= side)]
        assert claimed <= float(inside.min()) + 1e-9
