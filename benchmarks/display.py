"""How a batch goes, on stderr: one live picture on a terminal, a line per finished instance elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from verifier.benchmarks.batch import Plan
from verifier.benchmarks.board import Note
from verifier.benchmarks.instances import short_name
from verifier.benchmarks.record import FAILED, Record, Status

COLOURS = {Status.SAT: "magenta", Status.UNSAT: "green", Status.TIMEOUT: "yellow", Status.UNKNOWN: "yellow"}
LEAST_ROWS = 4


class BatchDisplay:
    """A context manager; the watcher of a batch."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._counts: Counter[Status] = Counter()
        self._plan = Plan((), ())
        self._done = 0
        self._began = time.monotonic()
        self._notes: Callable[[], list[Note]] = list
        self._live: Live | None = None

    def __enter__(self) -> BatchDisplay:
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, transient=True, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, plan: Plan, notes: Callable[[], list[Note]]) -> None:
        self._plan, self._notes = plan, notes
        self._counts = Counter(record.status for record in plan.kept)
        self._began = time.monotonic()

    def finished(self, record: Record) -> None:
        self._done += 1
        self._counts[record.status] += 1
        if self._live is None:
            print(self._line(record).plain, file=sys.stderr, flush=True)
        elif record.failed:
            self._console.print(self._line(record))

    def _line(self, record: Record) -> Text:
        total = len(self._plan.jobs) + len(self._plan.kept)
        number = f"{self._done + len(self._plan.kept)}/{total}"
        name = f"{short_name(record.onnx)} {short_name(record.vnnlib)}"
        text = Text(f"{number:>9}  ")
        text.append(f"{record.status:<13}", colour(record.status))
        text.append(f" {record.seconds:8.2f} s  {name}")
        reason = record.output or (record.message if record.failed else "")
        return text.append(f"  {reason}", "dim") if reason else text

    def __rich__(self) -> Group:
        total = len(self._plan.jobs) + len(self._plan.kept)
        done = self._done + len(self._plan.kept)
        notes = self._notes()
        left = self._seconds_left(len(notes))
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=max(total, 1), completed=done, width=30),
            Text(f"{done} of {total}", "bold"),
            counts_text(self._counts),
            Text("" if left is None or done == total else f"about {duration(left)} left", "dim"),
        )
        room = max(LEAST_ROWS, self._console.size.height - 4)
        workers = Table.grid(padding=(0, 2))
        for note in notes[:room]:
            workers.add_row(*_note_cells(note))
        more = [Text(f"and {len(notes) - room} more workers", "dim")] if len(notes) > room else []
        return Group(head, workers, *more)

    def _seconds_left(self, running: int) -> float | None:
        """From the pace so far; what runs alone at the end is given another average instance's time.

        None before the first is done.
        """
        if not self._done:
            return None
        pace = (time.monotonic() - self._began) / self._done
        still = len(self._plan.jobs) - self._done
        return pace * max(still, min(still, 1) * max(running, 1))


def _note_cells(note: Note) -> tuple[Text, ...]:
    seconds = max(0.0, time.monotonic() - note.began) if note.began else 0.0
    bounds = "" if note.lower is None else f"margin >= {note.lower:.4g}"
    bounds += "" if note.upper is None else f"  <= {note.upper:.4g}"
    still = "" if note.open is None else f"{note.open:,} {note.unit} open"
    return (
        Text(f"{seconds:6.0f} s", "dim"),
        Text(note.name, overflow="ellipsis", no_wrap=True),
        Text(note.stage, "bold"),
        Text(bounds),
        Text(still, "dim"),
    )


def counts_text(counts: Counter[Status]) -> Text:
    """ "12 sat  30 unsat  2 timeout", coloured; statuses that did not occur are left out, sat and unsat never."""
    text = Text()
    for status in Status:
        if counts[status] or status in (Status.SAT, Status.UNSAT):
            text.append(f"{counts[status]} {status}  ", colour(status))
    return text


def colour(status: Status) -> str:
    return "bold red" if status in FAILED else COLOURS[status]


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
