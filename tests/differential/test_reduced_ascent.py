"""Bounds and gradients on the reduced network against autograd on the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import networks
from verifier.bounds.beta_crown import Root, Rows, Splits, evaluate, reduced_regions
from verifier.bounds.crown import intermediate_bounds
from verifier.search.look_ahead import look_ahead

KINDS = {
    "dense": lambda rng: networks.dense(rng, (3, 6, 5, 5, 2)),
    "residual": lambda rng: networks.residual(rng, 5),
    "convolutional": networks.convolutional,
}


def regions(kind: str, seed: int, count: int = 7) -> tuple[Root, Rows, Splits]:
    """Random regions of a random network, some neurons split, with random slopes and multipliers."""
    rng = np.random.default_rng([seed, len(kind)])
    network = KINDS[kind](rng)
    lower, upper = (torch.from_numpy(side)[None] for side in networks.box(rng, network.n_inputs, 1.0))
    root = Root(network, lower, upper, intermediate_bounds(network, lower, upper))
    signs = torch.from_numpy(rng.choice([-1, 0, 0, 1], size=(count, root.size))).to(torch.int8)
    slopes, multipliers = torch.from_numpy(rng.random((2, count, root.size))).float()
    splits = Splits(signs, slopes, multipliers * (signs != 0))
    inputs = torch.from_numpy(rng.normal(size=(count, 1, network.n_inputs))) if seed % 2 else None
    outputs = torch.from_numpy(rng.normal(size=(count, 1, network.n_outputs)))
    return root, Rows(outputs, inputs, torch.from_numpy(rng.normal(size=(count, 1)))), splits


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(8))
def test_bounds_and_gradients_are_those_of_the_whole_network(kind, seed):
    root, rows, splits = regions(kind, seed)
    reduced = reduced_regions(root.fast, rows.float(), splits)
    if root.size == 0:
        assert reduced is None
        return
    assert reduced is not None
    values, gradients = reduced.ascent(splits.signs)([splits.slopes, splits.multipliers])
    assert values.numpy() == pytest.approx(evaluate(root, rows, splits).lower.numpy(), abs=1e-4, rel=1e-4)
    step = 1e-3
    by_slopes, by_multipliers = gradients()
    assert (by_slopes[splits.signs != 0] == 0).all()
    rng = np.random.default_rng(seed)
    direction = torch.from_numpy(rng.normal(size=splits.signs.shape)).float()
    for name, gradient, free in (
        ("slopes", by_slopes, splits.signs == 0),
        ("multipliers", by_multipliers, splits.signs != 0),
    ):
        moved = []
        for sign in (step, -step):
            shifted = {n: getattr(splits, n).clone() for n in ("slopes", "multipliers")}
            shifted[name] = shifted[name] + sign * direction * free
            moved.append(evaluate(root, rows, Splits(splits.signs, **shifted)).lower)
        slope = ((moved[0] - moved[1]) / (2 * step)).numpy()
        expected = (gradient * direction * free).sum(1).numpy()
        # Piecewise smooth: a kink between the two points may spoil the one or the other.
        agree = np.isclose(slope, expected, atol=1e-2, rtol=1e-2)
        assert agree.mean() >= 0.5, (slope, expected)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(8))
def test_look_ahead_names_an_undecided_neuron(kind, seed):
    root, rows, splits = regions(kind, seed)
    open_regions = torch.nonzero((splits.signs == 0).any(1)).squeeze(1)
    if not len(open_regions):
        return
    splits, rows = splits.pick(open_regions), rows.pick(open_regions)
    guess = (splits.signs == 0).int().argmax(1)
    chosen = look_ahead(root, rows, splits, guess)
    assert (splits.signs.gather(1, chosen[:, None]) == 0).all()
