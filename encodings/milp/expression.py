"""Sparse affine expressions over columns that know their own rounding error.

An encoding fuses chains of affine operators into one matrix, in float64.  Each expression carries a bound on
how far that puts it from the exact network, so that what is concluded from an encoding, by a linear program
with certified duals for instance, can hold for the exact network.  Sums of k products are off by at most
gamma_k times the sum of their magnitudes, in any order (Higham, "Accuracy and Stability of Numerical
Algorithms", 2002, section 3.1).

Invariant: wherever the columns take their true values, the node's exact value lies within ``error`` of
``matrix @ columns + constant``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.bounds.rounding import TINY, gamma
from verifier.model.operators import Affine

Array = NDArray[np.float64]

NEGLIGIBLE = 1e-12
"""Coefficients up to this size are dropped, at the price of a larger error: HiGHS would drop them silently."""


@dataclass(frozen=True, eq=False)
class Expression:
    """``matrix @ columns + constant``, one row per entry, give or take ``error``.

    matrix: CSR (size, columns); constant, error: (size,).
    """

    matrix: sp.csr_array
    constant: Array
    error: Array

    def __len__(self) -> int:
        return len(self.constant)

    def __getitem__(self, rows: NDArray[np.int64]) -> Expression:
        return Expression(sp.csr_array(self.matrix[rows]), self.constant[rows], self.error[rows])

    def at(self, point: Array) -> Array:
        """The values at one point (columns,); (size,)."""
        return self.matrix @ point + self.constant

    def ranges(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """The least and the greatest value over a box of the columns, (size,) each; rounding not covered."""
        positive, negative = self.matrix.maximum(0), self.matrix.minimum(0)
        return (
            positive @ lower + negative @ upper + self.constant,
            positive @ upper + negative @ lower + self.constant,
        )

    def magnitudes(self, columns: Array) -> Array:
        """What no intermediate sum exceeds, (size,), when the columns are at most ``columns`` in size."""
        return abs(self.matrix) @ columns + np.abs(self.constant)


def selection(places: NDArray[np.int64], width: int) -> sp.csr_array:
    """Row i selects entry ``places[i]``: CSR (len(places), width)."""
    count = len(places)
    return sp.csr_array((np.ones(count), places, np.arange(count + 1)), shape=(count, width))


def of_columns(places: NDArray[np.int64], width: int) -> Expression:
    """The columns themselves, exactly."""
    zeros = np.zeros(len(places))
    return Expression(selection(places, width), zeros, zeros)


def after(
    operator: Affine,
    sources: list[Expression],
    shapes: tuple[tuple[int, ...], ...],
    shape: tuple[int, ...],
    sizes: Array,
) -> Expression:
    """The value of an affine operator.  shapes, shape: of what it reads and of what it gives, for one sample.

    sizes: (columns,), the largest absolute value of every column.
    """
    offset, uncertain = operator.offset(shape), operator.offset_error
    start = np.zeros(int(np.prod(shape)))
    if offset is not None:
        start = start + offset.detach().cpu().double().numpy().reshape(-1)
    total = combination(list(zip(operator.matrix(shapes), sources, strict=True)), start, sizes, operator.ulps)
    if uncertain is None:
        return total
    more = 1.001 * uncertain.detach().cpu().double().expand(shape).numpy().reshape(-1)
    return Expression(total.matrix, total.constant, total.error + more)


def combination(terms: list[tuple[sp.csr_array, Expression]], start: Array, sizes: Array, ulps: int = 0) -> Expression:
    """``start + sum of matrix @ expression`` over some terms, at least one, rounding covered.

    Each matrix is CSR (size, len(expression)) and within ``ulps`` units of the exact one; start: (size,);
    sizes: (columns,), as in ``after``.
    """
    matrix: sp.csr_array | None = None
    constant, magnitude, error = start, np.abs(start), np.zeros(len(start))
    longest = 0
    for factor, expression in terms:
        part = sp.csr_array(factor @ expression.matrix)
        matrix = part if matrix is None else sp.csr_array(matrix + part)
        constant = constant + factor @ expression.constant
        absolute = abs(factor)
        magnitude = magnitude + absolute @ expression.magnitudes(sizes)
        error = error + absolute @ expression.error
        longest += int(np.diff(factor.indptr).max(initial=0))
    assert matrix is not None
    # Twice, and a few terms more: the rounding of the magnitudes and errors themselves.
    error = (error + 2 * gamma(longest + len(terms) + ulps + 8) * magnitude) * (1 + 1e-9) + TINY
    return pruned(Expression(matrix, constant, error), sizes)


def pruned(expression: Expression, sizes: Array) -> Expression:
    """Without negligible coefficients."""
    matrix = expression.matrix
    small = np.abs(matrix.data) <= NEGLIGIBLE
    if not small.any():
        return expression
    lost = sp.csr_array((np.where(small, np.abs(matrix.data), 0.0), matrix.indices, matrix.indptr), matrix.shape)
    kept = sp.csr_array((np.where(small, 0.0, matrix.data), matrix.indices.copy(), matrix.indptr.copy()), matrix.shape)
    kept.eliminate_zeros()
    return Expression(kept, expression.constant, expression.error + 1.001 * (lost @ sizes))
