"""Gradients through flat ReLUs: true values, true gradients where no chord is asked for, and sight where it is."""

from __future__ import annotations

import numpy as np
import torch

from support import networks
from verifier.radius.chords import ChordGradients


def gradient(chords: ChordGradients, x: torch.Tensor, first: float, later: float) -> torch.Tensor:
    point = x.clone().requires_grad_(True)
    shares = (torch.full((len(x),), share, dtype=x.dtype) for share in (first, later))
    (found,) = torch.autograd.grad(chords.forward(point, *shares).sum(), point)
    return found


def test_values_and_slopes_without_chords_are_the_networks():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network = (networks.small_convolutional if seed % 2 else networks.residual)(rng)
        n = network.n_inputs
        x = torch.from_numpy(rng.uniform(-1, 1, (7, n)))
        chords = ChordGradients(network, -torch.ones(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64))
        half = torch.full((7,), 0.5, dtype=torch.float64)
        assert torch.allclose(chords.forward(x, half, half), network.forward(x))
        point = x.clone().requires_grad_(True)
        (true,) = torch.autograd.grad(network.forward(point).sum(), point)
        assert torch.allclose(gradient(chords, x, 0.0, 0.0), true)
        assert not torch.allclose(gradient(chords, x, 1.0, 0.0), true)


def test_a_chord_sees_what_an_inactive_neuron_gains():
    network = networks.dense(np.random.default_rng(0), (1, 1, 1))
    first, last = network.nodes[1].operator, network.nodes[3].operator
    first.weight.fill_(2.0)
    first.bias.fill_(-1.0)
    last.weight.fill_(3.0)
    lower, upper = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    chords = ChordGradients(network, lower, upper)
    x = torch.full((1, 1), 0.2, dtype=torch.float64)
    assert float(gradient(chords, x, 0.0, 1.0)) == 0.0
    # The input ranges over [-1, 1], so that the chord's slope is a half.
    assert abs(float(gradient(chords, x, 1.0, 0.0)) - 3.0 * 0.5 * 2.0) < 1e-6
