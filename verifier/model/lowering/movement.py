"""Operators that only move values: Reshape, Transpose, Slice, Gather, Pad, Split, Expand and the like.

Such a node does the same to any tensor, so onnxruntime itself is asked what it does: it runs the node once on
the tensor of positions 0, 1, 2, ... and the result says which entry went where.  All versions, attributes and
corner cases are thus onnxruntime's own.  Values in the same order become a ``Reshape``, others a ``Gather``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from verifier.model.diagnostics import element_name
from verifier.model.folding import evaluate
from verifier.model.lowering.call import Call, Constant, UnsupportedError, Value, Variable, positions
from verifier.model.lowering.registry import Rules
from verifier.model.operators import Concat

NOTHING = -1.0


def move(call: Call) -> tuple[Value | None, ...]:
    """Lower a node that moves the entries of its first input; its other inputs are constant."""
    call.ignore_all()
    x = call.value(0)
    if not isinstance(x, Variable):
        raise UnsupportedError("it picks from a constant by something the network computes")
    others = [
        None if call.inputs[i] is None else call.constant(i, f"input number {i + 1}")
        for i in range(1, len(call.inputs))
    ]
    # float64 holds every position exactly and, unlike int64, has a kernel for every one of these operators.
    start: NDArray[Any] = positions(x).astype(np.float64)
    results = evaluate(call.node, [start, *others], call.opsets)
    return tuple(_moved(call, x, result) if i in call.needed else None for i, result in enumerate(results))


def _moved(call: Call, x: Variable, result: NDArray[Any]) -> Variable:
    index = result.astype(np.int64)
    if index.size == 0:
        raise UnsupportedError(f"its result is empty (shape {index.shape})")
    if index.size == x.size and np.array_equal(index.reshape(-1), np.arange(x.size)):
        return call.builder.reshape(x, index.shape)
    return call.builder.gather(x, index)


def pass_through(call: Call) -> Value:
    """Identity, and Dropout at inference."""
    return call.value(0)


def dropout(call: Call) -> Value:
    call.ignore("ratio", "seed", "is_test")
    if call.has(2) and bool(np.any(call.constant(2, "training_mode"))):
        raise UnsupportedError("training_mode = 1; export the model for inference")
    if 1 in call.needed:
        raise UnsupportedError("its mask is used; export the model for inference")
    return call.value(0)


def cast(call: Call) -> Value:
    """Between float32 and float64: on real numbers nothing happens."""
    call.ignore("saturate", "round_mode")
    target = call.attribute("to")
    if target not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        raise UnsupportedError(f"attribute to = {element_name(target)} (only FLOAT and DOUBLE are)")
    if target == TensorProto.FLOAT and call.builder.input_dtype == "float64":
        # The load check holds such a model to the accuracy of float64, and the rounding would not be modelled.
        raise UnsupportedError("attribute to = FLOAT in a model with DOUBLE input; export it in one precision")
    return call.value(0)


def pad(call: Call) -> Value:
    """Constant padding puts ``NOTHING`` where no entry goes; the value, if not 0, is added there."""
    x = call.value(0)
    if call.attribute("mode", "constant") != "constant" or not isinstance(x, Variable):
        (moved,) = move(call)
        assert moved is not None
        return moved
    call.ignore_all()
    start = positions(x).astype(np.float64)
    if call.opset >= 11:
        value = float(call.floats(2, "constant_value").reshape(-1)[0]) if call.has(2) else 0.0
        inputs = [start, call.constant(1, "pads"), np.array(NOTHING)]
        inputs += [call.constant(3, "axes")] if call.has(3) else []
        node = _copy(call.node)
        names = [*node.input[:2], "nothing", *node.input[3 : 3 + call.has(3)]]
        del node.input[:]
        node.input.extend(names)
    else:
        value = float(call.attribute("value", 0.0))
        inputs = [start]
        node = _copy(call.node, without="value")
        node.attribute.append(helper.make_attribute("value", NOTHING))
    (result,) = evaluate(node, inputs, call.opsets)
    moved = _moved(call, x, result)
    padded = result == NOTHING
    return call.builder.scale(moved, 1.0, np.where(padded, value, 0.0)) if value and padded.any() else moved


def _copy(node: NodeProto, without: str = "") -> NodeProto:
    """A copy of the node, less one attribute."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for attribute in list(copy.attribute):
        if attribute.name == without:
            copy.attribute.remove(attribute)
    return copy


def concat(call: Call) -> Value:
    axis = call.attribute("axis", 1)
    parts = [call.variable(i) for i in range(len(call.inputs))]
    axis += len(parts[0].shape) if axis < 0 else 0
    parts = [part for part in parts if part.size]
    return parts[0] if len(parts) == 1 else call.builder.add(Concat(axis), *parts)


def shape(call: Call) -> Value:
    """Shapes are known: the result is a constant."""
    sizes = call.value(0).shape
    start, end = call.attribute("start", 0), call.attribute("end", len(sizes))
    return Constant(np.array(sizes[start:end], dtype=np.int64), call.node.output[0])


def size(call: Call) -> Value:
    return Constant(np.array(math.prod(call.value(0).shape), dtype=np.int64), call.node.output[0])


RULES: Rules = {
    **dict.fromkeys(
        (
            "DepthToSpace",
            "Expand",
            "Flatten",
            "Gather",
            "GatherElements",
            "GatherND",
            "Reshape",
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
            "Tile",
            "Transpose",
            "Unsqueeze",
        ),
        move,
    ),
    "Cast": cast,
    "Concat": concat,
    "Dropout": dropout,
    "Identity": pass_through,
    "Pad": pad,
    "Shape": shape,
    "Size": size,
}
