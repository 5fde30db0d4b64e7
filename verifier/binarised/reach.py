"""Which sign patterns of the first layer can be reached: linear programs, answered in integer arithmetic.

A (partial) pattern asks some gates to be 1, ``w_j k >= t_j``, and some to be 0, ``-w_j k >= 1 - t_j``, over
``0 <= k <= counts``.  The linear program

    maximise d <= 0    subject to    s_j w_j k - d >= r_j   for the gates asked about

is feasible whatever is asked; its optimum is negative exactly when the pattern is out of reach of real levels.  The
dual multipliers then name a *conflict*: a combination of some of the rows that no levels satisfy.  They are
rounded to integers and the combination is checked in integers (Farkas' lemma), so a conflict is a proof, whatever
HiGHS's tolerances; one that fails the check is not used.
"""

from __future__ import annotations

from collections.abc import Mapping

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.encodings.milp.model import MilpModel
from verifier.encodings.sat.program import Rows
from verifier.proofs.conflict import Conflict, refutes
from verifier.solve.highs import minimise
from verifier.solve.outcome import Status

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

GRAIN = 2**16
"""Multipliers are rounded to integers of about this size."""
OUT_OF_REACH = -1e-7
INFINITE = highspy.kHighsInf


class Reach:
    """Answers for one first layer.  ``programs`` counts the linear programs solved.

    rounding: None for integer levels; for real ones by how much a sum may be off, see ``refutes``.
    """

    def __init__(self, rows: Rows, counts: Integers, rounding: float | None = None) -> None:
        self._rows, self._counts, self._rounding = rows, counts, rounding
        self._gates = len(rows)
        self._active: dict[int, bool] = {}
        self.programs = 0
        self._highs = self._load()

    def ask(self, pattern: Mapping[int, bool]) -> Conflict | Floats:
        """A conflict within the pattern, or real levels (levels,) that satisfy it up to HiGHS's tolerance."""
        self.programs += 1
        self._set(pattern)
        highs = self._highs
        highs.run()
        if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            highs.clearSolver()
            highs.run()
        solution = highs.getSolution()
        levels = np.array(solution.col_value[:-1])
        if solution.col_value[-1] > OUT_OF_REACH:
            return levels
        duals = np.abs(np.array(solution.row_dual))
        gates = np.array(sorted(pattern), np.int64)
        bits = np.array([pattern[int(g)] for g in gates], bool)
        multipliers = np.rint(duals[gates + np.where(bits, 0, self._gates)] * GRAIN).astype(np.int64)
        used = multipliers > 0
        conflict = Conflict(gates[used], bits[used], multipliers[used])
        if refutes(self._rows, self._counts, conflict, self._rounding):
            return self._smaller(conflict)
        return levels

    def _smaller(self, conflict: Conflict) -> Conflict:
        """Rows with the smallest multipliers left out where the rest still refutes."""
        order = np.argsort(conflict.multipliers)
        for place in order[: len(order) // 2].tolist():
            keep = np.arange(len(conflict.gates)) != place
            tried = Conflict(conflict.gates, conflict.bits, np.where(keep, conflict.multipliers, 0))
            if refutes(self._rows, self._counts, tried, self._rounding):
                conflict = tried
            else:
                break
        keep = conflict.multipliers > 0
        return Conflict(conflict.gates[keep], conflict.bits[keep], conflict.multipliers[keep])

    def _set(self, pattern: Mapping[int, bool]) -> None:
        """Activate the pattern's rows and no others."""
        for gate, bit in self._active.items():
            if pattern.get(gate) is not bit:
                self._bounds(gate, bit, active=False)
        for gate, bit in pattern.items():
            if self._active.get(gate) is not bit:
                self._bounds(gate, bit, active=True)
        self._active = dict(pattern)

    def _bounds(self, gate: int, bit: bool, active: bool) -> None:
        threshold = float(self._rows.thresholds[gate])
        if bit:
            self._highs.changeRowBounds(gate, threshold if active else -INFINITE, INFINITE)
        else:
            below = threshold - 1 if self._rounding is None else threshold
            self._highs.changeRowBounds(gate + self._gates, -INFINITE, below if active else INFINITE)

    def _load(self) -> highspy.Highs:
        """Two rows per gate, ``w k - d >= t`` and ``w k + d <= t - 1``, all without bounds at first."""
        weights = self._rows.weights.astype(np.float64)
        slack = np.concatenate([-np.ones(self._gates), np.ones(self._gates)])
        twice = sp.csr_array(sp.vstack([weights, weights]))
        matrix = sp.csr_array(sp.hstack([twice, sp.csr_array(slack[:, None])]))
        width = len(self._counts) + 1
        highs = highspy.Highs()
        highs.setOptionValue("output_flag", False)
        highs.setOptionValue("presolve", "off")
        highs.setOptionValue("threads", 1)
        cost = np.zeros(width)
        cost[-1] = 1.0
        lower = np.append(np.zeros(width - 1), -float(abs(weights).sum() * self._counts.max() + 1e6))
        upper = np.append(self._counts.astype(np.float64), 0.0)
        free = np.full(2 * self._gates, INFINITE)
        highs.passModel(
            width, 2 * self._gates, matrix.nnz,
            int(highspy.MatrixFormat.kRowwise), int(highspy.ObjSense.kMaximize), 0.0,
            cost, lower, upper, -free, free,
            matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data, np.zeros(width, np.int32),
        )  # fmt: skip
        return highs


def integer_levels(
    rows: Rows, counts: Integers, bits: NDArray[np.bool_], deadline: Deadline
) -> tuple[Integers | None, bool]:
    """Levels that reach a complete pattern ``bits`` (gates,), and whether HiGHS came to an end.

    (None, True) is a "no" by HiGHS's word.
    """
    outcome = minimise(_reaching(rows, counts, bits), deadline)
    if outcome.point is not None:
        levels = np.rint(outcome.point).astype(np.int64)
        if np.array_equal(rows(levels[None])[0], bits):
            return levels, True
    return None, outcome.status is Status.INFEASIBLE


def _reaching(rows: Rows, counts: Integers, bits: NDArray[np.bool_]) -> MilpModel:
    """The integer program whose points have exactly these bits in the first layer."""
    size = len(counts)
    free = np.full(len(rows), np.inf)
    return MilpModel(
        cost=np.zeros(size),
        offset=0.0,
        lower=np.zeros(size),
        upper=counts.astype(np.float64),
        integral=np.ones(size, bool),
        rows=sp.csr_array(rows.weights.astype(np.float64)),
        row_lower=np.where(bits, rows.thresholds, -free),
        row_upper=np.where(bits, free, rows.thresholds - 1),
        row_error=np.zeros(len(rows)),
    )
