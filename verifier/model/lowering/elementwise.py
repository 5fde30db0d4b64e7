"""Add, Sub, Mul, Div, Neg, Sum and Mean: affine as long as products have one constant factor."""

from __future__ import annotations

import numpy as np

from verifier.errors import ModelError
from verifier.model.lowering.call import Builder, Call, Floats, UnsupportedError, Value, Variable, tensor
from verifier.model.lowering.registry import Rules
from verifier.model.rounding import reciprocal


def affine(builder: Builder, x: Variable, scale: Floats | float, shift: Floats | float, ulps: int = 0) -> Variable:
    """``scale * x + shift`` with ONNX broadcasting in all directions."""
    shape = np.broadcast_shapes(x.shape, np.shape(scale), np.shape(shift))
    return builder.scale(builder.expand(x, shape), scale, shift, ulps)


def broadcast(builder: Builder, *inputs: Variable) -> tuple[Variable, ...]:
    """The inputs expanded to their common shape."""
    shape = np.broadcast_shapes(*(x.shape for x in inputs))
    return tuple(builder.expand(x, shape) for x in inputs)


def add(call: Call) -> Value:
    return _add(call, list(range(len(call.inputs))))


def _add(call: Call, places: list[int]) -> Variable:
    variables = [x for i in places if isinstance(x := call.value(i), Variable)]
    total = variables[0]
    if len(variables) > 1:
        total = call.builder.sum(*broadcast(call.builder, *variables))
    for i in places:
        if not isinstance(call.value(i), Variable):
            total = affine(call.builder, total, 1.0, call.floats(i))
    return total


def subtract(call: Call) -> Value:
    x, y = call.value(0), call.value(1)
    if not isinstance(y, Variable):
        assert isinstance(x, Variable)
        return affine(call.builder, x, 1.0, -call.floats(1))
    if not isinstance(x, Variable):
        return affine(call.builder, y, -1.0, call.floats(0))
    left, right = broadcast(call.builder, x, call.builder.scale(y, -1.0))
    return call.builder.sum(left, right)


def multiply(call: Call) -> Value:
    x, y = call.value(0), call.value(1)
    if isinstance(x, Variable) and isinstance(y, Variable):
        raise UnsupportedError("it multiplies two values that both depend on the input")
    if isinstance(x, Variable):
        return affine(call.builder, x, call.floats(1), 0.0)
    assert isinstance(y, Variable)
    return affine(call.builder, y, call.floats(0), 0.0)


def divide(call: Call) -> Value:
    x = call.value(0)
    if isinstance(call.value(1), Variable) or not isinstance(x, Variable):
        raise UnsupportedError("it divides by a value that depends on the input")
    divisor = call.floats(1)
    if not divisor.all():
        raise ModelError(f"{call} divides by 0; check the model")
    inverse, ulps = reciprocal(tensor(divisor))
    return affine(call.builder, x, inverse.numpy(), 0.0, ulps)


def negate(call: Call) -> Value:
    return call.builder.scale(call.variable(0), -1.0)


def mean(call: Call) -> Value:
    inverse, ulps = reciprocal(tensor(float(len(call.inputs))))
    return call.builder.scale(_add(call, list(range(len(call.inputs)))), inverse.numpy(), 0.0, ulps)


RULES: Rules = {
    "Add": add,
    "Div": divide,
    "Mean": mean,
    "Mul": multiply,
    "Neg": negate,
    "Sub": subtract,
    "Sum": add,
}
