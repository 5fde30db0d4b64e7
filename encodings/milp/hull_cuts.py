"""Cuts for single neurons: the convex hull of a ReLU over the box of its terms.

The triangle knows of a neuron's input z only its range.  With  z = b + sum of Y_p  and every term Y_p in [L_p, U_p],
for any set I of terms and any h not in I

    relu(z)  <=  sum over I of (Y_p - L_p)  +  g (Y_h - L_h)  +  d,      g in [0, 1]

holds where  d >= 0,  d >= l - g (U_h - L_h)  and  d >= l - (U_h - L_h)  with  l = b + sum over I of L_p + sum over
the rest of U_p:  the right side is then at least 0, and at least z at both ends of Y_h, between which it is linear.
With d = 0 and  g = l / (U_h - L_h)  where l changes its sign these are the facets of the hull (Anderson et al., "Strong
mixed-integer programming formulations for trained neural networks", Mathematical Programming 183, 2020, proposition
12).  There are exponentially many; the one that a point breaks most comes from sorting the terms by
(Y_p - L_p) / (U_p - L_p).

Departure from the paper: a term is not a column times its weight but the sum over a group of columns that depend on one
input (``terms``), whose range is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.bounds.rounding import TINY, gamma
from verifier.encodings.milp.triangle import TriangleProgram

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NEGLIGIBLE = 1e-9
"""Coefficients up to this size are left out of a row, at the price of a larger error."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """``rows @ columns <= sides`` up to ``error``; CSR (c, columns), (c,), (c,).  neuron: (c,), whose cut it is."""

    rows: sp.csr_array
    sides: Array
    error: Array
    neuron: Indices

    def __len__(self) -> int:
        return len(self.sides)


class HullCuts:
    """The cuts of a program's neurons; makes those that a point breaks."""

    def __init__(self, program: TriangleProgram) -> None:
        terms, neurons = program.terms, program.neurons
        self._columns = neurons.column
        self._rows = neurons.pre.matrix.toarray()[:, : terms.count]
        self._constant, self._group, self._groups = neurons.pre.constant, terms.group, terms.groups
        self._low, self._high = terms.parts(self._rows)
        self._sizes = terms.sizes[: terms.count]
        size = np.abs(self._rows) @ self._sizes + np.abs(self._constant)
        size = size + np.maximum(np.abs(self._low), np.abs(self._high)).sum(1)
        self._error = 1.001 * neurons.pre.error + 8 * gamma(terms.count + self._groups + 64) * size + TINY

    def separate(self, point: Array, prices: Array, least: float) -> Cuts:
        """Per neuron the cut that the point, (columns,), breaks most.

        prices: (m,), what a unit of each neuron's value is worth.  least: cuts that are broken by less than this, or
        worth less than this share of the best, are left out.
        """
        width = self._high - self._low
        values = np.zeros_like(width)
        np.add.at(values.T, self._group, (self._rows * point).T)
        above = values - self._low
        share = np.where(width > NEGLIGIBLE, above / np.maximum(width, NEGLIGIBLE), np.inf)
        order = np.argsort(share, axis=1, kind="stable")
        sorted_width = np.take_along_axis(width, order, 1)
        whole = self._constant + self._high.sum(1)
        left = whole[:, None] - np.cumsum(sorted_width, 1)
        taken = (left >= 0).sum(1)
        inside = taken < self._groups
        taken = np.minimum(taken, self._groups - 1)
        every = np.arange(len(taken))
        rest = np.where(taken > 0, left[every, taken - 1], whole)
        last = sorted_width[every, taken]
        part = np.clip(rest / np.maximum(last, NEGLIGIBLE), 0.0, 1.0)
        weights = (np.arange(self._groups)[None] < taken[:, None]).astype(float)
        weights[every, taken] = part
        lift = np.maximum(0.0, np.maximum(rest - part * last, rest - last))
        right = (weights * np.take_along_axis(above, order, 1)).sum(1) + lift
        by = np.where(inside, point[self._columns] - right, 0.0)
        worth = by * prices
        broken = np.flatnonzero((by > least) & (worth > least * worth.max(initial=0.0)))
        spread = np.zeros((len(broken), self._groups))
        np.put_along_axis(spread, order[broken], weights[broken], 1)
        return self._cuts(broken, spread, lift[broken])

    def _cuts(self, neurons: Indices, weights: Array, lift: Array) -> Cuts:
        rows = -weights[:, self._group] * self._rows[neurons]
        small = np.abs(rows) <= NEGLIGIBLE
        error = self._error[neurons] + 1.001 * (np.where(small, np.abs(rows), 0.0) @ self._sizes)
        rows = np.where(small, 0.0, rows)
        rows[np.arange(len(neurons)), self._columns[neurons]] += 1.0
        sides = lift - (weights * self._low[neurons]).sum(1)
        return Cuts(sp.csr_array(rows), sides, error, neurons)
