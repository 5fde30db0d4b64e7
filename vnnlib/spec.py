"""The normal form of a property: a disjunction of boxes with linear constraints.

A ``Spec`` describes the inputs a user is afraid of: it is *satisfied* by a point ``x`` with network
output ``y`` when some disjunct holds, and a disjunct holds when

    lower <= x <= upper    and    constraints.inputs @ x + constraints.outputs @ y <= constraints.bounds

row by row (``<`` where ``strict``).  Rows whose output part is zero are constraints on the input alone.
Decimal literals are read as the nearest float64.

A box is closed and its sides are float64, which not every bound in a property is: ``X_0 < 1``,
``3 X_0 <= 1``.  Such a side is rounded outward, so that the box covers every real input the property means, and
the bound that float64 points have to keep stands in ``point_lower`` and ``point_upper``: nothing is lost in
either direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearConstraints:
    """``inputs @ x + outputs @ y <= bounds``, one row per constraint.

    inputs: (rows, n_inputs); a zero-stride view of a single zero where no row mentions an input.
    outputs: (rows, n_outputs).
    bounds: (rows,).
    strict: (rows,) bool, ``<`` in place of ``<=``.
    """

    inputs: Array
    outputs: Array
    bounds: Array
    strict: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def mentions_inputs(self) -> bool:
        return bool(np.any(self.inputs)) if self.inputs.strides[-1:] != (0,) else False

    def margins(self, x: Array, y: Array) -> Array:
        """``inputs @ x + outputs @ y - bounds`` in float64, (rows,): a row holds where it is <= 0."""
        margin = self.outputs @ y - self.bounds
        return margin + self.inputs @ x if self.mentions_inputs else margin

    def hold_exactly(self, x: Array, y: Array) -> bool:
        """Whether every row holds at the float64 points ``x`` and ``y``, in rational arithmetic."""
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return False
        for row in range(len(self)):
            terms = [(self.outputs[row], y)]
            if self.mentions_inputs:
                terms.append((self.inputs[row], x))
            total = -Fraction(float(self.bounds[row]))
            for coefficients, values in terms:
                for i in np.flatnonzero(coefficients):
                    total += Fraction(float(coefficients[i])) * Fraction(float(values[i]))
            if total > 0 or (self.strict[row] and total == 0):
                return False
        return True


@dataclass(frozen=True, eq=False)
class Disjunct:
    """One box with its constraints.

    lower, upper: (n_inputs,), finite, lower <= upper.
    point_lower, point_upper: (n_inputs,), within the box: what float64 points have to keep in addition, where
    a bound was strict or no float64; None, as nearly always, where the box says it all.
    """

    lower: Array
    upper: Array
    constraints: LinearConstraints
    point_lower: Array | None = None
    point_upper: Array | None = None

    def holds_exactly(self, x: Array, y: Array) -> bool:
        """Whether the disjunct holds at ``x``, ``y`` with zero tolerance."""
        inside = bool(np.all(self.lower <= x) and np.all(x <= self.upper))
        if self.point_lower is not None:
            inside &= bool(np.all(self.point_lower <= x))
        if self.point_upper is not None:
            inside &= bool(np.all(x <= self.point_upper))
        return inside and self.constraints.hold_exactly(x, y)


@dataclass(frozen=True, eq=False)
class Spec:
    """A property in normal form.

    disjuncts: may be empty, when every disjunct was contradictory (the property is then ``unsat``).
    source: where it was read from, for messages; "" when built in memory.
    """

    n_inputs: int
    n_outputs: int
    disjuncts: tuple[Disjunct, ...]
    source: str = ""

    def holds_exactly(self, x: Array, y: Array) -> bool:
        """Whether some disjunct holds at ``x`` (n_inputs,), ``y`` (n_outputs,), with zero tolerance."""
        return any(disjunct.holds_exactly(x, y) for disjunct in self.disjuncts)
