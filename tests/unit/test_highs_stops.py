"""The ways a minimisation ends early, in this process and in one of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from support.programs import market_split, milp
from verifier.deadline import Deadline
from verifier.solve import highs
from verifier.solve.highs import minimise
from verifier.solve.highs_run import Report
from verifier.solve.outcome import Status
from verifier.solve.process import HighsProcess

HARD = market_split()


@pytest.fixture(params=["here", "process"])
def process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[HighsProcess | None]:
    if request.param == "here":
        yield None
        return
    monkeypatch.setattr(highs, "SMALL", -1)  # even for the small programs of these tests
    with HighsProcess() as process:
        yield process


def test_the_deadline(process: HighsProcess | None) -> None:
    begun = time.monotonic()
    outcome = minimise(HARD, Deadline.after(1.0), process=process)
    assert time.monotonic() - begun < 2.0
    assert outcome.status is Status.LIMIT
    assert outcome.point is not None
    assert outcome.dual_bound <= outcome.objective
    assert outcome.objective == pytest.approx(HARD.objective(outcome.point))
    assert HARD.violation(outcome.point) <= 1e-5


def test_the_target(process: HighsProcess | None) -> None:
    outcome = minimise(HARD, Deadline.after(20), process=process, stop_below=300.0)
    assert outcome.status is Status.TARGET
    assert outcome.objective <= 300.0
    assert outcome.dual_bound <= outcome.objective


def test_the_dual_bound(process: HighsProcess | None) -> None:
    """Known at the root to be at least 0, and hard to raise from there."""
    shifted = HARD.costing(HARD.cost, 100.0)
    outcome = minimise(shifted, Deadline.after(20), process=process, stop_above=99.5)
    assert outcome.status is Status.BOUND
    assert outcome.dual_bound > 99.5
    assert outcome.seconds < 15


def test_accepting_a_point(process: HighsProcess | None) -> None:
    asked: list[float] = []

    def accept(point: np.ndarray) -> bool:
        asked.append(HARD.objective(point))
        return len(asked) == 2

    outcome = minimise(HARD, Deadline.after(20), process=process, accept=accept)
    assert outcome.status is Status.TARGET
    assert len(asked) == 2
    assert outcome.objective == pytest.approx(asked[-1])
    assert asked[1] < asked[0]


def test_progress(process: HighsProcess | None) -> None:
    reports: list[Report] = []
    minimise(HARD, Deadline.after(1.0), process=process, on_progress=reports.append)
    assert 2 <= len(reports) <= 8
    assert all(report["dual_bound"] <= report["objective"] for report in reports)


def test_the_start_is_the_first_point(process: HighsProcess | None) -> None:
    best = minimise(HARD, Deadline.after(2.0), process=process)
    assert best.point is not None
    first: list[float] = []

    def accept(point: np.ndarray) -> bool:
        first.append(HARD.objective(point))
        return True

    outcome = minimise(HARD, Deadline.after(5.0), process=process, start=best.point, accept=accept)
    assert outcome.status is Status.TARGET
    assert first[0] == pytest.approx(best.objective, abs=1e-5)


def test_an_exception_of_the_caller_comes_out(process: HighsProcess | None) -> None:
    def accept(point: np.ndarray) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minimise(HARD, Deadline.after(20), process=process, accept=accept)


def test_ctrl_c_ends_a_run(process: HighsProcess | None) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        minimise(HARD, Deadline.after(20), process=process)
    timer.join()
    assert time.monotonic() - begun < 5


def test_a_process_serves_many_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highs, "SMALL", -1)
    with HighsProcess() as process:
        for value in (3.0, 4.0):
            model = milp([1.0], [0.0], [9.0], [[2.0]], [value - 0.5], [np.inf])
            assert minimise(model, Deadline.after(20), process=process).objective == pytest.approx(2.0)
        # Ended for its time, it starts again for the next one.
        assert minimise(HARD, Deadline.after(0.3), process=process).status is Status.LIMIT
        assert minimise(model, Deadline.after(20), process=process).status is Status.OPTIMAL


def test_a_process_that_dies_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highs, "SMALL", -1)
    with HighsProcess() as process:
        model = milp([1.0], [0.0], [9.0])
        assert minimise(model, Deadline.after(20), process=process).status is Status.OPTIMAL
        assert process.pid is not None
        timer = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        outcome = minimise(HARD, Deadline.after(20), process=process)
        timer.join()
        assert outcome.status is Status.FAILED
        assert "died" in outcome.detail
        assert outcome.dual_bound == -np.inf
        assert minimise(model, Deadline.after(20), process=process).status is Status.OPTIMAL


def test_a_run_that_hears_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presolve looks at no clock; a process that is stopped altogether stands in for it."""
    monkeypatch.setattr(highs, "SMALL", -1)
    with HighsProcess() as process:
        model = milp([1.0], [0.0], [9.0])
        minimise(model, Deadline.after(20), process=process)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        outcome = minimise(model, Deadline.after(0.3), process=process)
        assert time.monotonic() - begun < 1.3
        assert outcome.status is Status.LIMIT
        assert outcome.dual_bound == -np.inf


def test_linear_programs_obey_the_deadline() -> None:
    relaxed = market_split(400, 200).relaxed()
    begun = time.monotonic()
    outcome = minimise(relaxed, Deadline.after(0.05))
    assert time.monotonic() - begun < 1.0
    assert outcome.status in (Status.LIMIT, Status.OPTIMAL)


def test_a_process_that_needs_too_much_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highs, "SMALL", -1)
    with HighsProcess(most_bytes=2**20) as process:
        outcome = minimise(HARD, Deadline.after(30), process=process)
        assert outcome.status is Status.FAILED
        assert "GB" in outcome.detail
    with HighsProcess(most_bytes=2**34) as process:
        assert minimise(HARD, Deadline.after(0.8), process=process).status is Status.LIMIT
