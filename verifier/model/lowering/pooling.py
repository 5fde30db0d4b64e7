"""AveragePool as a depthwise convolution (the maximum's counterpart is in ``extrema``).

Where every window has the same number of counted entries the weights are 1/k; else they are 1 and a ``Scale``
divides by each window's own count.
"""

from __future__ import annotations

import numpy as np

from verifier.model.lowering.call import Call, UnsupportedError, Value, tensor
from verifier.model.lowering.registry import Rules
from verifier.model.lowering.windows import axes
from verifier.model.operators import Conv
from verifier.model.rounding import reciprocal


def average_pool(call: Call) -> Value:
    x = call.variable(0)
    kernel = call.attribute("kernel_shape")
    flat = len(kernel) == 1
    if len(kernel) not in (1, 2):
        raise UnsupportedError(f"{len(kernel)} spatial dimensions (1 and 2 are supported)")
    ways = axes(call, x.shape[2:], kernel)
    include_padding = bool(call.attribute("count_include_pad", 0))
    counts = np.ones((1, 1), dtype=np.int64)
    for way in ways:
        places = way.places()
        # With ceil_mode a window may reach beyond the padding; those entries never count.
        low, high = (-way.before, way.size + way.after) if include_padding else (0, way.size)
        counts = counts.reshape(-1, 1) * ((places >= low) & (places < high)).sum(axis=1)
    if not counts.all():
        raise UnsupportedError("a window lies entirely in the padding")
    counts = counts.reshape([way.count for way in ways])
    uniform = bool((counts == counts.flat[0]).all())
    weight, ulps = reciprocal(tensor(float(counts.flat[0] if uniform else 1)))
    channels = x.shape[1]
    shape = (channels, 1, 1, *kernel) if flat else (channels, 1, *kernel)
    # Zeros for what a window reads beyond the padding.
    befores = [way.before for way in ways]
    afters = [way.after + max(way.overhang, 0) for way in ways]
    one = [] if not flat else [0]
    operator = Conv(
        weight.expand(shape).contiguous(),
        tensor(np.zeros(channels)),
        stride=_pair([way.stride for way in ways]),
        padding=(*one, *befores, *one, *afters),  # type: ignore[arg-type]
        dilation=_pair([way.dilation for way in ways]),
        groups=channels,
        ulps=ulps,
    )
    if flat:
        x = call.builder.reshape(x, (*x.shape[:2], 1, x.shape[2]))
    result = call.builder.add(operator, x)
    if flat:
        result = call.builder.reshape(result, (*result.shape[:2], result.shape[3]))
    if uniform:
        return result
    inverse, ulps = reciprocal(tensor(counts))
    return call.builder.scale(result, inverse.numpy(), 0.0, ulps)


def _pair(values: list[int]) -> tuple[int, int]:
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


RULES: Rules = {"AveragePool": average_pool}
