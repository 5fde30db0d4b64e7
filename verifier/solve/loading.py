"""Handing a program to HiGHS as arrays, and checking that HiGHS took it as it is.

HiGHS accepts NaN in costs and coefficients without a word, drops coefficients below ``small_matrix_value``
with no more than a warning, and treats numbers beyond 1e20 as infinite; so the arrays are checked here and
anything but a plain "ok" is an error.
"""

from __future__ import annotations

from typing import cast

import highspy
import numpy as np
from numpy.typing import NDArray

from verifier.encodings.milp.model import MilpModel
from verifier.errors import SolverError

SMALLEST_COEFFICIENT = 1e-12
"""The least that HiGHS can be made to keep."""
LARGEST = 1e15
"""HiGHS refuses coefficients from here on, and calls bounds and costs from 1e20 on infinite."""


def loaded(model: MilpModel, options: dict[str, bool | int | float | str] | None = None) -> highspy.Highs:
    """A silent HiGHS instance that holds ``model``.  Raises SolverError where HiGHS would change the model."""
    check(model)
    highs = highspy.Highs()
    settings = {"output_flag": False, "small_matrix_value": SMALLEST_COEFFICIENT, **(options or {})}
    for name, value in settings.items():
        done(highs.setOptionValue(name, value), f"setting {name} to {value}")
    rows = model.rows
    status = highs.passModel(
        model.n_columns,
        model.n_rows,
        rows.nnz,
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        model.offset,
        _floats(model.cost),
        _floats(model.lower),
        _floats(model.upper),
        _floats(model.row_lower),
        _floats(model.row_upper),
        rows.indptr.astype(np.int32),
        rows.indices.astype(np.int32),
        _floats(rows.data),
        model.integral.astype(np.int32),
    )
    done(status, "passing the model")
    return highs


def done(status: highspy.HighsStatus, action: str) -> None:
    """Raises SolverError unless the call went without even a warning."""
    if status != highspy.HighsStatus.kOk:
        raise SolverError(f"HiGHS answered {status.name} to {action}")


def check(model: MilpModel) -> None:
    """Raises SolverError for numbers that HiGHS would misread."""
    finite = (model.cost, model.rows.data, np.array(model.offset))
    sides = (model.lower, model.upper, model.row_lower, model.row_upper)
    if not all(np.isfinite(part).all() for part in finite) or any(np.isnan(part).any() for part in sides):
        raise SolverError("the program holds a number that is not finite; the bounds it was made of overflowed")
    if any(np.abs(part, where=np.isfinite(part), out=np.zeros(part.shape)).max(initial=0.0) >= LARGEST
           for part in (*finite, *sides)):
        raise SolverError(f"the program holds a number beyond {LARGEST:g}, which HiGHS would call infinite")
    data = np.abs(model.rows.data)
    if data.size and data.min() <= SMALLEST_COEFFICIENT:
        raise SolverError(f"the program holds a coefficient up to {SMALLEST_COEFFICIENT:g}, which HiGHS would drop")
    if np.any(model.lower > model.upper) or np.any(model.row_lower > model.row_upper):
        raise SolverError("the program holds a lower bound above its upper bound")


def _floats(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return cast(NDArray[np.float64], np.ascontiguousarray(values, dtype=np.float64))
