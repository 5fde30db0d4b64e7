"""Networks written as ONNX come back the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch

from support.networks import convolutional, dense, residual
from verifier.errors import ModelError, OutputPathError
from verifier.model.load_check import check
from verifier.model.network import Network, build
from verifier.model.operators import Concat, Conv, Gather, Input, Linear, Relu, Reshape, Scale, Sum
from verifier.model.read import load
from verifier.model.replay import OnnxReplay
from verifier.model.write import to_onnx, write


def tensor(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32)).double()


def stacked(rng: np.random.Generator) -> Network:
    """Dense layers on other ranks than two, a batch of two, nested joins."""
    nodes = [
        (Input((2, 3, 4)), ()),
        (Linear(tensor(rng, 5, 4), tensor(rng, 5)), (0,)),
        (Relu(), (1,)),
        (Gather(torch.from_numpy(rng.integers(-1, 30, size=(3, 2, 5)))), (2,)),
        (Reshape((2, 3, 5)), (3,)),
        (Sum(), (2, 4, 2)),
        (Concat(2), (5, 0)),
        (Scale(tensor(rng, 3, 1), tensor(rng, 9)), (6,)),
    ]
    return build(nodes, "stacked")


def batched_convolution(rng: np.random.Generator) -> Network:
    conv = Conv(tensor(rng, 4, 1, 2, 3), tensor(rng, 4), (2, 1), (1, 0, 2, 1), (1, 2), 2)
    return build([(Input((3, 2, 5, 7)), ()), (conv, (0,))], "batched")


def vector(rng: np.random.Generator) -> Network:
    return build([(Input((4,)), ()), (Linear(tensor(rng, 1, 4), tensor(rng, 1)), (0,))], "vector")


NETWORKS = [residual, convolutional, stacked, batched_convolution, vector, lambda rng: dense(rng, (3, 5, 2))]


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(make, dtype, tmp_path):
    rng = np.random.default_rng(0)
    network = dataclasses.replace(make(rng), input_dtype=dtype)
    if dtype == "float64" and any(isinstance(entry.operator, Conv) for entry in network.nodes):
        with pytest.raises(ModelError, match="onnxruntime has no float64 convolution"):
            to_onnx(network)
        return
    path = tmp_path / "written.onnx"
    write(network, path)
    model = load(path)
    assert model.network.input_dtype == dtype
    assert model.network.input_shape == network.input_shape
    assert model.network.output_shape == network.output_shape
    x = torch.from_numpy(rng.normal(size=(6, network.n_inputs)))
    assert torch.allclose(model.network.forward(x), network.forward(x), rtol=1e-12, atol=1e-12)
    check(network, model.replay)


def test_versions():
    proto = to_onnx(residual(np.random.default_rng(0)))
    assert proto.ir_version == 8
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 17)]
    onnx.checker.check_model(proto, full_check=True)


def test_float32_weights_are_written_exactly():
    network = dense(np.random.default_rng(0), (3, 4, 2))
    proto = to_onnx(network)
    stored = [onnx.numpy_helper.to_array(weight) for weight in proto.graph.initializer]
    first = network.nodes[1].operator
    assert isinstance(first, Linear)
    assert all(array.dtype == np.float32 for array in stored)
    assert np.array_equal(stored[0].astype(float), first.weight.numpy())


def test_an_input_alone():
    network = Network((build([(Input((1, 3)), ())]).nodes[0],))
    replay = OnnxReplay(to_onnx(network).SerializeToString())
    assert replay.run(np.arange(3.0)).tolist() == [0, 1, 2]


def test_weights_too_large_for_float32():
    scale = Scale(torch.tensor([1e300], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    network = build([(Input((1, 1)), ()), (scale, (0,))])
    with pytest.raises(ModelError, match="too large for float32"):
        to_onnx(network)
    to_onnx(dataclasses.replace(network, input_dtype="float64"))


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputPathError, match="cannot be written"):
        write(dense(np.random.default_rng(0), (1, 1)), tmp_path / "no" / "folder.onnx")
