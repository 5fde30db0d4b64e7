"""Conv with constant weights, in one or two dimensions (a 1-D one is a 2-D one of height 1)."""

from __future__ import annotations

import numpy as np

from verifier.model.lowering.call import Call, UnsupportedError, Value, tensor
from verifier.model.lowering.registry import Rules
from verifier.model.lowering.windows import axes
from verifier.model.operators import Conv


def conv(call: Call) -> Value:
    call.ignore("kernel_shape")  # always that of the weight
    weight = call.floats(1, "weight")
    bias = call.floats(2, "bias") if call.has(2) else np.zeros(weight.shape[0])
    x = call.variable(0)
    flat = weight.ndim == 3
    if weight.ndim not in (3, 4):
        raise UnsupportedError(f"{weight.ndim - 2} spatial dimensions (1 and 2 are supported)")
    ways = axes(call, x.shape[2:], weight.shape[2:])
    if flat:
        weight = weight[:, :, None, :]
        x = call.builder.reshape(x, (*x.shape[:2], 1, x.shape[2]))
    befores, afters, strides, dilations = (
        (fill, getattr(ways[0], name)) if flat else (getattr(ways[0], name), getattr(ways[1], name))
        for name, fill in (("before", 0), ("after", 0), ("stride", 1), ("dilation", 1))
    )
    operator = Conv(
        tensor(weight),
        tensor(bias),
        stride=strides,
        padding=(*befores, *afters),
        dilation=dilations,
        groups=call.attribute("group", 1),
    )
    result = call.builder.add(operator, x)
    return call.builder.reshape(result, (*result.shape[:2], result.shape[3])) if flat else result


RULES: Rules = {"Conv": conv}
