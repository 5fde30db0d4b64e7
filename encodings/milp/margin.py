"""The margin of a disjunct as the objective of a mixed-integer program.

The margin at a point is the largest of ``inputs @ x + outputs @ y - bounds`` over the disjunct's rows, and
the disjunct is impossible when the smallest margin is positive.  As a program:

    minimise t    subject to    row_i(x, y) - b_i <= t  for every row,    row_i(x) <= b_i  for input-only rows

A single row is the objective itself, without t.  Tjeng, Xiao and Tedrake (section 4.2) minimise the distance
of a misclassified input; with the box given, the margin is what has a sign to stop at, and it gives every
incumbent and every bound a meaning.

Input-only rows appear twice: as hard constraints, because a point that breaks them is no counterexample and
cutting it off makes every relaxation stronger; and inside the margin, because that is how the margin is
defined and because it draws candidates away from the edge, where rounding them to the network's input type
would break the row again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.encodings.milp.big_m import Encoding
from verifier.encodings.milp.columns import Columns, Kind
from verifier.encodings.milp.expression import Expression, combination, selection
from verifier.encodings.milp.model import MilpModel
from verifier.vnnlib.spec import LinearConstraints

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MarginProgram:
    """minimise ``model``: its optimum is the disjunct's smallest margin where the input-only rows hold.

    columns: those of the encoding, and t where there is one.
    margins: every row's ``row(x, y) - b`` over the columns of the encoding, without t.
    has_hard_rows: whether there are input-only rows; without them a program is never infeasible.
    """

    encoding: Encoding
    model: MilpModel
    columns: Columns
    margins: Expression
    has_hard_rows: bool

    def extended(self, point: Array) -> Array:
        """A point of the encoding, (n,), with the t that belongs to it appended where there is one."""
        if len(self.columns) == len(point):
            return point
        return np.append(point, self.margins.at(point).max())


def margin_program(encoding: Encoding, constraints: LinearConstraints) -> MarginProgram:
    """The program for the rows of one disjunct; ``encoding`` reaches to the output.

    Without any rows the objective is constant 0: every point of the box is what the property asks for.
    """
    margins = margin_rows(encoding, constraints)
    hard = np.flatnonzero(~np.any(constraints.outputs, axis=1))
    model = encoding.model
    if hard.size:
        model = _with_rows(model, margins.matrix[hard], -margins.constant[hard], margins.error[hard])
    if len(constraints) > 1:
        return _with_margin_column(encoding, model, margins, bool(hard.size))
    if len(constraints) == 1:
        cost = margins.matrix.toarray()[0]
        model = model.costing(cost, float(margins.constant[0]), float(margins.error[0]))
    return MarginProgram(encoding, model, encoding.columns, margins, bool(hard.size))


def margin_rows(encoding: Encoding, constraints: LinearConstraints) -> Expression:
    """``inputs @ x + outputs @ y - bounds`` over the columns of an encoding of the output, (rows,)."""
    model, width = encoding.model, len(encoding.columns)
    terms = [(sp.csr_array(constraints.outputs), encoding.value)]
    if constraints.mentions_inputs:
        inputs = encoding.columns.of(Kind.INPUT)
        exact = np.zeros(len(inputs))
        terms.append((sp.csr_array(constraints.inputs), Expression(selection(inputs, width), exact, exact)))
    sizes = np.maximum(np.abs(model.lower), np.abs(model.upper))
    return combination(terms, -constraints.bounds, sizes)


def _with_margin_column(
    encoding: Encoding, model: MilpModel, margins: Expression, has_hard_rows: bool
) -> MarginProgram:
    """Adds t, at least every margin; bounded like the margins, so that the program is never unbounded."""
    lowest, highest = margins.ranges(model.lower, model.upper)
    slack = 1e-6 * (1.0 + max(np.abs(lowest).max(), np.abs(highest).max()))
    widened = dataclasses.replace(
        model,
        cost=np.append(np.zeros(model.n_columns), 1.0),
        lower=np.append(model.lower, lowest.max() - slack),
        upper=np.append(model.upper, highest.max() + slack),
        integral=np.append(model.integral, False),
        rows=sp.csr_array(sp.hstack([model.rows, sp.csr_array((model.n_rows, 1))], format="csr")),
    )
    rows = sp.hstack([margins.matrix, sp.csr_array(-np.ones((len(margins), 1)))], format="csr")
    tied = _with_rows(widened, sp.csr_array(rows), -margins.constant, margins.error)
    t = Columns.block(Kind.MARGIN, -1, np.zeros(1, dtype=np.int64))
    return MarginProgram(encoding, tied, Columns.joined([encoding.columns, t]), margins, has_hard_rows)


def _with_rows(model: MilpModel, rows: sp.csr_array, upper: Array, error: Array) -> MilpModel:
    """Also ``rows @ x <= upper``."""
    return dataclasses.replace(
        model,
        rows=sp.csr_array(sp.vstack([model.rows, rows], format="csr")),
        row_lower=np.append(model.row_lower, np.full(len(upper), -np.inf)),
        row_upper=np.append(model.row_upper, upper),
        row_error=np.append(model.row_error, error),
    )
