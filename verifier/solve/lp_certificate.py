"""A lower bound on a linear program from any row multipliers, with rounding errors covered.

For  minimise c x  subject to  l <= x <= u,  L <= A x <= U  and any multipliers p of the rows,

    c x = p A x + (c - A^T p) x >= sum_i min(p_i L_i, p_i U_i) + sum_j min over [l_j, u_j] of (c - A^T p)_j x_j

where p_i takes the side that makes its term least (weak duality).  Nothing is asked of p, so it may come
from a solver whose answer nobody checked, be stale, perturbed or plain wrong: the bound holds, and it is the
optimum when p is the optimal dual.  The bound is evaluated in float64 and its a priori rounding error
subtracted (Higham 2002, section 3.1; the same idea as Neumaier and Shcherbina, "Safe bounds in linear and
mixed-integer linear programming", 2004, without directed rounding).  So it holds in exact arithmetic for the
exact program that the model stands for: row sides are taken wider by ``row_error``, the cost lower by
``cost_error``.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.bounds.rounding import TINY, gamma
from verifier.encodings.milp.model import MilpModel

Array = NDArray[np.float64]


def certified_lower_bound(
    model: MilpModel, multipliers: Array, cost: Array | None = None, offset: float | None = None
) -> float:
    """No point of the linear relaxation costs less than this; -inf where the multipliers prove nothing.

    multipliers: (m,), non-negative on rows whose lower side is meant (HiGHS's sign of ``row_dual``).
    cost, offset: in place of the model's, as exact numbers.
    """
    if cost is None:
        cost, uncertain = model.cost, model.cost_error
    else:
        uncertain = 0.0
    offset = model.offset if offset is None else offset
    sides = np.where(multipliers >= 0, model.row_lower, model.row_upper)
    # A multiplier of a missing side can prove nothing: without it the bound is still valid.
    p = np.where(np.isfinite(sides) & np.isfinite(multipliers), multipliers, 0.0)
    sides = np.where(p == 0, 0.0, sides)

    columns = _transposed(model)
    reduced = cost - columns @ p
    longest = int(np.diff(columns.indptr).max(initial=0))
    doubt = 2 * gamma(longest + 4) * (np.abs(cost) + abs(columns) @ np.abs(p)) + TINY

    from_rows = p * sides
    from_columns = np.minimum(_product(reduced, model.lower), _product(reduced, model.upper))
    sizes = np.maximum(np.abs(model.lower), np.abs(model.upper))
    from_doubt = _product(doubt, sizes)
    from_errors = np.abs(p) * model.row_error

    total = from_rows.sum() + from_columns.sum() + offset
    size = np.abs(from_rows).sum() + np.abs(from_columns).sum() + abs(offset)
    rounding = 2 * gamma(model.n_rows + model.n_columns + 8) * size + TINY
    slack = (from_doubt.sum() + from_errors.sum() + uncertain + rounding) * (1 + 1e-6)
    bound = total - slack
    return float(bound) if np.isfinite(bound) else -np.inf


def _transposed(model: MilpModel) -> sp.csr_array:
    return sp.csr_array(model.rows.T)


def _product(factor: Array, bound: Array) -> Array:
    """``factor * bound`` where 0 times infinity is 0."""
    return np.where(factor == 0, 0.0, factor) * np.where(factor == 0, 0.0, bound)
