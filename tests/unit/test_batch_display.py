"""What is shown while a batch runs, on a terminal and elsewhere."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from verifier.benchmarks.batch import Plan
from verifier.benchmarks.board import Note
from verifier.benchmarks.display import BatchDisplay, duration
from verifier.benchmarks.job import Job
from verifier.benchmarks.record import Record, Status


def job(number: int) -> Job:
    return Job(number, "c", "onnx/m.onnx", f"p{number}.vnnlib", "", "", 60.0, 10.0, 2**30)


def record(number: int, status: Status, message: str = "") -> Record:
    return Record("c", "onnx/m.onnx", f"p{number}.vnnlib", 60.0, status, 1.25, message)


def shown(display: BatchDisplay, console: Console) -> str:
    with console.capture() as capture:
        console.print(display)
    return capture.get()


def test_a_terminal_sees_counts_workers_bounds_and_the_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=30, color_system=None)
    display = BatchDisplay(console)
    notes = [Note(11, 2, "m p2", time.monotonic() - 7, "milp", -0.5, 0.25, 1200, "binaries"), Note(12, 3, "m p3")]
    display.start(Plan(tuple(map(job, range(10))), (record(90, Status.SAT),)), lambda: notes)
    assert "left" not in shown(display, console)
    for number, status in enumerate((Status.UNSAT, Status.SAT, Status.TIMEOUT)):
        display.finished(record(number, status))
    with display:
        display.finished(record(3, Status.CRASHED, "SIGSEGV"))
    text = shown(display, console)
    for words in ("5 of 11", "2 sat", "1 unsat", "1 timeout", "1 crashed", "about 0 s left"):
        assert words in text
    for words in ("7 s", "m p2", "milp", "margin >= -0.5", "<= 0.25", "1,200 binaries open", "m p3"):
        assert words in text


def test_more_workers_than_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=10, color_system=None)
    display = BatchDisplay(console)
    display.start(Plan((job(0),), ()), lambda: [Note(i, i, f"m p{i}") for i in range(40)])
    text = shown(display, console)
    assert "and 34 more workers" in text
    assert len(text.splitlines()) <= 10


def test_elsewhere_a_line_for_every_instance(capsys: pytest.CaptureFixture[str]) -> None:
    with BatchDisplay(Console(file=io.StringIO())) as display:
        display.start(Plan((job(0), job(1)), (record(9, Status.UNSAT),)), list)
        display.finished(record(0, Status.UNSAT))
        display.finished(record(1, Status.MEMORY, "2 GB used"))
    first, second = capsys.readouterr().err.splitlines()
    assert first.split() == ["2/3", "unsat", "1.25", "s", "m", "p0"]
    assert second.split() == ["3/3", "out-of-memory", "1.25", "s", "m", "p1", "2", "GB", "used"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (5400, "1 h 30 min"), (86400, "24 h 00 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
