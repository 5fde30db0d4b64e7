"""The columns of a relaxation in groups, and how far the sum of a group's terms can range.

A neuron of the first layer that reads one input, but for a small remainder, is a function of that input; robust
training makes such thresholding filters (Madry et al., ICLR 2018, appendix C).  Its column and the input's form a
group: what  c x + sum of a_j relu(w_j x + b_j + r_j)  can be for x in its interval and |r_j| small is far less than
what the terms can be one by one, and it is found at the ends of the interval and at the kinks.  Every other column is
a group of its own.

Invariant: over the box, the exact sum of a group's terms lies within its range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.bounds.rounding import TINY, gamma
from verifier.encodings.milp.expression import Expression

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

REMAINDER = 0.2
"""A neuron counts as one of a single input where the others move its input by no more than this share."""
MOST_TOGETHER = 4
"""Neurons per input; more than that stay on their own."""


@dataclass(frozen=True, eq=False)
class _Curves:
    """Inputs with neurons of their own, P of them, at most K neurons each.

    inputs: (P,).  columns: (P, K), of the neurons, -1 for none.  at: (P, C), the ends and kinks.
    low, high: (P, C, K), the least and the greatest value of each neuron there.  size: (P, K), of what they sum up.
    """

    inputs: Indices
    columns: Indices
    at: Array
    low: Array
    high: Array
    size: Array


@dataclass(frozen=True, eq=False)
class Terms:
    """lower, upper: (count,), bounds on the columns.  group: (count,), the group of each; groups count from 0.

    inputs: how many of the columns are inputs; they come first and have the groups of their numbers.
    width: of the matrices that rows over these columns have.
    """

    lower: Array
    upper: Array
    group: Indices
    n_inputs: int
    width: int
    curves: _Curves | None = None

    @staticmethod
    def inputs(lower: Array, upper: Array, width: int) -> Terms:
        return Terms(lower, upper, np.arange(len(lower)), len(lower), width)

    @property
    def count(self) -> int:
        return len(self.lower)

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    @property
    def sizes(self) -> Array:
        """The largest absolute value of every column, (width,); 0 for those that are not there yet."""
        found = np.zeros(self.width)
        found[: self.count] = np.maximum(np.abs(self.lower), np.abs(self.upper))
        return found

    def with_neurons(self, columns: Indices, pre: Expression, upper: Array) -> Terms:
        """Also the values of these neurons, of which ``upper`` bounds the input."""
        lower, above = np.append(self.lower, np.zeros(len(columns))), np.append(self.upper, upper)
        inputs_only = sp.csr_array(pre.matrix[:, self.n_inputs :]).nnz == 0
        if self.curves is not None or not inputs_only or not len(columns):
            group = np.append(self.group, self.groups + np.arange(len(columns)))
            return replace(self, lower=lower, upper=above, group=group)
        curves = _curves(self.lower, self.upper, columns, pre)
        group = np.append(self.group, np.full(len(columns), -1))
        for slot in range(curves.columns.shape[1]):
            have = curves.columns[:, slot] >= 0
            group[curves.columns[have, slot]] = curves.inputs[have]
        alone = np.flatnonzero(group < 0)
        group[alone] = self.groups + np.arange(len(alone))
        return replace(self, lower=lower, upper=above, group=group, curves=curves)

    def without_remainders(self) -> Terms:
        """As if the neurons of one input read nothing else: ranges in the middle of the true ones, not bounds."""
        curves = self.curves
        if curves is None:
            return self
        middle = np.where(curves.low <= 0, curves.low, (curves.low + curves.high) / 2)
        return replace(self, curves=replace(curves, low=middle, high=middle))

    def single(self, pre: Array, neurons: int) -> tuple[Indices, Array]:
        """Per neuron the only input it reads, but for a remainder, or -1, and its weight; pre: (neurons, width)."""
        found, weight = np.full(neurons, -1, dtype=np.int64), np.ones(neurons)
        if self.curves is not None:
            table = self.curves.columns
            rows, slots = np.nonzero(table >= 0)
            own = table[rows, slots] - self.n_inputs
            found[own] = self.curves.inputs[rows]
            weight[own] = pre[own, found[own]]
        return found, weight

    def parts(self, rows: Array) -> tuple[Array, Array]:
        """The ranges of all groups' terms under rows (R, count or more): (R, groups) each, rounding covered."""
        rows = rows[:, : self.count]
        one, other = rows * self.lower, rows * self.upper
        together = sp.csr_array((np.ones(self.count), (self.group, np.arange(self.count))))
        low, high, size = (
            np.ascontiguousarray((together @ part.T).T)
            for part in (np.minimum(one, other), np.maximum(one, other), np.maximum(np.abs(one), np.abs(other)))
        )
        slack = 2 * gamma(16 + MOST_TOGETHER) * size + TINY
        low, high = low - slack, high + slack
        if self.curves is not None:
            ranges = _curve_ranges(self.curves, rows)
            places = self.curves.inputs
            low[:, places] = np.maximum(low[:, places], ranges[0])
            high[:, places] = np.minimum(high[:, places], ranges[1])
        return low, high

    def ranges(self, expression: Expression) -> tuple[Array, Array]:
        """Bounds on the rows of an expression, rounding covered: (R,) each."""
        if not len(expression):
            return np.zeros(0), np.zeros(0)
        low, high = self.parts(expression.matrix.toarray())
        slack = (
            2 * gamma(self.groups + 8) * (np.maximum(np.abs(low), np.abs(high)).sum(1) + np.abs(expression.constant))
        )
        slack = slack + 1.001 * expression.error + TINY
        return low.sum(1) + expression.constant - slack, high.sum(1) + expression.constant + slack


