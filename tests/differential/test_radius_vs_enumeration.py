"""Radii in all norms against exhaustive enumeration of activation patterns, on networks with up to 12 ReLUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.networks import dense
from support.oracle import minimum_distance
from support.replay import TorchReplay
from verifier.deadline import Deadline
from verifier.model.read import Model
from verifier.radius.certify import RadiusOptions, certify
from verifier.radius.question import question
from verifier.vnnlib.spec import Disjunct, LinearConstraints

NORMS = ("linf", "l1", "l2", "l0")
CLOSE = 1e-4


def random_case(seed: int):
    """A network of 2 to 4 inputs and at most 12 ReLUs, and an input; float32 numbers throughout."""
    rng = np.random.default_rng(seed)
    n_inputs = int(rng.integers(2, 5))
    layers = [int(rng.integers(2, 7)) for _ in range(int(rng.integers(1, 3)))]
    network = dense(rng, (n_inputs, *layers, int(rng.integers(2, 5))))
    x = rng.uniform(0, 1, n_inputs).astype(np.float32).astype(np.float64)
    return rng, Model(network, TorchReplay(network), Path("model.onnx"), ""), x


def true_distance(asked, weights) -> float:
    """By enumeration, over all disjuncts."""
    n = len(asked.centre)
    rows = asked.rows.outputs.numpy()
    found = []
    for part in rows:
        none = np.broadcast_to(0.0, (len(part), n))
        constraints = LinearConstraints(none, part, np.zeros(len(part)), np.zeros(len(part), bool))
        ball = asked.ball
        lower, upper = asked.centre - ball.below.numpy(), asked.centre + ball.above.numpy()
        disjunct = Disjunct(np.maximum(lower, asked.lower), np.minimum(upper, asked.upper), constraints)
        found.append(minimum_distance(asked.model.network, disjunct, asked.centre, str(ball.norm), weights))
    return min(found)


def check(found, true: float, norm: str) -> None:
    # The oracle itself is good to about 1e-7.
    assert found.certified <= true + 1e-6
    assert true <= found.adversarial + 1e-6
    if norm == "l0":
        assert found.gap == 0
        assert found.adversarial == true
        return
    if np.isinf(true):
        assert found.certified == np.inf
        return
    assert true - found.certified <= CLOSE
    assert found.adversarial - true <= CLOSE


def agree(seed: int) -> None:
    rng, model, x = random_case(seed)
    for norm in NORMS:
        weights = np.ones(len(x)) if norm == "l0" or seed % 3 else rng.uniform(0.5, 2, len(x))
        bounds = (0.0, 1.0) if norm == "l0" or seed % 2 else (-3.0, 4.0)
        target = None if seed % 4 else (int(np.argmax(model.replay.run(x))) + 1) % model.network.n_outputs
        asked = question(model, x, norm=norm, bounds=bounds, weights=weights, target=target)
        found = certify(asked, Deadline.after(60), RadiusOptions(tolerance=CLOSE))
        check(found, true_distance(asked, weights), norm)


@pytest.mark.parametrize("seed", range(20))
def test_radius_is_the_distance(seed: int) -> None:
    agree(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(20, 200, 20))
def test_radius_is_the_distance_on_many(first: int) -> None:
    for seed in range(first, first + 20):
        agree(seed)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_costs_of_changed_inputs_need_not_be_whole(first: int) -> None:
    for seed in range(first, first + 10):
        rng, model, x = random_case(seed)
        # Sums of these tie, and are rounded.
        weights = rng.choice([0.1, 0.2, 0.3, 0.7, 1.5], len(x))
        asked = question(model, x, norm="l0", weights=weights)
        found = certify(asked, Deadline.after(60), RadiusOptions(tolerance=CLOSE))
        true = true_distance(asked, weights)
        assert found.certified <= true <= found.adversarial * (1 + 1e-12)
        if np.isinf(true):
            assert found.certified == np.inf
        else:
            assert found.closed
            assert found.adversarial == pytest.approx(true, rel=1e-12)
            assert true - found.certified <= CLOSE
