"""Chains of elementwise nodes between one linear layer and the next, evaluated by onnxruntime.

A chain may also move values (Reshape, Transpose, ...).  All its elementwise operators are monotone in the one value
that is not constant, so the whole is a monotone function of every entry; see ``steps``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from verifier.model.session import open_session

Floats = NDArray[np.float64]
AnyArray = NDArray[np.generic]

MONOTONE = frozenset(
    (
        *("Identity", "Cast", "Dropout", "Neg", "Not", "Sign", "Round", "Floor", "Ceil", "Relu", "LeakyRelu", "Clip"),
        *("Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign", "Softplus", "Elu", "Selu", "BatchNormalization"),
        *("Add", "Sub", "Mul", "Max", "Min", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    )
)
"""Monotone in each of their inputs while the others are constant.  Div and Where are, in one input (see below)."""
FIRST_ONLY = frozenset(("Div", "Where", "BatchNormalization", "Clip"))
"""Only their first input may depend on the network's input."""
STEPS = frozenset(("Sign", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Round", "Floor", "Ceil"))
MOVEMENT = frozenset(("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather"))
_IR_VERSION = 8
_ELEMENTS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def monotone(node: NodeProto, position: int) -> bool:
    """Whether the node is a monotone elementwise function of its input number ``position``, the rest constant."""
    if node.op_type in FIRST_ONLY:
        return position == 0
    return node.op_type in MONOTONE


class Chain:
    """The nodes as a function of one entry each.

    nodes: in order.  source, shape: the tensor they start from.  index: (*result shape), which entry of it every entry
    of the result depends on; no entry twice.  constants: what else the nodes read.
    uniform: every entry is the same function of its source.
    """

    def __init__(
        self,
        nodes: Sequence[NodeProto],
        source: str,
        shape: tuple[int, ...],
        index: NDArray[np.int64],
        constants: dict[str, AnyArray],
        opsets: Sequence[onnx.OperatorSetIdProto],
    ) -> None:
        self._index, self._shape = index.reshape(-1), shape
        self._source = source
        needed = {name for node in nodes for name in node.input}
        tensors = [
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
            for name, value in constants.items()
            if name in needed
        ]
        self.uniform = all(
            np.size(constants[name]) == 1 for node in nodes for name in _operands(node) if name in constants
        )
        target = nodes[-1].output[0]
        graph = helper.make_graph(
            list(nodes),
            "chain",
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
            [onnx.ValueInfoProto(name=target)],
            tensors,
        )
        model = helper.make_model(graph, opset_imports=list(opsets), ir_version=_IR_VERSION)
        self._session = open_session(model.SerializeToString(), optimise=False)

    def __call__(self, values: Floats) -> Floats:
        """(n,) to (n,), n the number of entries of the result, in C order."""
        feed = np.zeros(int(np.prod(self._shape)), np.float32)
        feed[self._index] = values
        (result,) = self._session.run(None, {self._source: feed.reshape(self._shape)})
        return np.asarray(result).reshape(-1).astype(np.float64)


def _operands(node: NodeProto) -> Sequence[str]:
    """The names of a node's inputs that are numbers it computes with: not shapes or axes."""
    return node.input[:1] if node.op_type in MOVEMENT else node.input


def exact_offsets(nodes: Sequence[NodeProto], constants: dict[str, AnyArray]) -> bool:
    """Whether the chain only adds multiples of 1/8 before its first step: then no order of summation rounds."""
    for node in nodes:
        if node.op_type in STEPS:
            return all(_eighths(constants[name]) for name in node.input if name in constants)
        if node.op_type in MOVEMENT or node.op_type in ("Identity", "Neg", "Dropout"):
            continue
        if node.op_type not in ("Add", "Sub"):
            return False
        if not all(_eighths(constants[name]) for name in node.input if name in constants):
            return False
    return True


def added_before_step(nodes: Sequence[NodeProto], constants: dict[str, AnyArray]) -> float | None:
    """The largest sum of absolute values that the chain adds before its first step; None where it does more."""
    total = 0.0
    for node in nodes:
        if node.op_type in STEPS:
            return total + _largest(node, constants)
        if node.op_type in ("Add", "Sub"):
            total += _largest(node, constants)
        elif node.op_type not in MOVEMENT and node.op_type not in ("Identity", "Neg", "Dropout"):
            return None
    return total


def _largest(node: NodeProto, constants: dict[str, AnyArray]) -> float:
    return sum(float(np.max(np.abs(constants[name]), initial=0.0)) for name in node.input if name in constants)


def _eighths(array: AnyArray) -> bool:
    values = np.asarray(array, np.float64) * 8
    return bool(np.all(values == np.rint(values)) and np.all(np.abs(values) < 2**22))
