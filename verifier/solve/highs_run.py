"""One run of HiGHS, from plain arrays to plain values: the only file that calls the mixed-integer solver.

It imports nothing of this package, so that a process of its own (see ``process``) starts in 0.15 s and 30 MB;
what the values mean is decided in ``highs``.

What was measured with HiGHS 1.15.1, and is kept true by tests/unit/test_highs_status.py:

* Changing ``threads`` within a process makes ``run`` fail unless the scheduler is reset first.
* ``time_limit`` counts all runs of one instance together.
* Presolve and probing look at no limit and call no callback: 5.6 s on a dense network of 6 x 256, whatever
  the limit.  Whoever needs to end in time has to end the process.
* An exception in a callback passes through HiGHS's own frames; here it is kept, the run interrupted, and the
  exception raised afterwards.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from typing import IO, Any, TypedDict, final

import highspy
import numpy as np
from numpy.typing import NDArray

Options = dict[str, bool | int | float | str]
Tell = Callable[["Point | Report"], bool]

SMALLEST_COEFFICIENT = 1e-12
"""The least that HiGHS can be made to keep; below it drops coefficients with no more than a warning."""


class Program(TypedDict):
    """minimise cost @ x + offset over lower <= x <= upper, row_lower <= rows @ x <= row_upper; rows in CSR."""

    cost: NDArray[np.float64]
    offset: float
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integral: NDArray[np.bool_]
    starts: NDArray[np.int32]
    indices: NDArray[np.int32]
    values: NDArray[np.float64]
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]


class Request(TypedDict):
    """start: a point to begin with.  stop_above: interrupt once the dual bound is higher.

    seconds: the time limit.  period: seconds between reports.  points: whether to tell improving points.
    """

    program: Program
    options: Options
    seconds: float
    start: NDArray[np.float64] | None
    stop_above: float
    period: float
    points: bool


@final
class Report(TypedDict):
    """Where a run stands."""

    dual_bound: float
    objective: float
    nodes: int


@final
class Point(TypedDict):
    """An improving point."""

    point: NDArray[np.float64]


@final
class Answer(TypedDict):
    """What HiGHS said.  run, status: names of HighsStatus and HighsModelStatus.

    feasible: whether HiGHS calls ``point`` feasible.  refused: which call went wrong before the run, or "".
    """

    refused: str
    run: str
    status: str
    dual_bound: float
    nodes: int
    feasible: bool
    point: NDArray[np.float64] | None
    row_duals: NDArray[np.float64] | None


class RefusedError(Exception):
    """HiGHS did not take what it was given without at least a warning."""


def load(program: Program, options: Options) -> highspy.Highs:
    """A silent instance that holds the program.  Raises RefusedError."""
    highs = highspy.Highs()
    for name, value in {"output_flag": False, "small_matrix_value": SMALLEST_COEFFICIENT, **options}.items():
        expect(highs.setOptionValue(name, value), f"setting {name} to {value}")
    status = highs.passModel(
        len(program["cost"]),
        len(program["row_lower"]),
        len(program["values"]),
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        program["offset"],
        program["cost"],
        program["lower"],
        program["upper"],
        program["row_lower"],
        program["row_upper"],
        program["starts"],
        program["indices"],
        program["values"],
        program["integral"].astype(np.int32),
    )
    expect(status, "passing the program")
    return highs


def expect(status: highspy.HighsStatus, action: str) -> None:
    """Raises RefusedError unless a call went without even a warning."""
    if status != highspy.HighsStatus.kOk:
        raise RefusedError(f"HiGHS answered {status.name} to {action}")


def run(request: Request, tell: Tell) -> Answer:
    """Minimise.  ``tell`` hears of improving points and of progress; True makes the run stop."""
    try:
        highs = load(request["program"], request["options"])
        if request["start"] is not None:
            solution = highspy.HighsSolution()
            solution.col_value = request["start"]
            solution.value_valid = True
            expect(highs.setSolution(solution), "setting the start")
        expect(highs.setOptionValue("time_limit", request["seconds"]), "setting time_limit")
    except RefusedError as refusal:
        return no_answer(refused=str(refusal))
    callbacks = _Callbacks(request, tell)
    callbacks.subscribe(highs)
    highspy.Highs.resetGlobalScheduler(True)
    status = highs.run()
    if callbacks.error is not None:
        raise callbacks.error
    info, solution = highs.getInfo(), highs.getSolution()
    return Answer(
        refused="",
        run=status.name,
        status=highs.getModelStatus().name,
        dual_bound=float(info.mip_dual_bound),
        nodes=int(info.mip_node_count),
        feasible=info.primal_solution_status == highspy.kSolutionStatusFeasible,
        point=np.array(solution.col_value, dtype=np.float64) if solution.value_valid else None,
        row_duals=np.array(solution.row_dual, dtype=np.float64) if solution.dual_valid else None,
    )


def no_answer(refused: str = "", status: str = "") -> Answer:
    """The answer of a run that never was, or never ended."""
    return Answer(
        refused=refused,
        run="",
        status=status,
        dual_bound=-np.inf,
        nodes=0,
        feasible=False,
        point=None,
        row_duals=None,
    )


class _Callbacks:
    """What happens while HiGHS runs.  ``error``: what a callback raised."""

    def __init__(self, request: Request, tell: Tell) -> None:
        self.error: BaseException | None = None
        self._tell = tell
        self._points = request["points"]
        self._stop_above = request["stop_above"]
        self._end = time.monotonic() + request["seconds"]
        self._period = request["period"]
        self._next = time.monotonic()
        self._stop = False

    def subscribe(self, highs: highspy.Highs) -> None:
        highs.cbMipInterrupt.subscribe(self._guarded(self._mip))
        highs.cbSimplexInterrupt.subscribe(self._guarded(self._lp))
        highs.cbIpmInterrupt.subscribe(self._guarded(self._lp))
        if self._points:
            highs.cbMipImprovingSolution.subscribe(self._guarded(self._point))

    def _guarded(
        self, action: Callable[[highspy.HighsCallbackEvent], None]
    ) -> Callable[[highspy.HighsCallbackEvent], None]:
        def call(event: highspy.HighsCallbackEvent) -> None:
            try:
                if self.error is None:
                    action(event)
            except BaseException as error:  # KeyboardInterrupt too: kept, and raised after the run
                self.error = error
            if self.error is not None:
                event.interrupt()

        return call

    def _mip(self, event: highspy.HighsCallbackEvent) -> None:
        data, now = event.data_out, time.monotonic()
        bounded = self._stop_above < data.mip_dual_bound < np.inf
        if bounded or now >= self._next:
            self._next = now + self._period
            report = Report(dual_bound=data.mip_dual_bound, objective=data.mip_primal_bound, nodes=data.mip_node_count)
            self._stop |= self._tell(report)
        if bounded or self._stop or now >= self._end:
            event.interrupt()

    def _lp(self, event: highspy.HighsCallbackEvent) -> None:
        if time.monotonic() >= self._end:
            event.interrupt()

    def _point(self, event: highspy.HighsCallbackEvent) -> None:
        # HiGHS does not look for an interrupt here; it does at the next check of its limits.
        if not self._stop:
            self._stop = self._tell(Point(point=np.array(event.data_out.mip_solution, dtype=np.float64)))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answers pickled requests until the stream ends.  Points and reports go out as they come."""

    def send(message: Any) -> bool:
        pickle.dump(message, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()
        return False

    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        send(run(request, send))


def main() -> None:
    """Serve on standard input and output; whatever else prints there goes nowhere."""
    with os.fdopen(os.dup(1), "wb") as answers:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
