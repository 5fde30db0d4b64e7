"""Conv with constant weights, in one or two dimensions (a 1-D one is a 2-D one of height 1)."""

from __future__ import annotations

import numpy as np

from verifier.model.lowering.call import Builder, Call, Floats, UnsupportedError, Value, Variable, tensor
from verifier.model.lowering.registry import Rules
from verifier.model.lowering.windows import Axis, axes
from verifier.model.operators import Conv


def conv(call: Call) -> Value:
    call.ignore("kernel_shape")  # always that of the weight
    weight = call.floats(1, "weight")
    bias = call.floats(2, "bias") if call.has(2) else np.zeros(weight.shape[0])
    x = call.variable(0)
    check_dimensions(weight.ndim - 2)
    groups = call.attribute("group", 1)
    check_channels(x.shape, weight.shape, bias.shape, groups)
    ways = axes(call, x.shape[2:], weight.shape[2:])
    return convolve(call.builder, x, weight, bias, ways, groups)


def check_dimensions(count: int) -> None:
    """Raise UnsupportedError unless there are one or two spatial dimensions."""
    if count not in (1, 2):
        raise UnsupportedError(f"{count} spatial dimensions (1 and 2 are supported)")


def check_channels(x: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...], groups: int) -> None:
    """Raise UnsupportedError unless the shapes of a convolution fit each other; onnx does not always look."""
    fits = len(x) == len(weight) and groups >= 1 and weight[0] % groups == 0 and x[1] == groups * weight[1]
    if not fits or bias != (weight[0],):
        shapes = f"an input {x}, a weight {weight} and a bias {bias} in {groups} groups"
        raise UnsupportedError(f"{shapes} do not fit each other; export the model again")


def convolve(
    builder: Builder,
    x: Variable,
    weight: Floats,
    bias: Floats,
    ways: tuple[Axis, ...],
    groups: int,
    ulps: int = 0,
) -> Variable:
    """The convolution with windows ``ways`` (one or two axes), zeros where they reach beyond the input.

    weight: (out, channels / groups, *kernel); bias: (out,).
    """
    one_dimensional = len(ways) == 1
    if one_dimensional:
        ways = (Axis(size=1, kernel=1, stride=1, dilation=1, before=0, after=0, count=1), *ways)
        weight = weight[:, :, None, :]
        x = builder.reshape(x, (*x.shape[:2], 1, x.shape[2]))
    rows, columns = ways
    # Only pooling with ceil_mode has windows that reach beyond the padding.
    below, right = (way.after + max(way.overhang, 0) for way in ways)
    operator = Conv(
        tensor(weight),
        tensor(bias),
        stride=(rows.stride, columns.stride),
        padding=(rows.before, columns.before, below, right),
        dilation=(rows.dilation, columns.dilation),
        groups=groups,
        ulps=ulps,
    )
    result = builder.add(operator, x)
    return builder.reshape(result, (*result.shape[:2], result.shape[3])) if one_dimensional else result


RULES: Rules = {"Conv": conv}
