"""What HiGHS says and what we make of it.

The tests of HiGHS itself fail when a new version behaves differently from what the drivers rely on.
"""

from __future__ import annotations

import dataclasses

import highspy
import numpy as np
import pytest
import scipy.sparse as sp

from support.programs import market_split, milp
from verifier.deadline import Deadline
from verifier.encodings.milp.model import MilpModel
from verifier.errors import SolverError
from verifier.solve import highs_run
from verifier.solve.arrays import program
from verifier.solve.highs import minimise
from verifier.solve.highs_run import Answer
from verifier.solve.lp import LinearPrograms
from verifier.solve.outcome import Outcome, Status

KNAPSACK = milp([-5, -4, -3], [0, 0, 0], [1, 1, 1], [[2, 3, 1], [4, 1, 2]], [-np.inf] * 2, [5, 11], offset=10)
"""Optimum 1 at (1, 1, 0)."""
INFEASIBLE = milp([1, 1], [0, 0], [5, 5], [[1, 1]], [11], [np.inf])
UNBOUNDED = milp([-1, 0], [0, 0], [np.inf, np.inf], [[1, -1]], [-np.inf], [3.5])


def solved(model: MilpModel, **settings: object) -> Outcome:
    return minimise(model, Deadline.after(20), **settings)  # type: ignore[arg-type]


def answered(model: MilpModel, **changes: object) -> Outcome:
    """The outcome when HiGHS answers with these changes."""
    answer = Answer(
        refused="",
        run="kOk",
        status="kOptimal",
        dual_bound=1.0,
        nodes=1,
        feasible=True,
        point=np.array([1.0, 1.0, 0.0]),
        row_duals=None,
    )
    answer.update(changes)  # type: ignore[typeddict-item]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(highs_run, "run", lambda request, tell: answer)
        return solved(model)


def test_optimal() -> None:
    outcome = solved(KNAPSACK)
    assert outcome.status is Status.OPTIMAL
    assert outcome.objective == pytest.approx(1.0)
    assert outcome.dual_bound == pytest.approx(1.0)
    assert outcome.point == pytest.approx([1, 1, 0])


def test_infeasible() -> None:
    outcome = solved(INFEASIBLE)
    assert outcome.status is Status.INFEASIBLE
    assert outcome.dual_bound == np.inf
    assert outcome.objective == np.inf
    assert outcome.point is None


@pytest.mark.parametrize("integral", [True, False])
def test_unbounded_is_no_answer(integral: bool) -> None:
    outcome = solved(dataclasses.replace(UNBOUNDED, integral=np.full(2, integral)))
    assert outcome.status is Status.FAILED
    assert outcome.dual_bound == -np.inf


def test_linear_programs() -> None:
    model = milp([1, 2], [0, 0], [5, 5], [[1, 1]], [1.5], [np.inf], integral=False)
    outcome = solved(model)
    assert outcome.status is Status.OPTIMAL
    assert outcome.objective == pytest.approx(1.5)
    # The certificate's value, not what HiGHS reports as the bound of a linear program.
    assert 1.5 - 1e-9 < outcome.dual_bound < 1.5
    infeasible = dataclasses.replace(INFEASIBLE, integral=np.zeros(2, bool))
    assert solved(infeasible).status is Status.INFEASIBLE


def test_no_rows() -> None:
    outcome = solved(milp([1, -2], [0, 1], [5, 4]))
    assert outcome.status is Status.OPTIMAL
    assert outcome.objective == pytest.approx(-8)
    assert solved(milp([1, -2], [0, 1], [5, 4], integral=False)).dual_bound == pytest.approx(-8)


def test_no_time() -> None:
    outcome = minimise(KNAPSACK, Deadline.after(0))
    assert outcome.status is Status.LIMIT
    assert outcome.point is None
    assert outcome.dual_bound == -np.inf


@pytest.mark.parametrize(
    "status",
    ["kUnboundedOrInfeasible", "kUnbounded", "kUnknown", "kObjectiveBound", "kSolveError", "kModelEmpty", "kNotset"],
)
def test_statuses_that_say_nothing(status: str) -> None:
    outcome = answered(KNAPSACK, status=status)
    assert outcome.status is Status.FAILED
    assert outcome.dual_bound == -np.inf


@pytest.mark.parametrize("status", ["kTimeLimit", "kInterrupt", "kMemoryLimit", "kSolutionLimit", "kIterationLimit"])
def test_limits_keep_the_dual_bound(status: str) -> None:
    outcome = answered(KNAPSACK, status=status, run="kWarning", dual_bound=0.5)
    assert outcome.status is Status.LIMIT
    assert outcome.dual_bound == 0.5
    assert outcome.objective == 1.0
    nothing = answered(KNAPSACK, status=status, run="kWarning", dual_bound=np.inf, feasible=False)
    assert nothing.dual_bound == -np.inf, "only kInfeasible may say infeasible"


def test_every_status_of_highs_is_known() -> None:
    """A status that a new version adds is a failure until somebody has thought about it."""
    names = set(highspy.HighsModelStatus.__members__)
    known = {
        "kOptimal", "kInfeasible", "kObjectiveTarget",
        "kTimeLimit", "kIterationLimit", "kSolutionLimit", "kMemoryLimit", "kInterrupt",
        "kNotset", "kLoadError", "kModelError", "kPresolveError", "kSolveError", "kPostsolveError", "kModelEmpty",
        "kUnboundedOrInfeasible", "kUnbounded", "kObjectiveBound", "kUnknown", "kHighsInterrupt",
    }  # fmt: skip
    assert names <= known, "read what it means, then sort it in"


