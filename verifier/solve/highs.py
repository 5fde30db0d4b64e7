"""Mixed-integer minimisation with HiGHS, and what its statuses may be taken to mean.

Measured with HiGHS 1.15.1 (tests/unit/test_highs_status.py keeps these facts true):

* ``kInfeasible`` and the dual bound are the only answers about all points.  ``kUnboundedOrInfeasible`` comes
  from presolve and means neither.  An infeasible program reports ``mip_dual_bound`` as -inf and a linear
  program reports it as 0, so it is only read for programs with integers that ended some other way.
* ``objective_target`` stops at the first incumbent that is good enough, as ``kObjectiveTarget``.
  ``objective_bound`` returns ``kOptimal`` at a wrong value and is never set: to stop once the dual bound is
  good enough, the interrupt callback asks for it.
* A start that is not feasible is ignored without a word.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.encodings.milp.model import MilpModel
from verifier.errors import SolverError
from verifier.solve import highs_run
from verifier.solve.arrays import program
from verifier.solve.highs_run import Answer, Options, Point, Report, Request
from verifier.solve.lp_certificate import certified_lower_bound
from verifier.solve.outcome import Outcome, Status
from verifier.solve.process import HighsProcess, ProcessDiedError

Array = NDArray[np.float64]

BOUND_TOLERANCE = 1e-5
"""How far outside its bounds, relative to their size, a returned column may be; HiGHS promises 1e-6."""
FEASIBLE = 1e-7
"""A start that violates nothing by more than this counts as feasible; HiGHS itself asks for 1e-6."""
FOREVER = 1e10
"""A time limit, in seconds, for those who have none."""
PERIOD = 0.2
"""Seconds between reports of progress."""

SMALL = 5_000
"""Nonzeros up to which no step of HiGHS takes long, so that starting a process is not worth it."""

NO_HEURISTICS: Options = {
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_root_reduced_cost": False,
}
"""For those who bring their points along.  HiGHS hardly finds any in networks, and spends most of its time on it:
256x4 after tightening, two margins: undecided after 30 s with heuristics, 27 and 24 s without."""

ANSWERS = {"kOptimal": Status.OPTIMAL, "kObjectiveTarget": Status.TARGET, "kInfeasible": Status.INFEASIBLE}
LIMITS = frozenset({"kTimeLimit", "kIterationLimit", "kSolutionLimit", "kMemoryLimit", "kInterrupt"})


def minimise(
    model: MilpModel,
    deadline: Deadline,
    *,
    process: HighsProcess | None = None,
    threads: int = 1,
    start: Array | None = None,
    stop_below: float | None = None,
    stop_above: float | None = None,
    accept: Callable[[Array], bool] | None = None,
    on_progress: Callable[[Report], None] | None = None,
    options: Options | None = None,
) -> Outcome:
    """Minimise a program until the optimum, one of the stops, or the deadline.

    process: where programs of more than SMALL nonzeros run.  Without one HiGHS runs right here and may
        overrun the deadline by seconds.
    start: (n,), a point to begin with; ignored by HiGHS unless it is feasible.
    stop_below: end with TARGET at a point that costs no more than this.
    stop_above: end with BOUND once every feasible point is known to cost more than this.
    accept: asked about every improving point, (n,); True ends with TARGET and that point.
    on_progress: told a few times per second where the run stands.
    options: further HiGHS options, by name.
    Raises SolverError when HiGHS refuses the program, contradicts itself or what is known.
    """
    begun = time.monotonic()
    settings: Options = {"threads": threads, **(options or {})}
    if stop_below is not None:
        settings["objective_target"] = stop_below
    assert "objective_bound" not in settings, "it makes HiGHS return a wrong optimum"
    listener = _Listener(model, accept, on_progress)
    request = Request(
        program=program(model),
        options=settings,
        seconds=min(deadline.remaining, FOREVER),
        start=None if start is None else np.clip(start, model.lower, model.upper),
        stop_above=np.inf if stop_above is None else stop_above,
        period=PERIOD,
        points=accept is not None or process is not None,
    )
    answer = None
    if request["seconds"] > 0:
        remote = process if model.rows.nnz > SMALL else None
        answer = _remote(remote, request, listener) if remote else highs_run.run(request, listener.tell)
    outcome = _judged(model, answer, listener, request["stop_above"], time.monotonic() - begun)
    _compare_with_start(outcome, model, start)
    return outcome


class _Listener:
    """What was heard during a run: enough for an outcome if the run has to be ended."""

    def __init__(
        self,
        model: MilpModel,
        accept: Callable[[Array], bool] | None,
        on_progress: Callable[[Report], None] | None,
    ) -> None:
        self._model, self._accept, self._on_progress = model, accept, on_progress
        self.point: Array | None = None
        self.accepted: Array | None = None
        self.dual_bound = -np.inf
        self.nodes = 0

    def tell(self, message: Point | Report) -> bool:
        """True when the run may stop."""
        if "point" in message:
            self.point = _within_bounds(message["point"], self._model)
            if self._accept is not None and self._accept(self.point):
                self.accepted = self.point
            return self.accepted is not None
        if message["dual_bound"] < np.inf:
            self.dual_bound = max(self.dual_bound, message["dual_bound"])
        self.nodes = max(self.nodes, message["nodes"])
        if self._on_progress is not None:
            self._on_progress(message)
        return False


def _remote(process: HighsProcess, request: Request, listener: _Listener) -> Answer | None:
    """The answer, or None when the run was ended before it had one."""
    try:
        with contextlib.closing(process.answers(request)) as messages:
            for message in messages:
                if "status" in message:
                    return message
                if listener.tell(message):
                    break
    except ProcessDiedError as death:
        return highs_run.no_answer(status=str(death))
    return None


def _judged(model: MilpModel, answer: Answer | None, listener: _Listener, stop_above: float, seconds: float) -> Outcome:
    """What may be believed of an answer; None stands for a run that was ended from outside."""
    point, dual, nodes = listener.point, listener.dual_bound, listener.nodes
    status, detail = Status.LIMIT, "ended"
    if answer is not None:
        if answer["refused"]:
            raise SolverError(answer["refused"])
        status, detail = _status(answer), answer["status"]
        nodes = max(nodes, answer["nodes"], 0)
        if status is Status.FAILED:
            dual = -np.inf
        elif status is Status.INFEASIBLE:
            dual = np.inf
            if point is not None:
                raise SolverError("HiGHS found a point and then called the program infeasible")
        else:
            dual = max(dual, _dual_bound(model, answer))
            point = _point(model, answer, point)
    if listener.accepted is not None:
        status, point = Status.TARGET, listener.accepted
    elif status is Status.LIMIT and stop_above < dual:
        status = Status.BOUND
    objective = np.inf if point is None else model.objective(point)
    if point is not None and dual > objective + _leeway(objective):
        raise SolverError(
            f"HiGHS claims that nothing costs less than {dual:.17g} ({detail}), but its own point costs "
            f"{objective:.17g}"
        )
    return Outcome(status, objective, dual, point, nodes, seconds, detail)


def _status(answer: Answer) -> Status:
    if answer["run"] not in ("kOk", "kWarning"):  # a limit is a warning
        return Status.FAILED
    if answer["status"] in LIMITS:
        return Status.LIMIT
    return ANSWERS.get(answer["status"], Status.FAILED)


def _dual_bound(model: MilpModel, answer: Answer) -> float:
    if model.integral.any():
        if np.isnan(answer["dual_bound"]):
            raise SolverError("HiGHS reports a dual bound that is not a number")
        # Infinity would say "infeasible", and only kInfeasible may say that.
        return answer["dual_bound"] if answer["dual_bound"] < np.inf else -np.inf
    # A linear program reports none, but any row duals give one.
    return -np.inf if answer["row_duals"] is None else certified_lower_bound(model, answer["row_duals"])


def _point(model: MilpModel, answer: Answer, heard: Array | None) -> Array | None:
    if not answer["feasible"] or answer["point"] is None:
        return heard
    return _within_bounds(answer["point"], model)


def _within_bounds(point: Array, model: MilpModel) -> Array:
    """The point, clipped; raises SolverError where a column is outside its bounds beyond tolerance."""
    inside = np.clip(point, model.lower, model.upper)
    excess = np.abs(point - inside) / (1.0 + np.abs(inside))
    if not np.all(excess <= BOUND_TOLERANCE):
        worst = int(np.argmax(np.nan_to_num(excess, nan=np.inf)))
        raise SolverError(
            f"HiGHS returned {point[worst]:.17g} for column {worst}, whose bounds are "
            f"[{model.lower[worst]:.17g}, {model.upper[worst]:.17g}]"
        )
    return inside


def _compare_with_start(outcome: Outcome, model: MilpModel, start: Array | None) -> None:
    """A feasible start refutes a claim of infeasibility and any dual bound above its cost."""
    if start is None or outcome.dual_bound == -np.inf or model.violation(start) > FEASIBLE:
        return
    cost = model.objective(start)
    if outcome.dual_bound > cost + _leeway(cost):
        raise SolverError(
            f"HiGHS claims that nothing costs less than {outcome.dual_bound:.17g} ({outcome.detail}), but the "
            f"start it was given is feasible and costs {cost:.17g}"
        )


def _leeway(cost: float) -> float:
    """How far a dual bound may be above the cost of a point that is feasible within tolerances."""
    return 1e-4 * (1.0 + abs(cost))
