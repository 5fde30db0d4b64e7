"""A lower bound on a linear program from any row multipliers, with rounding errors covered.

For  minimise c x  subject to  l <= x <= u,  L <= A x <= U  and any multipliers p of the rows,

    c x = p A x + (c - A^T p) x >= sum_i min(p_i L_i, p_i U_i) + sum_j min over [l_j, u_j] of (c - A^T p)_j x_j

where each p_i takes the side that makes its term least (weak duality).  Nothing is asked of p, so it may come
from a solver whose answer nobody checked, be stale, perturbed or plain wrong: the bound holds, and it is the
optimum when p is the optimal dual.

The bound is evaluated in float64 and its a priori rounding error subtracted (Higham 2002, section 3.1), which
needs no directed rounding; the idea of making bounds safe that way is Neumaier and Shcherbina's ("Safe bounds
in linear and mixed-integer linear programming", 2004).  It holds in exact arithmetic for the exact program
that the model stands for: row sides are taken wider by ``row_error`` and the cost lower by ``cost_error``.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.encodings.milp.model import MilpModel

Array = NDArray[np.float64]

TINY = 1e-290
"""Far above all that underflow can lose, far below all that matters."""


class Certifier:
    """Bounds for many costs over the rows and columns of one model."""

    def __init__(self, model: MilpModel) -> None:
        self._model = model
        self._transposed = sp.csr_array(model.rows.T)
        self._absolute = abs(self._transposed)
        self._longest = int(np.diff(self._transposed.indptr).max(initial=0))
        self._sizes = np.maximum(np.abs(model.lower), np.abs(model.upper))

    def bound(self, multipliers: Array, cost: Array, offset: float, cost_error: float) -> float:
        """No point of the linear relaxation has ``cost @ x + offset`` below this; -inf if nothing is proved.

        multipliers: (m,), positive where a row's lower side is meant (HiGHS's sign of ``row_dual``).
        cost: (n,).  cost_error: how far the exact cost may be from ``cost @ x + offset``.
        """
        model = self._model
        sides = np.where(multipliers > 0, model.row_lower, model.row_upper)
        # A multiplier of a side that does not exist proves nothing; the bound holds without it.
        p = np.where(np.isfinite(sides) & np.isfinite(multipliers), multipliers, 0.0)
        from_rows = p * np.where(p == 0, 0.0, sides)

        reduced = cost - self._transposed @ p
        magnitude = np.abs(cost) + self._absolute @ np.abs(p)
        doubt = 2 * _gamma(self._longest + 4) * magnitude + np.where(magnitude > 0, TINY, 0.0)
        from_columns = np.minimum(_product(reduced, model.lower), _product(reduced, model.upper))

        value = from_rows.sum() + from_columns.sum() + offset
        sums = np.abs(from_rows).sum() + np.abs(from_columns).sum() + abs(offset)
        rounding = 2 * _gamma(model.n_rows + model.n_columns + 8) * sums + TINY
        slack = rounding + cost_error + _product(doubt, self._sizes).sum() + (np.abs(p) * model.row_error).sum()
        # The factor covers the rounding of the slack itself.
        safe = value - (1 + 1e-6) * slack
        return float(safe) if np.isfinite(safe) else -np.inf


def certified_lower_bound(model: MilpModel, multipliers: Array) -> float:
    """No point of the linear relaxation costs less than this, in exact arithmetic.  multipliers: (m,)."""
    return Certifier(model).bound(multipliers, model.cost, model.offset, model.cost_error)


def _product(factor: Array, bound: Array) -> Array:
    """``factor * bound`` where 0 times infinity is 0."""
    return factor * np.where(factor == 0, 0.0, bound)


def _gamma(terms: int) -> float:
    """The relative error of a sum of ``terms`` products, rounded up; every model that fits in memory is short
    enough for the first-order formula with two per cent to spare."""
    return 1.02 * terms * 2.0**-53
