"""A mixed-integer linear program as arrays, with no memory of the network it came from.

    minimise    cost @ x + offset
    subject to  lower <= x <= upper,   row_lower <= rows @ x <= row_upper,   x_j integer where integral_j

This is all a solver ever sees; what the columns mean is kept beside it, in ``columns``.

The numbers are float64 and stand for exact ones that may differ a little.  Solvers, whose tolerances are far
larger, take them as they are; a certificate that shall hold in exact arithmetic takes every row side wider by
``row_error`` and the cost lower by ``cost_error``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MilpModel:
    """cost, lower, upper: (n,); integral: (n,) bool; rows: CSR (m, n); row_lower, row_upper, row_error: (m,).

    cost_error: how far the exact objective may be from ``cost @ x + offset`` at any point meant.
    Bounds may be infinite.  ``dataclasses.replace`` gives variations; nothing is changed in place.
    """

    cost: Array
    offset: float
    lower: Array
    upper: Array
    integral: NDArray[np.bool_]
    rows: sp.csr_array
    row_lower: Array
    row_upper: Array
    row_error: Array
    cost_error: float = 0.0

    @property
    def n_columns(self) -> int:
        return len(self.cost)

    @property
    def n_rows(self) -> int:
        return len(self.row_lower)

    def relaxed(self) -> MilpModel:
        """The linear relaxation."""
        return dataclasses.replace(self, integral=np.zeros_like(self.integral))

    def costing(self, cost: Array, offset: float, error: float = 0.0) -> MilpModel:
        """The same rows and columns with another cost: (n,)."""
        return dataclasses.replace(self, cost=cost, offset=offset, cost_error=error)

    def objective(self, point: Array) -> float:
        """The cost of one point (n,), offset included."""
        return float(self.cost @ point + self.offset)

    def violation(self, point: Array) -> float:
        """By how much a point (n,) violates its worst bound, row or integrality; 0 for a feasible one."""
        values = self.rows @ point
        integers = point[self.integral]
        excesses = (
            self.lower - point,
            point - self.upper,
            self.row_lower - values,
            values - self.row_upper,
            np.abs(integers - np.rint(integers)),
        )
        # NaN is the worst of all: np.max passes it on, where max() would drop it.
        return float(np.max([excess.max(initial=0.0) for excess in excesses]))
