"""The worker process: what happens in it before the first instance and around every one."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verifier.benchmarks.board import Pen, errors_path
from verifier.benchmarks.job import Job
from verifier.progress import Progress

Work = Callable[[Job, Progress], dict[str, Any]]
"""What a worker does with a job: the answer's part of a record, as plain data."""

PR_SET_PDEATHSIG = 1


class Desk:
    """What a worker keeps from one instance to the next: its work (and the models in it), and its note."""

    def __init__(self, work: Work, pen: Pen) -> None:
        self.work, self.pen = work, pen


# The one thing in this project that outlives calls: the pool hands tasks to plain functions, and what a worker
# keeps between two of them has to lie in its module.  It is set once per process.
_desk: Desk | None = None


def set_up(work: str, folder: str) -> None:
    """Run once in every worker process.  work: "module:name" of what makes the work; folder: the notes'."""
    global _desk
    _end_with_parent()
    _be_killed_first()
    _collect_output(Path(folder))
    pen = Pen(Path(folder))
    _desk = Desk(pkgutil.resolve_name(work)(), pen)


def run(job: Job) -> dict[str, Any]:
    """Do the work of one job."""
    assert _desk is not None
    _forget_output()
    _desk.pen.begin(job.number, job.name)
    try:
        return _desk.work(job, _desk.pen)
    finally:
        _desk.pen.finish()


def _end_with_parent() -> None:
    """Nobody waits for this worker when the run was killed: it shall not go on computing."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True, name="parent-watch").start()


def _be_killed_first() -> None:
    """When the system runs out of memory, it shall end a worker and not the run."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _collect_output(folder: Path) -> None:
    """What the worker and the libraries in it print goes to a file: a crash leaves its traceback there."""
    path = errors_path(folder, os.getpid())
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    faulthandler.enable(file=2, all_threads=False)


def _forget_output() -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(2, 0)
