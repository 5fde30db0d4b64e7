"""Output ranges against enumeration of activation patterns, by input splitting and by branching on ReLUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.networks import box, dense, residual, small_convolutional
from support.oracle import minimum_margin
from support.replay import TorchReplay
from verifier import output_range
from verifier.model.network import Network
from verifier.model.read import Model
from verifier.vnnlib.spec import Disjunct, LinearConstraints

TOLERANCE = 0.01


def extremes(network: Network, lower: np.ndarray, upper: np.ndarray, row: np.ndarray) -> tuple[float, float]:
    found = []
    for sign in (1.0, -1.0):
        none = np.broadcast_to(0.0, (1, len(lower)))
        constraints = LinearConstraints(none, sign * row[None], np.zeros(1), np.zeros(1, bool))
        found.append(sign * minimum_margin(network, Disjunct(lower, upper, constraints))[0])
    return found[0], found[1]


@pytest.mark.parametrize("make", [lambda rng: dense(rng, (2, 6, 4, 2)), residual, small_convolutional])
@pytest.mark.parametrize("seed", range(5))
def test_range_is_that_of_enumeration(seed: int, make) -> None:
    rng = np.random.default_rng(seed)
    network = make(rng)
    model = Model(network, TorchReplay(network), Path("model.onnx"), "")
    lower, upper = box(rng, network.n_inputs, 1.0)
    row = rng.normal(size=network.n_outputs) if seed % 2 else np.eye(network.n_outputs)[0]
    found = output_range(model, (lower, upper), row if seed % 2 else 0, TOLERANCE, timeout=60)
    least, greatest = extremes(network, lower, upper, row)
    assert not found.reason
    assert found.lower <= least + 1e-7
    assert greatest - 1e-7 <= found.upper
    assert least - 1e-7 <= found.attained_lower <= found.lower + TOLERANCE
    assert found.upper - TOLERANCE <= found.attained_upper <= greatest + 1e-7
    assert found.gap <= TOLERANCE
    for point, value in ((found.lowest_point, found.attained_lower), (found.highest_point, found.attained_upper)):
        assert ((lower <= point) & (point <= upper)).all()
        assert row @ model.replay.run(point) == pytest.approx(value)
