"""Write a network as an ONNX model: opset 17, IR version 8, which every onnxruntime since 1.12 reads.

Weights are written in the network's input type.  Weights read from a model of that type are written back
exactly; those that simplifiers computed in float64 are rounded to float32, so the written model is a
neighbour of the network, not its equal (``load`` of the written model gives the network it stands for).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from verifier.errors import ModelError, OutputPathError
from verifier.model.network import Network
from verifier.model.operators import Concat, Conv, Gather, Input, Linear, Operator, Relu, Reshape, Scale, Sum
from verifier.model.operators.affine import Shape

OPSET = 17
IR_VERSION = 8
INPUT, OUTPUT = "X", "Y"


def to_onnx(network: Network) -> ModelProto:
    """The checked model, with input X and output Y of the network's shapes.

    Raises ModelError when a weight is too large for float32, and for convolutions in float64, which
    onnxruntime cannot run.
    """
    writer = _Writer(network)
    for index in range(1, len(network.nodes)):
        writer.write(index)
    if len(network.nodes) == 1:
        writer.emit("Identity", [INPUT], output=OUTPUT)
    element = TensorProto.DOUBLE if network.input_dtype == "float64" else TensorProto.FLOAT
    graph = helper.make_graph(
        writer.nodes,
        network.name or "network",
        [helper.make_tensor_value_info(INPUT, element, network.input_shape)],
        [helper.make_tensor_value_info(OUTPUT, element, network.output_shape)],
        writer.weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, producer_name="nn-verifier", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def write(network: Network, path: str | Path) -> None:
    """Write the network to a file.  Raises OutputPathError when that is not possible."""
    data = to_onnx(network).SerializeToString()
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise OutputPathError(
            f"{path}: cannot be written ({error.strerror}); choose another place for the model"
        ) from None


class _Writer:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def write(self, index: int) -> None:
        """Write one IR node; its value gets the name ``_value(index)``."""
        node = self.network.nodes[index]
        sources = [self._value(source) for source in node.inputs]
        output = self._value(index)
        shapes = self.network.input_shapes(index)
        operator: Operator = node.operator
        match operator:
            case Linear():
                self._linear(operator, sources[0], shapes[0], output)
            case Conv():
                self._conv(operator, sources[0], output)
            case Scale():
                self._scale(operator, sources[0], output)
            case Gather():
                self._gather(operator, sources[0], output)
            case Reshape(shape=shape):
                self.emit("Reshape", [sources[0], self.integers(shape)], output)
            case Relu():
                self.emit("Relu", sources, output)
            case Sum():
                self.emit("Sum", sources, output)
            case Concat(axis=axis):
                self.emit("Concat", sources, output, axis=axis)
            case Input():
                raise AssertionError("only node 0 is an input")
            case _:
                raise AssertionError(f"no rule to write {type(operator).__name__}")

    def _linear(self, operator: Linear, source: str, shape: Shape, output: str) -> None:
        weight, bias = _array(operator.weight), _array(operator.bias)
        if len(shape) == 2:
            self.emit("Gemm", [source, self.floats(weight), self.floats(bias)], output, transB=1)
            return
        product = self.emit("MatMul", [source, self.floats(weight.T)])
        self.emit("Add", [product, self.floats(bias)], output)

    def _conv(self, operator: Conv, source: str, output: str) -> None:
        if self.network.input_dtype == "float64":
            raise ModelError("onnxruntime has no float64 convolution; write the network with float32 inputs")
        self.emit(
            "Conv",
            [source, self.floats(_array(operator.weight)), self.floats(_array(operator.bias))],
            output,
            kernel_shape=list(operator.weight.shape[2:]),
            strides=list(operator.stride),
            pads=list(operator.padding),
            dilations=list(operator.dilation),
            group=operator.groups,
        )

    def _scale(self, operator: Scale, source: str, output: str) -> None:
        scaled = self.emit("Mul", [source, self.floats(_array(operator.scale))])
        self.emit("Add", [scaled, self.floats(_array(operator.shift))], output)

    def _gather(self, operator: Gather, source: str, output: str) -> None:
        index = _array(operator.index).astype(np.int64)
        flat = self.emit("Reshape", [source, self.integers((-1,))])
        if (index < 0).any():
            # A zero behind the last entry, for the -1 of the index.
            flat = self.emit("Concat", [flat, self.floats(np.zeros(1))], axis=0)
        self.emit("Gather", [flat, self._keep(index)], output, axis=0)

    def emit(self, op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """A new ONNX node; returns the name of its value."""
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{len(self.nodes)}", **attributes))
        return name

    def floats(self, values: NDArray[Any]) -> str:
        """A weight in the network's input type."""
        with np.errstate(over="ignore"):
            stored = values.astype(self.network.input_dtype)
        if not np.isfinite(stored).all():
            raise ModelError(f"a weight is too large for {self.network.input_dtype}; scale the network down")
        return self._keep(stored)

    def integers(self, values: Shape) -> str:
        return self._keep(np.array(values, dtype=np.int64))

    def _keep(self, values: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def _value(self, index: int) -> str:
        if index == len(self.network.nodes) - 1 and index > 0:
            return OUTPUT
        return f"v{index}" if index else INPUT


def _array(values: Any) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().cpu().numpy()
    return array
