"""Mixed-integer minimisation with HiGHS, and what its statuses may be taken to mean.

Measured with HiGHS 1.15.1 (see tests/unit/test_highs_status.py, which keeps these facts true):

* ``kInfeasible`` and the dual bound are the only answers about all points.  ``kUnboundedOrInfeasible`` comes
  from presolve and means neither; an infeasible program reports ``mip_dual_bound`` as -inf, a linear program
  reports it as 0, so it is only read for programs with integers that HiGHS did not call infeasible.
* ``objective_target`` stops at the first incumbent that is good enough, as ``kObjectiveTarget``.
  ``objective_bound`` returns ``kOptimal`` at a wrong value and is never set; to stop once the dual bound is
  good enough the interrupt callback asks for it.
* Changing ``threads`` within a process makes ``run`` fail unless the scheduler is reset first.
* ``time_limit`` is looked at between the steps of presolve and of the root node, each of which can take
  seconds; the callbacks are called more often and end the run there too.
* An exception in a callback passes through HiGHS's own frames; here it is kept, the run interrupted, and the
  exception raised afterwards.  That also makes Ctrl-C work during a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.encodings.milp.model import MilpModel
from verifier.errors import SolverError
from verifier.solve.loading import done, loaded
from verifier.solve.lp_certificate import certified_lower_bound
from verifier.solve.outcome import Outcome, Status

Array = NDArray[np.float64]

BOUND_TOLERANCE = 1e-5
"""How far outside its bounds, relative to their size, a returned column may be; HiGHS promises 1e-6."""
FEASIBILITY_TOLERANCE = 1e-6
"""``mip_feasibility_tolerance``: what HiGHS itself calls feasible."""

LIMITS = frozenset(
    {
        highspy.HighsModelStatus.kTimeLimit,
        highspy.HighsModelStatus.kIterationLimit,
        highspy.HighsModelStatus.kSolutionLimit,
        highspy.HighsModelStatus.kMemoryLimit,
        highspy.HighsModelStatus.kInterrupt,
    }
)


@dataclass(frozen=True)
class Report:
    """Where a run stands: the bounds on the optimum and the nodes explored."""

    dual_bound: float
    objective: float
    nodes: int


def minimise(
    model: MilpModel,
    deadline: Deadline,
    *,
    threads: int = 1,
    start: Array | None = None,
    stop_below: float | None = None,
    stop_above: float | None = None,
    accept: Callable[[Array], bool] | None = None,
    on_progress: Callable[[Report], None] | None = None,
    options: dict[str, bool | int | float | str] | None = None,
) -> Outcome:
    """Minimise a program until the optimum, one of the stops, or the deadline.

    start: (n,), a point to begin with; ignored by HiGHS unless it is feasible.
    stop_below: end with TARGET at a point that costs no more than this.
    stop_above: end with BOUND once every feasible point is known to cost more than this.
    accept: asked about every improving point, (n,); True ends with TARGET.
    on_progress: told where the run stands whenever HiGHS looks at its limits.
    options: further HiGHS options.  ``objective_bound`` must not be among them.
    Raises SolverError when HiGHS contradicts itself or what is known.
    """
    begun = time.monotonic()
    settings: dict[str, bool | int | float | str] = {"threads": threads, **(options or {})}
    assert "objective_bound" not in settings
    if stop_below is not None:
        settings["objective_target"] = stop_below
    highs = loaded(model, settings)
    watch = _Watch(deadline, stop_above, accept, on_progress)
    watch.subscribe(highs)
    if start is not None:
        solution = highspy.HighsSolution()
        solution.col_value = np.ascontiguousarray(start, dtype=np.float64)
        solution.value_valid = True
        done(highs.setSolution(solution), "setting the start")
    remaining = deadline.remaining
    if remaining <= 0:
        return Outcome(Status.LIMIT, np.inf, -np.inf, None, 0, time.monotonic() - begun, "no time left")
    if np.isfinite(remaining):
        done(highs.setOptionValue("time_limit", remaining), "setting time_limit")
    highspy.Highs.resetGlobalScheduler(True)
    run = highs.run()
    if watch.error is not None:
        raise watch.error
    outcome = _outcome(highs, run, model, watch, time.monotonic() - begun)
    _check_feasible_start(outcome, model, start)
    return outcome


class _Watch:
    """The callbacks of one run."""

    def __init__(
        self,
        deadline: Deadline,
        stop_above: float | None,
        accept: Callable[[Array], bool] | None,
        on_progress: Callable[[Report], None] | None,
    ) -> None:
        self.deadline, self.stop_above = deadline, stop_above
        self.accept, self.on_progress = accept, on_progress
        self.accepted: Array | None = None
        self.error: BaseException | None = None

    def subscribe(self, highs: highspy.Highs) -> None:
        highs.cbMipInterrupt.subscribe(self._guarded(self._check))
        highs.cbSimplexInterrupt.subscribe(self._guarded(self._check_time))
        highs.cbIpmInterrupt.subscribe(self._guarded(self._check_time))
        if self.accept is not None:
            highs.cbMipImprovingSolution.subscribe(self._guarded(self._judge))

    def _guarded(
        self, action: Callable[[highspy.highs.HighsCallbackEvent], None]
    ) -> Callable[[highspy.highs.HighsCallbackEvent], None]:
        def call(event: highspy.highs.HighsCallbackEvent) -> None:
            try:
                if self.error is None:
                    action(event)
            except BaseException as error:  # KeyboardInterrupt too: kept, and raised after the run
                self.error = error
            if self.error is not None:
                event.interrupt()

        return call

    def _check(self, event: highspy.highs.HighsCallbackEvent) -> None:
        data = event.data_out
        if self.on_progress is not None:
            self.on_progress(Report(data.mip_dual_bound, data.mip_primal_bound, data.mip_node_count))
        bounded = self.stop_above is not None and self.stop_above < data.mip_dual_bound < np.inf
        if bounded or self.accepted is not None or self.deadline.expired:
            event.interrupt()

    def _check_time(self, event: highspy.highs.HighsCallbackEvent) -> None:
        if self.deadline.expired:
            event.interrupt()

    def _judge(self, event: highspy.highs.HighsCallbackEvent) -> None:
        assert self.accept is not None
        point = np.array(event.data_out.mip_solution, dtype=np.float64)
        if self.accepted is None and self.accept(point):
            self.accepted = point


def _outcome(
    highs: highspy.Highs,
    run: highspy.HighsStatus,
    model: MilpModel,
    watch: _Watch,
    seconds: float,
) -> Outcome:
    ended, info = highs.getModelStatus(), highs.getInfo()
    nodes = max(0, info.mip_node_count)

    def outcome(status: Status, point: Array | None, dual: float) -> Outcome:
        objective = np.inf if point is None else model.objective(point)
        return Outcome(status, objective, dual, point, nodes, seconds, ended.name)

    if run == highspy.HighsStatus.kError:
        return outcome(Status.FAILED, None, -np.inf)
    if ended == highspy.HighsModelStatus.kInfeasible:
        if watch.accepted is not None:
            raise SolverError("HiGHS found a point and then called the program infeasible")
        return outcome(Status.INFEASIBLE, None, np.inf)
    status = _status(ended)
    if status is Status.FAILED:
        return outcome(status, None, -np.inf)
    dual = _dual_bound(highs, model, ended)
    point = _point(highs, model)
    if watch.accepted is not None:
        return outcome(Status.TARGET, _within_bounds(watch.accepted, model), dual)
    if status is Status.LIMIT and watch.stop_above is not None and watch.stop_above < dual < np.inf:
        status = Status.BOUND
    return outcome(status, point, dual)


def _status(ended: highspy.HighsModelStatus) -> Status:
    if ended == highspy.HighsModelStatus.kOptimal:
        return Status.OPTIMAL
    if ended == highspy.HighsModelStatus.kObjectiveTarget:
        return Status.TARGET
    return Status.LIMIT if ended in LIMITS else Status.FAILED


def _dual_bound(highs: highspy.Highs, model: MilpModel, ended: highspy.HighsModelStatus) -> float:
    if model.integral.any():
        dual = float(highs.getInfo().mip_dual_bound)
        if np.isnan(dual):
            raise SolverError("HiGHS reports a dual bound that is not a number")
        return dual
    # A linear program reports none: its own duals give one, and are checked on the way.
    solution = highs.getSolution()
    if not solution.dual_valid or ended != highspy.HighsModelStatus.kOptimal:
        return -np.inf
    return certified_lower_bound(model, np.array(solution.row_dual, dtype=np.float64))


def _point(highs: highspy.Highs, model: MilpModel) -> Array | None:
    solution = highs.getSolution()
    feasible = highs.getInfo().primal_solution_status == highspy.kSolutionStatusFeasible
    if not (solution.value_valid and feasible):
        return None
    return _within_bounds(np.array(solution.col_value, dtype=np.float64), model)


def _within_bounds(point: Array, model: MilpModel) -> Array:
    """The point, clipped; raises SolverError where a column is outside its bounds beyond tolerance."""
    inside = np.clip(point, model.lower, model.upper)
    excess = np.abs(point - inside) / (1.0 + np.abs(inside))
    if not np.all(excess <= BOUND_TOLERANCE):
        worst = int(np.argmax(np.nan_to_num(excess, nan=np.inf)))
        raise SolverError(
            f"HiGHS returned {point[worst]!r} for column {worst}, whose bounds are "
            f"[{model.lower[worst]!r}, {model.upper[worst]!r}]"
        )
    return inside


def _check_feasible_start(outcome: Outcome, model: MilpModel, start: Array | None) -> None:
    """A point that is known to be feasible refutes a claim of infeasibility or a dual bound above its cost."""
    if start is None or outcome.dual_bound == -np.inf or model.violation(start) > FEASIBILITY_TOLERANCE / 10:
        return
    cost = model.objective(start)
    if outcome.dual_bound > cost + 1e-4 * (1.0 + abs(cost)):
        raise SolverError(
            f"HiGHS claims that nothing costs less than {outcome.dual_bound!r} ({outcome.detail}), but the "
            f"start it was given is feasible and costs {cost!r}"
        )
