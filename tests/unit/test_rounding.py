"""The rounding-error model: against exact rational arithmetic, and where ignoring it would prove a falsehood."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from verifier.bounds.crown import backward, intermediate_bounds, relax
from verifier.bounds.interval import interval_bounds
from verifier.bounds.level import Level
from verifier.bounds.margins import margin_bounds
from verifier.bounds.rounding import gamma
from verifier.deadline import Deadline
from verifier.model.network import build
from verifier.model.operators import Input, Linear, Relu
from verifier.vnnlib.spec import Disjunct, LinearConstraints


def cancelling(rng, width=6, size=1e8):
    """A network whose last layer cancels large values, so that float64 loses about eight digits."""
    first = Linear(torch.from_numpy(rng.normal(size=(width, 3)) * size), torch.from_numpy(rng.normal(size=width)))
    big = rng.normal(size=(2, width)) * size
    second = Linear(torch.from_numpy(big), torch.from_numpy(rng.normal(size=2)))
    return build([(Input((1, 3)), ()), (first, (0,)), (Relu(), (1,)), (second, (2,))])


def exact(network, x):
    """The outputs as fractions."""
    values = [Fraction(float(v)) for v in x]
    for node in network.nodes[1:]:
        if isinstance(node.operator, Relu):
            values = [max(v, Fraction(0)) for v in values]
            continue
        weight, bias = node.operator.weight.numpy(), node.operator.bias.numpy()
        values = [
            sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True)), Fraction(float(b)))
            for row, b in zip(weight, bias, strict=True)
        ]
    return values


@pytest.mark.parametrize("seed", range(20))
def test_bounds_of_a_single_point_contain_the_exact_value(seed):
    rng = np.random.default_rng(seed)
    network = cancelling(rng)
    x = rng.normal(size=3)
    point = torch.from_numpy(x)[None]
    truth = exact(network, x)
    for bounds in (interval_bounds(network, point, point)[-1], intermediate_bounds(network, point, point)[-1]):
        assert bounds.level is Level.RIGOROUS
        for j, value in enumerate(truth):
            assert Fraction(float(bounds.lower[0, 0, j])) <= value <= Fraction(float(bounds.upper[0, 0, j]))
    rows = torch.eye(2, dtype=torch.float64).reshape(1, 2, 1, 2)
    relaxed = relax(network, intermediate_bounds(network, point, point))
    least = backward(relaxed, len(network.nodes) - 1, rows).over_box(point, point)
    for j, value in enumerate(truth):
        assert Fraction(float(least[0, j])) <= value


def test_without_the_error_term_some_bound_would_be_wrong():
    """Guards the guard: the cancelling networks above really need the rounding error."""
    wrong = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        network = cancelling(rng)
        x = rng.normal(size=3)
        computed = network.forward(torch.from_numpy(x)[None])[0]
        wrong += sum(Fraction(float(c)) > value for c, value in zip(computed, exact(network, x), strict=True))
    assert wrong > 0


def claims(network, disjunct):
    """(margin bound, level) of one disjunct."""
    (group,) = margin_bounds(network, [disjunct], Deadline.never())
    return group.margins[0], group.level


def test_float32_claims_closings_that_the_rigorous_evaluation_refuses():
    """The property holds at the only point of the box, by a hair: a closing is a false unsat."""
    false_claims = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        network = cancelling(rng, size=1e3)
        x = rng.normal(size=3).astype(np.float32).astype(np.float64)
        value = exact(network, x)[0]
        # -y_0 <= -threshold with the threshold one float64 below the exact value
        threshold = np.nextafter(float(value), -np.inf) - 1e-9 * abs(float(value))
        rows = LinearConstraints(np.zeros((1, 3)), np.array([[-1.0, 0.0]]), np.array([-threshold]), np.zeros(1, bool))
        disjunct = Disjunct(x, x, rows)
        assert value >= Fraction(float(threshold))
        estimate, weak = claims(network.to(torch.float32), disjunct)
        assert weak is Level.ESTIMATE
        false_claims += estimate > 0
        bound, level = claims(network, disjunct)
        assert level is Level.RIGOROUS
        assert bound <= 0
    assert false_claims > 0, "float32 search no longer errs here: pick harder numbers"


def test_gamma_refuses_sums_beyond_the_model():
    with pytest.raises(ValueError, match="too long"):
        gamma(10**15)
