"""Relu, LeakyRelu, PRelu, Clip and Abs, all in terms of Relu.

    LeakyRelu(x) = a x + (1 - a) relu(x)
    Clip(x)      = hi - relu(hi - y) with y = lo + relu(x - lo)
    |x|          = 2 relu(x) - x

Each has one ReLU per kink, so CROWN's bounds of the lowered form are those of the original function.
"""

from __future__ import annotations

import numpy as np

from verifier.model.lowering.call import Builder, Call, Floats, UnsupportedError, Value, Variable, tensor
from verifier.model.lowering.registry import Rules
from verifier.model.rounding import total

# Exporters write "no bound" as the largest float32.
NO_BOUND = float(np.finfo(np.float32).max)


def relu(call: Call) -> Value:
    return call.builder.relu(call.variable(0))


def leaky(builder: Builder, x: Variable, slope: Floats) -> Variable:
    """slope: broadcast to x's shape without enlarging it."""
    rest, ulps = total(tensor(1.0), tensor(-slope))
    return builder.sum(builder.scale(x, slope), builder.scale(builder.relu(x), rest.numpy(), 0.0, ulps))


def leaky_relu(call: Call) -> Value:
    return leaky(call.builder, call.variable(0), np.array(float(call.attribute("alpha", np.float32(0.01)))))


def prelu(call: Call) -> Value:
    x = call.variable(0)
    slope = call.floats(1, "slope")
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise UnsupportedError(f"its slope of shape {slope.shape} does not broadcast to {x.shape}")
    return leaky(call.builder, x, slope)


def clip(call: Call) -> Value:
    return clipped(call.builder, call.variable(0), _side(call, 1, "min"), _side(call, 2, "max"))


def _side(call: Call, position: int, name: str) -> float:
    """One bound of Clip: an attribute before opset 11, an input since; infinite where there is none."""
    endless = -np.inf if name == "min" else np.inf
    if call.opset < 11:
        return float(call.attribute(name, endless))
    if not call.has(position):
        return endless
    return float(call.floats(position, name, finite=False).reshape(-1)[0])


def clipped(builder: Builder, x: Variable, lower: float, upper: float) -> Variable:
    if lower > -NO_BOUND:
        above = builder.relu(builder.scale(x, 1.0, -lower) if lower else x)
        x = builder.scale(above, 1.0, lower) if lower else above
    if upper < NO_BOUND:
        x = builder.scale(builder.relu(builder.scale(x, -1.0, upper)), -1.0, upper)
    return x


def absolute(call: Call) -> Value:
    x = call.variable(0)
    return call.builder.sum(call.builder.scale(call.builder.relu(x), 2.0), call.builder.scale(x, -1.0))


RULES: Rules = {
    "Abs": absolute,
    "Clip": clip,
    "LeakyRelu": leaky_relu,
    "PRelu": prelu,
    "Relu": relu,
}