def _curves(lower: Array, upper: Array, columns: Indices, pre: Expression) -> _Curves:
    """Which neurons belong to one input, and their values at its ends and at their kinks."""
    n = len(lower)
    weights = pre.matrix[:, :n].toarray()
    moves = np.abs(weights) * (upper - lower)
    own = moves.argmax(1)
    every = np.arange(len(own))
    slope = weights[every, own]
    total = moves.sum(1)
    single = (total - moves[every, own] <= REMAINDER * total) & (slope != 0)
    others = weights.copy()
    others[every, own] = 0
    size = np.abs(weights) @ np.maximum(np.abs(lower), np.abs(upper)) + np.abs(pre.constant)
    slack = 4 * gamma(n + 16) * size + 1.001 * pre.error + TINY
    least = np.maximum(others, 0) @ lower + np.minimum(others, 0) @ upper + pre.constant - slack
    most = np.maximum(others, 0) @ upper + np.minimum(others, 0) @ lower + pre.constant + slack
    slots: dict[int, list[int]] = {}
    for j in np.flatnonzero(single).tolist():
        slots.setdefault(int(own[j]), []).append(j)
    inputs = np.array(sorted(slots), dtype=np.int64)
    deepest = min(MOST_TOGETHER, max((len(found) for found in slots.values()), default=0))
    table = np.full((len(inputs), deepest), -1, dtype=np.int64)
    for row, p in enumerate(inputs.tolist()):
        chosen = slots[p][:deepest]
        table[row, : len(chosen)] = chosen
    have = table >= 0
    w, lo, hi, big = (np.where(have, side[table], 0.0) for side in (slope, least, most, size))
    left, right = lower[inputs][:, None], upper[inputs][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        kinks = np.concatenate([-lo / w, -hi / w], 1)
    at = np.concatenate([left, right, np.clip(np.nan_to_num(kinks, nan=0.0), left, right)], 1)
    product = at[:, :, None] * w[:, None, :]
    low = np.where(have[:, None], np.maximum(product + lo[:, None], 0), 0.0)
    high = np.where(have[:, None], np.maximum(product + hi[:, None], 0), 0.0)
    return _Curves(inputs, np.where(have, columns[table], -1), at, low, high, big)


def _curve_ranges(curves: _Curves, rows: Array) -> tuple[Array, Array]:
    """The ranges of the groups of ``curves.inputs`` under rows (R, count): (R, P) each.

    Between neighbouring ends and kinks both envelopes are linear, so their extremes are at those.
    """
    have = curves.columns >= 0
    own = np.where(have, rows[:, np.where(have, curves.columns, 0)], 0.0)
    slope = rows[:, curves.inputs]
    positive, negative = np.maximum(own, 0), np.minimum(own, 0)
    low = slope[:, :, None] * curves.at + np.einsum("rpk,pck->rpc", positive, curves.low)
    low = low + np.einsum("rpk,pck->rpc", negative, curves.high)
    high = slope[:, :, None] * curves.at + np.einsum("rpk,pck->rpc", positive, curves.high)
    high = high + np.einsum("rpk,pck->rpc", negative, curves.low)
    # Kinks are rounded, which moves values by no more than rounding of the products does.
    size = np.abs(slope) * np.abs(curves.at).max(1) + (np.abs(own) * curves.size).sum(2)
    slack = 64 * gamma(16) * size + TINY
    return low.min(2) - slack, high.max(2) + slack
