"""The largest margin loss against enumeration: with the label's score raised by it, the distance is epsilon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.networks import dense
from support.oracle import minimum_distance
from support.replay import TorchReplay
from verifier import maximise_loss
from verifier.model.network import Network
from verifier.model.operators import Linear
from verifier.model.read import Model
from verifier.vnnlib.spec import Disjunct, LinearConstraints

TOLERANCE = 1e-3


def raised(network: Network, label: int, amount: float) -> Network:
    """The same network with the label's score higher."""
    last = network.nodes[-1]
    assert isinstance(last.operator, Linear)
    bias = last.operator.bias.clone()
    bias[label] += amount
    return replace(network, nodes=(*network.nodes[:-1], replace(last, operator=replace(last.operator, bias=bias))))


def distance(network: Network, x: np.ndarray, label: int, norm: str, weights: np.ndarray) -> float:
    n = len(x)
    found = []
    for other in set(range(network.n_outputs)) - {label}:
        row = np.zeros((1, network.n_outputs))
        row[0, label], row[0, other] = 1.0, -1.0
        constraints = LinearConstraints(np.broadcast_to(0.0, (1, n)), row, np.zeros(1), np.zeros(1, bool))
        disjunct = Disjunct(np.zeros(n), np.ones(n), constraints)
        found.append(minimum_distance(network, disjunct, x, norm, weights))
    return min(found)


@pytest.mark.parametrize("norm", ["linf", "l1", "l2", "l0"])
@pytest.mark.parametrize("seed", range(6))
def test_loss_is_where_the_radius_meets_epsilon(seed: int, norm: str) -> None:
    rng = np.random.default_rng(seed)
    network = dense(rng, (3, 5, 4, 3))
    model = Model(network, TorchReplay(network), Path("model.onnx"), "")
    x = rng.uniform(0, 1, 3).astype(np.float32).astype(np.float64)
    label = int(network.forward(torch.from_numpy(x)[None]).argmax())
    epsilon = float(rng.integers(1, 3)) if norm == "l0" else float(rng.uniform(0.1, 0.8))
    weights = np.ones(3)
    found = maximise_loss(model, x, epsilon=epsilon, norm=norm, tolerance=TOLERANCE, timeout=30)
    assert not found.reason
    assert found.attained <= found.certified <= found.attained + TOLERANCE
    y = network.forward(torch.from_numpy(found.witness.ravel())[None])[0].numpy()
    assert np.delete(y, label).max() - y[label] == pytest.approx(found.attained)
    # With the label raised by more than the largest loss nothing near is misclassified; by less, something is.
    above = distance(raised(network, label, found.certified + 1e-6), x, label, norm, weights)
    below = distance(raised(network, label, found.attained - 1e-6), x, label, norm, weights)
    assert above > epsilon - 1e-6
    assert below <= epsilon + 1e-6
