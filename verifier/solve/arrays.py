"""Handing a program to HiGHS as arrays, after a check that HiGHS will not change it.

HiGHS accepts NaN in costs and coefficients without a word, drops coefficients below ``small_matrix_value``
with no more than a warning, calls numbers from 1e20 on infinite and refuses coefficients from 1e15 on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verifier.encodings.milp.model import MilpModel
from verifier.errors import SolverError
from verifier.solve.highs_run import SMALLEST_COEFFICIENT, Program

LARGEST = 1e15


def program(model: MilpModel) -> Program:
    """The arrays of a model.  Raises SolverError where HiGHS would misread them."""
    check(model)
    return Program(
        cost=_floats(model.cost),
        offset=float(model.offset),
        lower=_floats(model.lower),
        upper=_floats(model.upper),
        integral=model.integral,
        starts=model.rows.indptr.astype(np.int32),
        indices=model.rows.indices.astype(np.int32),
        values=_floats(model.rows.data),
        row_lower=_floats(model.row_lower),
        row_upper=_floats(model.row_upper),
    )


def check(model: MilpModel) -> None:
    """Raises SolverError for numbers that HiGHS would misread."""
    numbers = (model.cost, model.rows.data, np.array([model.offset]))
    sides = (model.lower, model.upper, model.row_lower, model.row_upper)
    if not all(np.isfinite(part).all() for part in numbers) or any(np.isnan(part).any() for part in sides):
        raise SolverError("the program holds a number that is not finite; the bounds it was made of overflowed")
    if any(_largest(part) >= LARGEST for part in (*numbers, *sides)):
        raise SolverError(f"the program holds a number beyond {LARGEST:g}, which HiGHS cannot represent")
    if np.any(np.abs(model.rows.data) <= SMALLEST_COEFFICIENT):
        raise SolverError(f"the program holds a coefficient up to {SMALLEST_COEFFICIENT:g}: HiGHS would drop it")
    if np.any(model.lower > model.upper) or np.any(model.row_lower > model.row_upper):
        raise SolverError("the program holds a lower bound above its upper bound")


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _floats(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.ascontiguousarray(values, dtype=np.float64)
