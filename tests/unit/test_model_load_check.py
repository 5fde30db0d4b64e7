"""The load check accepts what differs by rounding and rejects what differs by more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from onnx import TensorProto

from support.networks import convolutional, dense, residual
from support.onnx_models import f32, make, node, read
from verifier.errors import ModelError
from verifier.model.load_check import check, expectation
from verifier.model.network import Network
from verifier.model.operators import Affine, Conv, Gather, Linear, Scale
from verifier.model.replay import OnnxReplay
from verifier.model.write import to_onnx


def replay_of(network: Network) -> OnnxReplay:
    return OnnxReplay(to_onnx(network).SerializeToString())


def deep(rng: np.random.Generator) -> Network:
    return dense(rng, (20, *[50] * 12, 5))


NETWORKS = [residual, convolutional, deep, lambda rng: dense(rng, (784, 100, 10)), lambda rng: dense(rng, (1, 1))]


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("seed", range(8))
def test_differences_by_rounding_stay_far_below_the_tolerance(build, seed):
    rng = np.random.default_rng(seed)
    network = build(rng)
    replay = replay_of(network)
    check(network, replay, seed=seed)
    x = (rng.normal(size=(10, network.n_inputs)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32).astype(float)
    x[0] = 0.0
    expected, tolerance = expectation(network, x, rng)
    found = np.stack([replay.run(point) for point in x])
    assert np.all(np.abs(found - expected) <= 0.3 * tolerance)
    assert tolerance.max() <= 1e-2 * np.abs(expected).max()


def changed(network: Network, place: int, /, **changes: object) -> Network:
    nodes = list(network.nodes)
    operator = dataclasses.replace(nodes[place].operator, **changes)
    nodes[place] = dataclasses.replace(nodes[place], operator=operator)
    return dataclasses.replace(network, nodes=tuple(nodes))


@pytest.mark.parametrize("build", [residual, convolutional, deep])
def test_small_faults_in_any_operator_are_found(build):
    """Weights that are off by 1 %, or a wrong order of entries."""
    network = build(np.random.default_rng(3))
    replay = replay_of(network)
    for index, entry in enumerate(network.nodes):
        operator = entry.operator
        if isinstance(operator, Linear | Conv | Scale):
            name = "scale" if isinstance(operator, Scale) else "weight"
            values = getattr(operator, name) * 1.01
        elif isinstance(operator, Gather):
            name, values = "index", operator.index.flip(-1)
        else:
            continue
        with pytest.raises(ModelError, match=r"output \d is .* in onnxruntime but .*rounding explains"):
            check(changed(network, index, **{name: values}), replay, points=20)


def test_points_come_from_the_box_and_include_corners():
    seen = []

    class Spy:
        def run(self, x: np.ndarray) -> np.ndarray:
            seen.append(x)
            return network.forward(torch.from_numpy(x[None]))[0].numpy()

    network = dense(np.random.default_rng(0), (3, 4, 2))
    low, high = np.array([0.1, -5.0, 2.0]), np.array([0.1, -4.0, 2.0])
    check(network, Spy(), low, high, points=6)
    points = np.array(seen)
    assert len(points) == 6
    assert np.all(points[:, 0] == np.float32(0.1))
    assert np.all((points[:, 1] >= -5) & (points[:, 1] <= -4))
    assert {-5.0, -4.0} <= set(points[:, 1])
    assert len(set(points[:, 1])) > 3
    first = list(seen)
    check(network, Spy(), low, high, points=6)
    assert all(np.array_equal(a, b) for a, b in zip(first, seen[6:], strict=True))


@pytest.mark.parametrize(("op", "weight"), [("Mul", 3e38), ("Div", 1e-38)])
def test_overflow_in_onnxruntime(op, weight):
    model = make([node(op, ["x", "w"], ["h"]), node("Mul", ["h", "w"])], (1, 3), {"w": np.float32(weight)})
    if op == "Mul":
        with pytest.raises(ModelError, match=r"NaN or infinite output .* for the input"):
            read(model)
    else:
        read(model)


def test_a_different_number_of_outputs():
    rng = np.random.default_rng(0)
    replay = replay_of(dense(rng, (3, 4, 2)))
    with pytest.raises(ModelError, match="2 output values where 5 were expected"):
        check(dense(rng, (3, 4, 5)), replay)


def test_cancellation_in_fused_offsets_is_allowed_for():
    """(x - 1000) W + 1000 W: the fused offset is small, what onnxruntime rounds is not."""
    rng = np.random.default_rng(0)
    weight = f32(rng, 30, 4)
    nodes = [node("Sub", ["x", "m"], ["c"]), node("MatMul", ["c", "w"], ["h"]), node("Add", ["h", "b"])]
    weights = {"m": np.full(30, 1000, np.float32), "w": weight, "b": 1000 * weight.sum(axis=0, dtype=np.float64)}
    weights["b"] = weights["b"].astype(np.float32)
    network, replay = read(make(nodes, (1, 30), weights))
    check(network, replay, np.full(30, -1e-3), np.full(30, 1e-3), points=20)


def test_many_outputs():
    network = dense(np.random.default_rng(0), (5, 20, 500))
    replay = replay_of(network)
    check(network, replay)
    operator = network.nodes[-1].operator
    assert isinstance(operator, Linear)
    with pytest.raises(ModelError, match="output"):
        check(changed(network, len(network.nodes) - 1, weight=operator.weight.roll(1, 0)), replay)


def test_float64_models_are_held_to_float64_accuracy():
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3))}
    network, replay = read(make([node("MatMul", ["x", "w"])], (1, 4), weights, dtype=TensorProto.DOUBLE))
    check(network, replay, points=20)
    operator = network.nodes[1].operator
    assert isinstance(operator, Affine)
    with pytest.raises(ModelError, match="output"):
        check(changed(network, 1, weight=operator.weight.float().double()), replay)
