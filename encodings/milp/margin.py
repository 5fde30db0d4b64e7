"""The margin of a disjunct as the objective of a mixed-integer program.

The margin at a point is the largest of ``inputs @ x + outputs @ y - bounds`` over the disjunct's rows, and
the disjunct is impossible when the smallest margin is positive.  As a program (Tjeng, Xiao and Tedrake,
section 4.2, ask for feasibility of the misclassification; the margin says how close it is, gives every
incumbent and every bound a meaning, and can be stopped at a sign):

    minimise t    subject to    row_i(x, y) - b_i <= t  for every row,    row_i(x) <= b_i  for input-only rows

A single row is the objective itself, without t.  Input-only rows appear twice: as hard constraints, because
a point that breaks them is no counterexample and cutting it off makes every relaxation stronger; and inside
the margin, because that is how the margin is defined and because it draws candidates away from the edge,
where rounding them to the network's input type would break the row again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.encodings.milp.big_m import Encoding, Expression
from verifier.encodings.milp.columns import Columns, Kind
from verifier.encodings.milp.model import MilpModel
from verifier.vnnlib.spec import LinearConstraints

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MarginProgram:
    """minimise ``model``: its optimum is the disjunct's smallest margin over the box.

    margins: every row's ``row(x, y) - b`` over the columns of the encoding, without t.
    column: where t stands, None when the objective needs no t (one row, or none).
    """

    encoding: Encoding
    model: MilpModel
    columns: Columns
    margins: Expression
    column: int | None

    def extended(self, point: Array) -> Array:
        """A point of the encoding, (n,), with the t that belongs to it appended where there is one."""
        if self.column is None:
            return point
        margins = self.margins.matrix @ point + self.margins.constant
        return np.append(point, margins.max())


def margin_program(encoding: Encoding, constraints: LinearConstraints) -> MarginProgram:
    """The program for the rows of one disjunct; ``encoding`` reaches to the output.

    Without any rows the objective is constant 0: every point of the box is what the property asks for.
    """
    inputs = encoding.columns.of(Kind.INPUT)
    width = len(encoding.columns)
    margins = _margins(encoding, constraints, inputs, width)
    model = _with_hard_rows(encoding.model, margins, _input_only(constraints))
    if len(constraints) > 1:
        model, columns = _with_margin_column(model, encoding.columns, margins)
        return MarginProgram(encoding, model, columns, margins, width)
    if len(constraints) == 1:
        cost = margins.matrix.toarray()[0]
        model = dataclasses.replace(model, cost=cost, offset=float(margins.constant[0]))
    return MarginProgram(encoding, model, encoding.columns, margins, None)


def _margins(encoding: Encoding, constraints: LinearConstraints, inputs: NDArray[np.int64], width: int) -> Expression:
    outputs = sp.csr_array(constraints.outputs)
    matrix = sp.csr_array(outputs @ encoding.value.matrix)
    constant = outputs @ encoding.value.constant - constraints.bounds
    if constraints.mentions_inputs:
        rows = sp.coo_array(constraints.inputs)
        row, column = rows.coords
        spread = sp.csr_array((rows.data, (row, inputs[column])), shape=(len(constraints), width))
        matrix = sp.csr_array(matrix + spread)
    return Expression(matrix, constant)


def _input_only(constraints: LinearConstraints) -> NDArray[np.int64]:
    return np.flatnonzero(~np.any(constraints.outputs, axis=1))


def _with_hard_rows(model: MilpModel, margins: Expression, hard: NDArray[np.int64]) -> MilpModel:
    if not hard.size:
        return model
    return dataclasses.replace(
        model,
        rows=sp.csr_array(sp.vstack([model.rows, margins.matrix[hard]], format="csr")),
        row_lower=np.append(model.row_lower, np.full(len(hard), -np.inf)),
        row_upper=np.append(model.row_upper, -margins.constant[hard]),
    )


def _with_margin_column(
    model: MilpModel, columns: Columns, margins: Expression
) -> tuple[MilpModel, Columns]:
    """``t``, at least every margin; its bounds follow from the columns' and keep the program bounded."""
    count = len(margins.constant)
    lowest, highest = margins.ranges(model.lower, model.upper)
    slack = 1e-6 * (1.0 + np.abs(margins.constant).max() + np.abs(highest).max() + np.abs(lowest).max())
    padded = sp.csr_array(sp.hstack([model.rows, sp.csr_array((model.n_rows, 1))], format="csr"))
    tied = sp.hstack([margins.matrix, sp.csr_array(-np.ones((count, 1)))], format="csr")
    extended = MilpModel(
        cost=np.append(np.zeros(model.n_columns), 1.0),
        offset=0.0,
        lower=np.append(model.lower, lowest.max() - slack),
        upper=np.append(model.upper, highest.max() + slack),
        integral=np.append(model.integral, False),
        rows=sp.csr_array(sp.vstack([padded, tied], format="csr")),
        row_lower=np.append(model.row_lower, np.full(count, -np.inf)),
        row_upper=np.append(model.row_upper, -margins.constant),
    )
    t = Columns.block(Kind.MARGIN, -1, np.zeros(1, dtype=np.int64))
    return extended, Columns.joined([columns, t])
