"""Small ONNX models for tests, and the comparison of what is read from them with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from verifier.model import graph
from verifier.model.load_check import expectation
from verifier.model.network import Network
from verifier.model.operators import Affine
from verifier.model.parse import parse
from verifier.model.replay import OnnxReplay

Weights = dict[str, np.ndarray]


def node(op: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> NodeProto:
    """A node named after its operator; the output is ``y`` unless told otherwise."""
    outputs = ["y"] if outputs is None else outputs
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attributes)


def make(
    nodes: list[NodeProto],
    shape: tuple[Any, ...],
    weights: Weights | None = None,
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
    output: str = "y",
) -> onnx.ModelProto:
    """A model with input ``x`` of the given shape (strings and None for dynamic sizes)."""
    target = onnx.ValueInfoProto(name=output)
    target.type.tensor_type.elem_type = dtype
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    inputs = [helper.make_tensor_value_info("x", dtype, shape)]
    graph_proto = helper.make_graph(nodes, "test", inputs, [target], initializers)
    return helper.make_model(graph_proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def f32(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def read(model: onnx.ModelProto) -> tuple[Network, OnnxReplay]:
    """What ``load`` would make of the model, without a file."""
    network, replay, _ = parse(model.SerializeToString(), Path("model.onnx"))
    return network, replay


def lowered(model: onnx.ModelProto) -> Network:
    """The network before simplification."""
    source = model.graph.input[0]
    shape = tuple(dim.dim_value or 1 for dim in source.type.tensor_type.shape.dim)
    dtype = "float64" if source.type.tensor_type.elem_type == TensorProto.DOUBLE else "float32"
    return graph.lower(model, source.name, shape, "test", dtype)


def agree(model: onnx.ModelProto, seed: int = 0, points: int = 5) -> Network:
    """Read the model and compare it with onnxruntime, before and after simplification; returns the network."""
    network, replay = read(model)
    raw = lowered(model)
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(points, network.n_inputs)) * rng.choice([0.3, 1, 5])).astype(np.float32).astype(float)
    expected, tolerance = expectation(network, x, rng)
    found = np.stack([replay.run(point) for point in x])
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= tolerance), (found, expected, tolerance)
    # The tolerance must not be vacuous: far below what a wrong weight or index would change.
    assert tolerance.max() <= 5e-3 * max(np.abs(expected).max(), 1e-3)
    plain = raw.forward(torch.from_numpy(x)).numpy()
    assert np.allclose(plain, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    check_invariants(network)
    check_invariants(raw)
    return network


def check_invariants(network: Network) -> None:
    """Topological order, stated shapes, finite parameters that the operators accept."""
    values = network.values(torch.zeros(2, network.n_inputs, dtype=torch.float64))
    for i, (entry, value) in enumerate(zip(network.nodes, values, strict=True)):
        assert tuple(value.shape[1:]) == entry.shape
        assert all(source < i for source in entry.inputs)
        if isinstance(entry.operator, Affine):
            offset = entry.operator.offset(entry.shape)
            assert offset is None or tuple(offset.shape) == entry.shape
            assert entry.operator.terms(network.input_shapes(i)) >= 1
