"""Sampled points stay inside every bound, on every kind of network, box and region batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import networks
from verifier.bounds.alpha_crown import AlphaOptions, optimised_bounds
from verifier.bounds.crown import backward, intermediate_bounds, relax
from verifier.bounds.interval import interval_bounds
from verifier.bounds.level import Level
from verifier.bounds.margins import margin_bounds
from verifier.deadline import Deadline
from verifier.vnnlib.spec import Disjunct, LinearConstraints

KINDS = {
    "dense": lambda rng: networks.dense(rng, (3, 7, 6, 2)),
    "residual": networks.residual,
    "convolutional": networks.convolutional,
}
cases = given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32 - 1), radius=st.sampled_from([0, 0.05, 1]))


def boxes(rng, network, radius, count=3):
    """(lower, upper) tensors [count, n_inputs] and points inside, [count, 300, n_inputs], corners among them."""
    pairs = [networks.box(rng, network.n_inputs, radius) for _ in range(count)]
    lower, upper = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    share = rng.uniform(size=(count, 300, network.n_inputs))
    share[:, :100] = share[:, :100].round()
    points = np.clip(lower[:, None] + share * (upper - lower)[:, None], lower[:, None], upper[:, None])
    return torch.from_numpy(lower), torch.from_numpy(upper), torch.from_numpy(points)


@cases
@settings(max_examples=40, deadline=None)
def test_every_node_value_lies_inside_its_bounds(kind, seed, radius):
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    lower, upper, points = boxes(rng, network, radius)
    interval, crown = interval_bounds(network, lower, upper), intermediate_bounds(network, lower, upper)
    for b in range(len(lower)):
        for value, loose, tight in zip(network.values(points[b]), interval, crown, strict=True):
            for bounds in (loose, tight):
                assert bounds.level is Level.RIGOROUS
                assert (value >= bounds.lower[b]).all()
                assert (value <= bounds.upper[b]).all()
            assert (tight.lower[b] >= loose.lower[b] - 1e-9).all()
            assert (tight.upper[b] <= loose.upper[b] + 1e-9).all()


@cases
@settings(max_examples=40, deadline=None)
def test_linear_bounds_lie_below_the_rows_at_every_point(kind, seed, radius):
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    lower, upper, points = boxes(rng, network, radius)
    nodes = intermediate_bounds(network, lower, upper)
    slopes = {k: torch.from_numpy(rng.uniform(size=(3, 4, *network.nodes[k].shape))) for k in network.relus}
    rows = torch.from_numpy(rng.normal(size=(3, 4, *network.output_shape)))
    input_rows = torch.from_numpy(rng.normal(size=(3, 4, network.n_inputs)))
    for chosen in ({}, slopes):
        bound = backward(relax(network, nodes, chosen), len(network.nodes) - 1, rows, input_rows)
        least = bound.over_box(lower, upper)
        for b in range(len(lower)):
            output = network.forward(points[b])
            values = output @ rows[b].flatten(1).T + points[b] @ input_rows[b].T
            lines = points[b] @ bound.coefficients[b].T + bound.constants[b]
            # 1e-12: the line is evaluated here without the error that over_box subtracts
            assert (values >= lines - 1e-12).all()
            assert (values >= least[b]).all()


@cases
@settings(max_examples=30, deadline=None)
def test_margin_bounds_lie_below_the_margin_at_every_point(kind, seed, radius):
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    lower, upper, points = boxes(rng, network, radius)
    disjuncts = []
    for b in (0, 1, 0, 2):
        count = int(rng.integers(1, 4))
        inputs = rng.normal(size=(count, network.n_inputs)) * rng.integers(0, 2)
        outputs = rng.normal(size=(count, network.n_outputs))
        constraints = LinearConstraints(inputs, outputs, rng.normal(size=count), np.zeros(count, bool))
        disjuncts.append((b, Disjunct(lower[b].numpy(), upper[b].numpy(), constraints)))
    seen = 0
    for group in margin_bounds(network, [d for _, d in disjuncts], Deadline.never()):
        for position, margin in zip(group.group.positions, group.margins, strict=True):
            b, disjunct = disjuncts[position]
            output = network.forward(points[b]).numpy()
            margins = [disjunct.constraints.margins(x, y).max() for x, y in zip(points[b].numpy(), output, strict=True)]
            assert min(margins) >= margin
            seen += 1
    assert seen == len(disjuncts)


@cases
@settings(max_examples=25, deadline=None)
def test_optimised_bounds_contain_every_value_and_are_no_looser(kind, seed, radius):
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    lower, upper, points = boxes(rng, network, radius, count=1)
    crown = intermediate_bounds(network, lower, upper)
    better = optimised_bounds(network, crown, Deadline.never(), AlphaOptions(iterations=6)).nodes
    for value, before, after in zip(network.values(points[0]), crown, better, strict=True):
        assert after.level is Level.RIGOROUS
        assert (value >= after.lower[0]).all()
        assert (value <= after.upper[0]).all()
        assert (after.lower >= before.lower).all()
        assert (after.upper <= before.upper).all()


def test_optimised_slopes_tighten_deep_networks():
    rng = np.random.default_rng(2)
    network = networks.dense(rng, (4, 12, 12, 12, 12, 1))
    lower, upper, _ = boxes(rng, network, 1.0, count=1)
    crown = intermediate_bounds(network, lower, upper)
    better = optimised_bounds(network, crown, Deadline.never()).nodes
    width = [sum(float((b.upper - b.lower).sum()) for b in bounds) for bounds in (crown, better)]
    assert width[1] < 0.99 * width[0]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_equal_boxes_in_a_batch_get_equal_bounds(kind):
    rng = np.random.default_rng(5)
    network = KINDS[kind](rng)
    lower, upper, _ = boxes(rng, network, 0.7, count=1)
    alone = intermediate_bounds(network, lower, upper)
    together = intermediate_bounds(network, lower.expand(3, -1), upper.expand(3, -1))
    for joint, single in zip(together, alone, strict=True):
        for b in range(3):
            torch.testing.assert_close(joint.lower[b], single.lower[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(joint.upper[b], single.upper[0], rtol=1e-9, atol=1e-9)


def test_an_expired_deadline_leaves_sound_interval_bounds():
    rng = np.random.default_rng(1)
    network = networks.dense(rng, (3, 7, 6, 2))
    lower, upper, points = boxes(rng, network, 0.5)
    hurried = intermediate_bounds(network, lower, upper, Deadline.after(-1))
    for b in range(len(lower)):
        for value, bounds in zip(network.values(points[b]), hurried, strict=True):
            assert ((value >= bounds.lower[b]) & (value <= bounds.upper[b])).all()
