"""Max and Min of several values, MaxPool, GlobalMaxPool, ReduceMax and ReduceMin.

    max(a, b) = b + relu(a - b)        min(a, b) = a - relu(a - b)

The maximum of a group is a tournament: rounds of pairwise maxima, all pairs of a round in one vector.
Windows at the border have fewer entries instead of -inf in the padding; no entry is compared with itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.model.lowering.call import Builder, Call, UnsupportedError, Value, Variable, positions
from verifier.model.lowering.elementwise import affine, broadcast
from verifier.model.lowering.reductions import reduced_axes
from verifier.model.lowering.registry import Rules
from verifier.model.lowering.windows import axes
from verifier.model.operators import Concat

MISSING = -1


def larger(builder: Builder, a: Variable, b: Variable) -> Variable:
    """The elementwise maximum of two variables of one shape."""
    return builder.sum(b, builder.relu(builder.sum(a, builder.scale(b, -1.0))))


def maximum(call: Call) -> Value:
    return _extremum(call, 1.0)


def minimum(call: Call) -> Value:
    return _extremum(call, -1.0)


def _extremum(call: Call, sign: float) -> Variable:
    """The maximum (sign 1) or minimum (sign -1) of the inputs, constants last."""
    builder = call.builder
    places = sorted(range(len(call.inputs)), key=lambda i: not isinstance(call.value(i), Variable))
    result = call.variable(places[0])
    for place in places[1:]:
        value = call.value(place)
        if isinstance(value, Variable):
            a, b = broadcast(builder, result, value)
            gain = builder.relu(builder.sum(a, builder.scale(b, -1.0)))
            result = builder.sum(b, gain) if sign > 0 else builder.sum(a, builder.scale(gain, -1.0))
        else:
            bound = call.floats(place, "bound")
            gain = builder.relu(affine(builder, result, sign, -sign * bound))
            result = affine(builder, gain, sign, bound)
    return result


def tournament(builder: Builder, x: Variable, groups: NDArray[np.int64]) -> Variable:
    """The maximum of each group of entries of x.

    groups: (n, k) positions in the flattened x, ``MISSING`` where a group is smaller; none may be empty.
    Returns a variable of shape (n,).
    """
    # Every round pairs the entries of each group: columns 0 and 1, 2 and 3, ...; an odd one waits.
    groups = np.take_along_axis(groups, np.argsort(groups == MISSING, axis=1, kind="stable"), axis=1)
    while groups.shape[1] > 1:
        if groups.shape[1] % 2:
            groups = np.pad(groups, ((0, 0), (0, 1)), constant_values=MISSING)
        first, second = groups[:, 0::2], groups[:, 1::2]
        paired = second != MISSING
        waiting = (first != MISSING) & ~paired
        pairs = np.stack([first[paired], second[paired]])
        pairs, inverse = np.unique(pairs, axis=1, return_inverse=True)
        winners = larger(builder, builder.gather(x, pairs[0]), builder.gather(x, pairs[1]))
        following = np.full(first.shape, MISSING)
        following[paired] = inverse.reshape(-1)
        if waiting.any():
            kept, kept_inverse = np.unique(first[waiting], return_inverse=True)
            following[waiting] = winners.size + kept_inverse.reshape(-1)
            x = builder.add(Concat(0), winners, builder.gather(x, kept))
        else:
            x = winners
        groups = following
    return builder.gather(x, groups[:, 0])


def max_pool(call: Call) -> Value:
    """The windows are products of ranges, so the maximum is taken along one axis after the other."""
    call.ignore("storage_order")  # of the indices, which are refused
    if 1 in call.needed:
        raise UnsupportedError("its second output (Indices) is used")
    x = call.variable(0)
    ways = axes(call, x.shape[2:], call.attribute("kernel_shape"))
    for axis, way in enumerate(ways, start=2):
        places = way.places()
        inside = (places >= 0) & (places < way.size)
        if not inside.any(axis=1).all():
            raise UnsupportedError("a window lies entirely in the padding")
        index = np.moveaxis(positions(x), axis, -1)
        groups = np.where(inside, index[..., np.where(inside, places, 0)], MISSING)
        moved = (*index.shape[:-1], way.count)
        best = tournament(call.builder, x, groups.reshape(-1, way.kernel))
        back = np.moveaxis(np.arange(best.size).reshape(moved), -1, axis)
        x = call.builder.gather(best, back)
    return x


def _over(call: Call, x: Variable, which: tuple[int, ...], keep: bool, sign: float) -> Variable:
    """The maximum (minimum) over the given axes."""
    rest = [axis for axis in range(len(x.shape)) if axis not in which]
    groups: NDArray[Any] = (
        positions(x).transpose(*rest, *which).reshape(int(np.prod([x.shape[axis] for axis in rest])), -1)
    )
    signed = x if sign > 0 else call.builder.scale(x, -1.0)
    best = tournament(call.builder, signed, groups)
    best = best if sign > 0 else call.builder.scale(best, -1.0)
    shape = tuple(1 if axis in which else size for axis, size in enumerate(x.shape) if keep or axis not in which)
    return call.builder.reshape(best, shape)


def global_max_pool(call: Call) -> Value:
    x = call.variable(0)
    return _over(call, x, tuple(range(2, len(x.shape))), True, 1.0)


def _reduce(call: Call, sign: float) -> Value:
    x = call.variable(0)
    which = reduced_axes(call, x, since=18)
    keep = bool(call.attribute("keepdims", 1))
    return x if which is None else _over(call, x, which, keep, sign)


def reduce_max(call: Call) -> Value:
    return _reduce(call, 1.0)


def reduce_min(call: Call) -> Value:
    return _reduce(call, -1.0)


RULES: Rules = {
    "GlobalMaxPool": global_max_pool,
    "Max": maximum,
    "MaxPool": max_pool,
    "Min": minimum,
    "ReduceMax": reduce_max,
    "ReduceMin": reduce_min,
}
