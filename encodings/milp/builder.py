"""Columns and rows as an encoding grows, and columns that are only made if they pay.

A stably active neuron is affine in what it reads, so it needs neither a column nor a row: whoever reads it
can read its definition.  That keeps the rows few but can make them long, as when a dense layer of few neurons
over many pixels is written out in each of its readers.  So such a neuron's column is *deferred*; when a row
that reads it is about to be made, either its definition is substituted or the column is made, whichever
leaves fewer nonzeros, rows counting for something of their own.

Measured (one core, root linear programs, all columns made / all substituted / chosen): convolutional
mnist_wk17a 1.3 s / 0.01 s / 0.01 s, dense 256x4 0.11 / 0.15 / 0.08, eran 9x200 0.15 / 0.05 / 0.03, oval21
base 0.21 / 0.16 / 0.12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.encodings.milp.columns import Columns
from verifier.encodings.milp.expression import Expression, combination, selection
from verifier.encodings.milp.model import MilpModel

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

PATIENCE = 2.0
"""Substituting may double the nonzeros for the rows it saves; 1.5 to 2.5 measured alike, 1 and below slower."""


@dataclass(frozen=True, eq=False)
class _Deferred:
    """Columns at ``places`` that equal ``definition``; ``made`` where the row that says so exists."""

    places: Indices
    definition: Expression
    made: NDArray[np.bool_]


class Builder:
    """width: the number of columns there may be in the end; every matrix has it from the start."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.sizes = np.zeros(width)
        """The largest absolute value of every column so far."""
        self._columns: list[Columns] = []
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._rows: list[sp.csr_array] = []
        self._row_lower: list[Array] = []
        self._row_upper: list[Array] = []
        self._row_error: list[Array] = []
        self._deferred: list[_Deferred] = []
        self._count = 0

    def add_columns(self, columns: Columns, lower: Array, upper: Array) -> Indices:
        """New columns with their bounds; returns where they stand."""
        places = self._count + np.arange(len(columns))
        self._count += len(columns)
        self.sizes[places] = np.maximum(np.abs(lower), np.abs(upper))
        self._columns.append(columns)
        self._lower.append(lower)
        self._upper.append(upper)
        return places

    def defer(self, columns: Columns, lower: Array, upper: Array, definition: Expression) -> Indices:
        """Columns that equal ``definition`` and are only made if some row is better off with them."""
        places = self.add_columns(columns, lower, upper)
        self._deferred.append(_Deferred(places, definition, np.zeros(len(places), dtype=bool)))
        return places

    def add_rows(self, rows: sp.csr_array, lower: Array, upper: Array, error: Array | None = None) -> None:
        """``lower <= rows @ columns <= upper``, up to ``error``; rows: CSR (r, width), no deferred columns."""
        self._rows.append(rows)
        self._row_lower.append(lower)
        self._row_upper.append(upper)
        self._row_error.append(np.zeros(len(lower)) if error is None else error)

    def define(self, places: Indices, value: Expression) -> None:
        """Rows that say ``columns[places] = value``."""
        rows = sp.csr_array(selection(places, self.width) - value.matrix)
        self.add_rows(rows, value.constant, value.constant, value.error)

    def settled(self, expression: Expression) -> Expression:
        """The same values without columns that have not been made."""
        # A definition only mentions columns older than its own: newest first, one pass is enough.
        for deferred in reversed(self._deferred):
            expression = self._settle(expression, deferred)
        return expression

    def _settle(self, expression: Expression, deferred: _Deferred) -> Expression:
        touched = np.zeros(self.width, dtype=bool)
        touched[expression.matrix.indices] = True
        if not touched[deferred.places].any():
            return expression
        reads = sp.csr_array(expression.matrix[:, deferred.places])
        read = np.unique(reads.indices).astype(np.int64)
        missing = read[~deferred.made[read]]
        inside = np.ones(self.width)
        inside[deferred.places] = 0.0
        rest = sp.csr_array(expression.matrix @ sp.diags_array(inside))
        rest.eliminate_zeros()
        identity = sp.csr_array(sp.eye_array(len(expression)))
        substituted = combination(
            [
                (identity, Expression(rest, expression.constant, expression.error)),
                (reads, deferred.definition),
            ],
            np.zeros(len(expression)),
            self.sizes,
        )
        made = deferred.definition[missing]
        kept = expression.matrix.nnz + made.matrix.nnz + len(missing)
        if substituted.matrix.nnz <= PATIENCE * kept:
            return substituted
        deferred.made[missing] = True
        self.define(deferred.places[missing], made)
        return expression

    def finish(self, value: Expression) -> tuple[MilpModel, Columns, Expression]:
        """The program (no cost), its columns, and ``value`` over them."""
        value = self.settled(value)
        wanted = np.ones(self._count, dtype=bool)
        for deferred in self._deferred:
            wanted[deferred.places[~deferred.made]] = False
        places = np.flatnonzero(wanted)
        columns = Columns.joined(self._columns)[places]
        rows = sp.csr_array(sp.vstack([sp.csr_array((0, self.width)), *self._rows], format="csr"))
        model = MilpModel(
            cost=np.zeros(len(places)),
            offset=0.0,
            lower=np.concatenate(self._lower)[places],
            upper=np.concatenate(self._upper)[places],
            integral=columns.integral,
            rows=sp.csr_array(rows[:, places]),
            row_lower=np.concatenate([np.zeros(0), *self._row_lower]),
            row_upper=np.concatenate([np.zeros(0), *self._row_upper]),
            row_error=np.concatenate([np.zeros(0), *self._row_error]),
        )
        return model, columns, Expression(sp.csr_array(value.matrix[:, places]), value.constant, value.error)
