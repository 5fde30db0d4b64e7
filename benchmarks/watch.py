"""Keeps an eye on the memory of workers, and on the processes that workers leave behind.

Resident memory of the worker and of the processes below it counts, looked up ten times a second.  A limit of the system
on the address space would not do: torch and onnxruntime reserve far more than they use, so a limit that is never in the
way would not protect anything.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from verifier.benchmarks.board import IDLE, read_notes

SECONDS_BETWEEN = 0.1
LOOKS_PER_FAMILY_SEARCH = 5


class Watch:
    """A context manager; ends workers that use more memory than their job allows.

    limit_of: bytes for a job's number, None when it is not known.  ``reasons`` says of every process id it ended how
    many bytes it had.
    """

    def __init__(self, folder: Path, limit_of: Callable[[int], int | None]) -> None:
        self.reasons: dict[int, int] = {}
        self._folder, self._limit_of = folder, limit_of
        self._workers: dict[int, psutil.Process] = {}
        self._below: dict[int, list[psutil.Process]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True, name="memory-watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        for family in self._below.values():
            _kill(family)

    def _look_on(self) -> None:
        looks = 0
        while not self._over.wait(SECONDS_BETWEEN):
            notes = {note.pid: note for note in read_notes(self._folder)}
            for pid in notes.keys() - self._workers.keys():
                with contextlib.suppress(psutil.Error):
                    self._workers[pid] = psutil.Process(pid)
            if looks % LOOKS_PER_FAMILY_SEARCH == 0:
                self._find_families()
            looks += 1
            for pid, worker in list(self._workers.items()):
                if not worker.is_running():
                    self._bury(pid)
                    continue
                note = notes.get(pid)
                limit = self._limit_of(note.number) if note is not None and note.number != IDLE else None
                if limit is not None:
                    self._weigh(worker, limit)

    def _weigh(self, worker: psutil.Process, limit: int) -> None:
        family = [worker, *self._below.get(worker.pid, ())]
        used = 0
        for process in family:
            with contextlib.suppress(psutil.Error):
                used += process.memory_info().rss
        if used > limit:
            self.reasons[worker.pid] = used
            _kill(family)

    def _bury(self, pid: int) -> None:
        """A worker is gone: what it started must not go on computing for nobody."""
        _kill(self._below.pop(pid, []))
        del self._workers[pid]

    def _find_families(self) -> None:
        """The processes below every worker; one pass over the process table for all of them."""
        children: dict[int, list[psutil.Process]] = {}
        for process in psutil.process_iter(["ppid"]):
            children.setdefault(process.info["ppid"], []).append(process)
        for pid, worker in self._workers.items():
            found, open_ones = [], list(children.get(pid, ()))
            while open_ones:
                process = open_ones.pop()
                found.append(process)
                open_ones += children.get(process.pid, ())
            # Of a worker that just died they have another parent by now: those known before stay known.
            if worker.is_running():
                self._below[pid] = found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()  # looks at the start time first: a number that was given to another process is safe
