"""A network and its margins in rational arithmetic: what no rounding can blur.

Parameters are float64 and so are points, hence rational; affine maps and ``max(x, 0)`` keep values rational.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from verifier.model.network import Network
from verifier.model.operators import Input, Relu
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]


def outputs(network: Network, x: Array) -> list[Fraction]:
    """The outputs, flattened, at the float64 point x: (n_inputs,)."""
    values = [[Fraction(float(v)) for v in x]]
    for index, node in enumerate(network.nodes[1:], 1):
        operator, sources = node.operator, [values[source] for source in node.inputs]
        assert not isinstance(operator, Input)
        if isinstance(operator, Relu):
            values.append([max(v, Fraction(0)) for v in sources[0]])
            continue
        offset = operator.offset(node.shape)
        start = np.zeros(node.size) if offset is None else offset.reshape(-1).numpy()
        value = [Fraction(float(v)) for v in start]
        for matrix, source in zip(operator.matrix(network.input_shapes(index)), sources, strict=True):
            entries = matrix.tocoo()
            for row, column, entry in zip(*entries.coords, entries.data, strict=True):
                value[row] += Fraction(float(entry)) * source[column]
        values.append(value)
    return values[-1]


def row_values(disjunct: Disjunct, x: Array, y: list[Fraction]) -> list[Fraction]:
    """``inputs @ x + outputs @ y - bounds`` for every row."""
    rows, found = disjunct.constraints, []
    for row in range(len(rows)):
        total = -Fraction(float(rows.bounds[row]))
        for i in np.flatnonzero(rows.outputs[row]):
            total += Fraction(float(rows.outputs[row, i])) * y[i]
        if rows.mentions_inputs:
            for i in np.flatnonzero(rows.inputs[row]):
                total += Fraction(float(rows.inputs[row, i])) * Fraction(float(x[i]))
        found.append(total)
    return found


def margin(network: Network, disjunct: Disjunct, x: Array) -> tuple[Fraction | float, bool]:
    """The margin of a disjunct at a point of its box, and whether it holds there; -inf without rows."""
    values = row_values(disjunct, x, outputs(network, x))
    holds = all(v < 0 or (v == 0 and not s) for v, s in zip(values, disjunct.constraints.strict, strict=True))
    return max(values, default=-math.inf), holds
