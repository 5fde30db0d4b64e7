"""ReduceSum, ReduceMean and GlobalAveragePool: a dense layer with one row over the reduced axes."""

from __future__ import annotations

import numpy as np

from verifier.model.lowering.call import Call, Value, Variable, tensor
from verifier.model.lowering.registry import Rules
from verifier.model.operators import Linear
from verifier.model.rounding import reciprocal


def reduced_axes(call: Call, x: Variable, since: int) -> tuple[int, ...] | None:
    """The axes to reduce, sorted; None when there is nothing to do.

    since: the opset from which the axes are the second input instead of an attribute.
    """
    if call.opset >= since:
        axes = call.integers(1, "axes") if call.has(1) else ()
        if not axes and call.attribute("noop_with_empty_axes", 0):
            return None
        call.ignore("noop_with_empty_axes")
    else:
        axes = call.attribute("axes") or ()
    rank = len(x.shape)
    return tuple(sorted({axis % rank for axis in axes})) if axes else tuple(range(rank))


def reduce(call: Call, x: Variable, which: tuple[int, ...], keep: bool, mean: bool) -> Variable:
    """The sum or mean of x over the axes ``which``."""
    rank = len(x.shape)
    rest = [axis for axis in range(rank) if axis not in which]
    length = int(np.prod([x.shape[axis] for axis in which]))
    order = [*rest, *which]
    trailing = x if order == list(range(rank)) else call.builder.permute(x, order)
    rows = call.builder.reshape(trailing, (x.size // length, length))
    weight, ulps = reciprocal(tensor(float(length if mean else 1)))
    operator = Linear(weight.expand(1, length).contiguous(), tensor(np.zeros(1)), ulps)
    result = call.builder.add(operator, rows)
    shape = tuple(1 if axis in which else size for axis, size in enumerate(x.shape) if keep or axis not in which)
    return call.builder.reshape(result, shape)


def _reduction(call: Call, since: int, mean: bool) -> Value:
    x = call.variable(0)
    which = reduced_axes(call, x, since)
    keep = bool(call.attribute("keepdims", 1))
    return x if which is None else reduce(call, x, which, keep, mean)


def reduce_sum(call: Call) -> Value:
    return _reduction(call, 13, mean=False)


def reduce_mean(call: Call) -> Value:
    return _reduction(call, 18, mean=True)


def global_average_pool(call: Call) -> Value:
    x = call.variable(0)
    return reduce(call, x, tuple(range(2, len(x.shape))), True, mean=True)


RULES: Rules = {
    "GlobalAveragePool": global_average_pool,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
}