def test_a_failed_run_is_no_answer() -> None:
    assert answered(KNAPSACK, run="kError").status is Status.FAILED


def test_contradictions_raise() -> None:
    with pytest.raises(SolverError, match="column 0"):
        answered(KNAPSACK, point=np.array([1.5, 1.0, 0.0]))
    with pytest.raises(SolverError, match="column 1"):
        answered(KNAPSACK, point=np.array([1.0, np.nan, 0.0]))
    with pytest.raises(SolverError, match="its own point"):
        answered(KNAPSACK, dual_bound=2.0)
    with pytest.raises(SolverError, match="not a number"):
        answered(KNAPSACK, dual_bound=np.nan)
    with pytest.raises(SolverError, match="refused"):
        answered(KNAPSACK, refused="refused")


def test_a_feasible_start_refutes_infeasibility() -> None:
    start = np.array([1.0, 0.0, 0.0])
    with pytest.MonkeyPatch.context() as patch:
        answer = highs_run.no_answer(status="kInfeasible")
        answer["run"] = "kOk"
        patch.setattr(highs_run, "run", lambda request, tell: answer)
        assert solved(KNAPSACK).status is Status.INFEASIBLE
        with pytest.raises(SolverError, match="start"):
            solved(KNAPSACK, start=start)
        infeasible_start = np.array([1.0, 1.0, 1.0])
        assert solved(KNAPSACK, start=infeasible_start).status is Status.INFEASIBLE


@pytest.mark.parametrize(
    "changes",
    [
        {"cost": np.array([np.nan, 0, 0])},
        {"cost": np.array([np.inf, 0, 0])},
        {"offset": np.nan},
        {"lower": np.array([np.nan, 0, 0])},
        {"upper": np.array([1e15, 1, 1])},
        {"lower": np.array([2.0, 0, 0])},
        {"rows": sp.csr_array([[np.nan, 1, 1], [1, 1, 1]])},
        {"rows": sp.csr_array([[1e-13, 1, 1], [1, 1, 1]])},
        {"rows": sp.csr_array([[1e16, 1, 1], [1, 1, 1]])},
        {"row_upper": np.array([np.nan, 1])},
    ],
    ids=str,
)
def test_programs_that_highs_would_misread(changes: dict[str, object]) -> None:
    with pytest.raises(SolverError):
        solved(dataclasses.replace(KNAPSACK, **changes))  # type: ignore[arg-type]


def test_small_coefficients_are_kept() -> None:
    """1e-10 is far below the default of what HiGHS keeps, and decides this program."""
    model = milp([1.0], [0], [1e12], [[1e-10]], [1.0], [np.inf], integral=False)
    outcome = solved(model)
    assert outcome.objective == pytest.approx(1e10)


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(SolverError, match="no_such_option"):
        solved(KNAPSACK, options={"no_such_option": 1})


def test_threads_may_change_within_a_process() -> None:
    for threads in (1, 2, 1):
        assert solved(KNAPSACK, threads=threads).status is Status.OPTIMAL


class TestFactsAboutHighs:
    """What the drivers rely on."""

    def test_an_infeasible_mip_has_no_dual_bound(self) -> None:
        highs = highs_run.load(program(INFEASIBLE), {})
        highs.run()
        assert highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible
        assert highs.getInfo().mip_dual_bound == -np.inf

    def test_a_linear_program_has_a_meaningless_dual_bound(self) -> None:
        highs = highs_run.load(program(KNAPSACK.relaxed()), {})
        highs.run()
        assert highs.getInfo().mip_dual_bound == 0

    def test_a_feasible_unbounded_mip_is_unbounded_or_infeasible(self) -> None:
        highs = highs_run.load(program(UNBOUNDED), {})
        highs.run()
        assert highs.getModelStatus() == highspy.HighsModelStatus.kUnboundedOrInfeasible

    def test_objective_bound_gives_a_wrong_optimum(self) -> None:
        """Why it is never set."""
        with pytest.raises(AssertionError, match="wrong optimum"):
            solved(KNAPSACK, options={"objective_bound": 0.0})

    def test_the_time_limit_counts_all_runs(self) -> None:
        model = market_split(60, 30).relaxed()
        highs = highs_run.load(program(model), {"presolve": "off"})
        highs.run()
        spent = highs.getRunTime()
        highs.clearSolver()
        highs.setOptionValue("time_limit", spent / 2)
        highs.run()
        assert highs.getModelStatus() == highspy.HighsModelStatus.kTimeLimit
        # The driver of linear programs allows for it.
        programs = LinearPrograms(model)
        for _ in range(3):
            assert programs.minimum(model.cost, model.offset, Deadline.after(5)).point is not None

    def test_nan_is_taken_without_a_word(self) -> None:
        arrays = program(KNAPSACK)
        arrays["cost"] = np.array([np.nan, 0.0, 0.0])
        highs_run.load(arrays, {})

    def test_a_warning_is_refused(self) -> None:
        arrays = program(KNAPSACK)
        arrays["values"] = np.full_like(arrays["values"], 1e-13)
        with pytest.raises(highs_run.RefusedError, match="passing the program"):
            highs_run.load(arrays, {})
