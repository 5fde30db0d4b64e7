"""Where the workers of a pool stand: one small file per worker, in a folder that the pool reads.

Files, not a queue: a worker that is killed while it holds a queue's lock takes all others with it.  A note is replaced
in one step, so a reader sees the old one or the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from verifier.progress import Event

SECONDS_BETWEEN = 0.25
IDLE = -1


@dataclass(frozen=True)
class Note:
    """number, name: of the instance at hand, ``IDLE`` and "" between two.  began: on ``time.monotonic()``.

    The rest is the last progress event; of bounds the last that a stage told.
    """

    pid: int
    number: int = IDLE
    name: str = ""
    began: float = 0.0
    stage: str = ""
    lower: float | None = None
    upper: float | None = None
    open: int | None = None
    unit: str = ""

    @property
    def seen(self) -> dict[str, Any]:
        """The event, as a record keeps it."""
        kept = ("stage", "lower", "upper", "open", "unit")
        return {key: value for key, value in asdict(self).items() if key in kept and value not in (None, "")}


class Pen:
    """A worker's end: writes its own note, and on progress events no more often than makes sense."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / str(os.getpid())
        self._note = Note(os.getpid())
        self._next = 0.0
        self._write()

    def begin(self, number: int, name: str) -> None:
        self._note = Note(os.getpid(), number, name, time.monotonic(), "reading the files")
        self._next = self._note.began + SECONDS_BETWEEN
        self._write()

    def finish(self) -> None:
        self._note = Note(os.getpid())
        self._write()

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        stage_ended = event.stage != self._note.stage
        known = self._note
        self._note = replace(
            known,
            stage=event.stage,
            lower=known.lower if event.lower is None else event.lower,
            upper=known.upper if event.upper is None else event.upper,
            open=event.open,
            unit=event.unit,
        )
        if stage_ended or now >= self._next:
            self._next = now + SECONDS_BETWEEN
            self._write()

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk must not cost an answer
            part.write_text(json.dumps(asdict(self._note)))
            part.replace(self._path)


def read_notes(folder: Path) -> list[Note]:
    """The notes of all workers that left one, by process id."""
    notes = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name.isdecimal():
                with contextlib.suppress(OSError, ValueError, TypeError):
                    notes.append(Note(**json.loads(path.read_text())))
    return sorted(notes, key=lambda note: note.pid)


def errors_path(folder: Path, pid: int) -> Path:
    """Where a worker's output goes."""
    return folder / f"{pid}.err"


def forget(folder: Path, pid: int) -> None:
    for path in (folder / str(pid), errors_path(folder, pid)):
        path.unlink(missing_ok=True)
