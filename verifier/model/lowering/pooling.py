"""AveragePool as a depthwise convolution (the maximum's counterpart is in ``extrema``).

Where every window has the same number of counted entries the weights are 1/k; else they are 1 and a ``Scale``
divides by each window's own count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verifier.model.lowering.call import Call, UnsupportedError, Value, tensor
from verifier.model.lowering.convolution import check_dimensions, convolve
from verifier.model.lowering.registry import Rules
from verifier.model.lowering.windows import Axis, axes
from verifier.model.rounding import reciprocal


def average_pool(call: Call) -> Value:
    x = call.variable(0)
    kernel = call.attribute("kernel_shape")
    check_dimensions(len(kernel))
    ways = axes(call, x.shape[2:], kernel)
    counts = _counts(ways, bool(call.attribute("count_include_pad", 0)))
    uniform = bool((counts == counts.flat[0]).all())
    weight, ulps = reciprocal(tensor(float(counts.flat[0] if uniform else 1)))
    channels = x.shape[1]
    weights = np.full((channels, 1, *kernel), float(weight))
    sums = convolve(call.builder, x, weights, np.zeros(channels), ways, groups=channels, ulps=ulps)
    if uniform:
        return sums
    inverse, ulps = reciprocal(tensor(counts))
    return call.builder.scale(sums, inverse.numpy(), 0.0, ulps)


def _counts(ways: tuple[Axis, ...], include_padding: bool) -> NDArray[np.int64]:
    """By how much each window's sum is divided, in the shape of the windows.

    What lies beyond the padding, where ceil_mode can take a window, never counts.
    """
    counts: NDArray[np.int64] = np.ones((), dtype=np.int64)
    for way in ways:
        places = way.places()
        low, high = (-way.before, way.size + way.after) if include_padding else (0, way.size)
        counts = np.multiply.outer(counts, ((places >= low) & (places < high)).sum(axis=1))
    if not counts.all():
        raise UnsupportedError("a window lies entirely in the padding")
    return counts


RULES: Rules = {"AveragePool": average_pool}
