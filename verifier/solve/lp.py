"""One linear program, many costs: HiGHS's dual simplex with one basis carried along, and certified bounds.

The rows stay loaded; only the cost changes, and the last basis is where the next run begins.  Measured on
layers of mnist_wk17a, 256x4 and oval21 base, per cost: this 0.5, 36 and 35 ms; primal simplex, which keeps
the last point feasible, 0.6, 40 and 122 ms; from scratch 1.4, 65 and 63 ms.

On large programs the simplex method may take ten times as long as an interior point method without crossover
(margins of 256x6: 1-7 s against 0.8 s; eran 9x200: 1-12 s against 0.9 s), or a quarter of its time (oval21
base: 0.1 s against 0.4 s).  So the simplex method gets about the time that the other one would need, and the
other one takes over for good when that is not enough.

What is returned is never HiGHS's objective but the bound that its row duals prove (see ``lp_certificate``), so
statuses hardly matter: a run that was cut off only proves less.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.encodings.milp.model import MilpModel
from verifier.errors import SolverError
from verifier.solve import highs_run
from verifier.solve.arrays import check, program
from verifier.solve.highs_run import RefusedError
from verifier.solve.lp_certificate import Certifier, certified_lower_bound

Array = NDArray[np.float64]

SIMPLEX_SECONDS = 0.2
SIMPLEX_SECONDS_PER_NONZERO = 4e-6
FOREVER = 1e10


@dataclass(frozen=True, eq=False)
class LinearBound:
    """lower: certified, in exact arithmetic; -inf where nothing was proved.

    point: (n,), a minimiser of the relaxation within tolerances, None unless HiGHS found one.
    """

    lower: float
    point: Array | None


class LinearPrograms:
    """The linear relaxation of a model, for minimising one cost after the other.

    Raises SolverError where HiGHS refuses the model.
    """

    def __init__(self, model: MilpModel) -> None:
        self._model = model.relaxed()
        self._certifier = Certifier(model)
        self._columns = np.arange(model.n_columns, dtype=np.int32)
        self._interior = False
        try:
            self._highs = highs_run.load(program(self._model), {"threads": 1, "presolve": "off"})
        except RefusedError as refusal:
            raise SolverError(str(refusal)) from None

    def minimum(self, cost: Array, offset: float, deadline: Deadline, cost_error: float = 0.0) -> LinearBound:
        """The least ``cost @ x + offset`` over the relaxation.

        cost: (n,).  cost_error: how far the exact cost may be from that at any point meant.
        """
        check(dataclasses.replace(self._model, cost=cost, offset=offset))
        highs = self._highs
        try:
            status = highs.changeColsCost(len(self._columns), self._columns, np.ascontiguousarray(cost))
            highs_run.expect(status, "changing the cost")
            if not self._interior:
                self._run(deadline.within(SIMPLEX_SECONDS + SIMPLEX_SECONDS_PER_NONZERO * self._model.rows.nnz))
                if highs.getModelStatus().name == "kTimeLimit" and not deadline.expired:
                    self._interior = True
                    for name, value in (("solver", "ipm"), ("run_crossover", "off")):
                        highs_run.expect(highs.setOptionValue(name, value), f"setting {name} to {value}")
            if self._interior:
                highs_run.expect(highs.clearSolver(), "forgetting the last run")
                self._run(deadline)
        except RefusedError as refusal:
            raise SolverError(str(refusal)) from None
        solution = highs.getSolution()
        multipliers = np.zeros(self._model.n_rows)
        if solution.dual_valid:
            multipliers = np.array(solution.row_dual, dtype=np.float64)
        lower = self._certifier.bound(multipliers, cost, offset, cost_error)
        solved = highs.getModelStatus().name == "kOptimal" and solution.value_valid
        return LinearBound(lower, np.array(solution.col_value, dtype=np.float64) if solved else None)

    def _run(self, deadline: Deadline) -> None:
        # HiGHS counts all runs of an instance together.
        limit = self._highs.getRunTime() + min(deadline.remaining, FOREVER)
        highs_run.expect(self._highs.setOptionValue("time_limit", limit), "setting time_limit")
        self._highs.run()


def certified_minimum(model: MilpModel, deadline: Deadline) -> LinearBound:
    """The least cost over the relaxation of one model; infinite where multipliers prove it empty.

    Raises SolverError where HiGHS refuses the model.
    """
    relaxed = model.relaxed()
    try:
        highs = highs_run.load(program(relaxed), {"threads": 1, "presolve": "off"})
        highs_run.expect(highs.setOptionValue("time_limit", min(deadline.remaining, FOREVER)), "setting time_limit")
        highs.run()
    except RefusedError as refusal:
        raise SolverError(str(refusal)) from None
    if highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        _, has_ray, values = highs.getDualRay()  # type: ignore[attr-defined]  # the stubs lack it
        if not has_ray:
            return LinearBound(-np.inf, None)
        ray = np.array(values, dtype=np.float64)
        nothing = relaxed.costing(np.zeros(relaxed.n_columns), 0.0)
        empty = max(certified_lower_bound(nothing, side) for side in (ray, -ray)) > 0
        return LinearBound(np.inf if empty else -np.inf, None)
    solution = highs.getSolution()
    point = np.array(solution.col_value, dtype=np.float64) if solution.value_valid else None
    if not solution.dual_valid:
        return LinearBound(-np.inf, point)
    return LinearBound(certified_lower_bound(relaxed, np.array(solution.row_dual, dtype=np.float64)), point)
