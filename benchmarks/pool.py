"""Worker processes that may crash, hang or eat the memory without anybody else noticing.

pebble manages the processes: it hands out tasks, ends a process whose task overstays its limit, and replaces processes
that died.  Around it stand a memory watch, the notes that workers leave, and the translation of every way to die into
a status and a sentence.

Processes come from a fork server that has imported torch once (where the system has one), so that a replacement for a
dead worker is there in milliseconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from pathlib import Path
from typing import Any, Protocol

from pebble import ProcessExpired, ProcessPool

from verifier.benchmarks.board import IDLE, Note, errors_path, forget, read_notes
from verifier.benchmarks.job import Job
from verifier.benchmarks.record import Status
from verifier.benchmarks.watch import Watch
from verifier.benchmarks.worker import run, set_up
from verifier.errors import BatchError

VERIFY = "verifier.benchmarks.work:VerifyWork"
QUEUED_PER_WORKER = 2
"""Tasks handed to pebble: one that runs and one that is there when it ends."""
ATTEMPTS = 3
"""So often in a row may all workers die without having finished anything."""
STALLED = 120.0
"""Seconds without a sign of life of any worker, after which the pool is started anew."""
LAST_WORDS = 4000


class Answers(Protocol):
    """What runs jobs: a pool on this machine, or a cluster; a context manager."""

    def __enter__(self) -> Answers: ...

    def __exit__(self, *exception: object) -> None: ...

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Every job with what is to be recorded of it, in the order in which they finish."""
        ...

    def notes(self) -> list[Note]:
        """What the workers do at this moment."""
        ...


class WorkerPool:
    """A context manager.  work: "module:name" of what the workers do; threads: for each of them."""

    def __init__(self, workers: int, threads: int = 1, work: str = VERIFY) -> None:
        self._workers, self._threads, self._work = workers, threads, work
        self._pool: ProcessPool | None = None
        self._limits: dict[int, int] = {}

    def __enter__(self) -> WorkerPool:
        self._folder = Path(tempfile.mkdtemp(prefix="verify-bench-"))
        self._watch = Watch(self._folder, self._limits.get)
        self._watch.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_pool()
        self._watch.__exit__()
        shutil.rmtree(self._folder, ignore_errors=True)

    def notes(self) -> list[Note]:
        return [note for note in read_notes(self._folder) if note.number != IDLE]

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Every job with what is to be recorded of it, in the order in which they finish.

        Raises BatchError when workers cannot even start.
        """
        waiting, again = iter(jobs), list[Job]()
        running: dict[Future[dict[str, Any]], tuple[Job, float]] = {}
        sign_of_life = time.monotonic()
        failures = 0
        while True:
            while len(running) < QUEUED_PER_WORKER * self._workers:
                job = again.pop() if again else next(waiting, None)
                if job is None:
                    break
                self._limits[job.number] = job.memory
                running[self._schedule(job)] = job, time.monotonic()
            if not running:
                return
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            broken = False
            for future in finished:
                job, scheduled = running.pop(future)
                try:
                    found = self._outcome(job, future, scheduled)
                except BrokenExecutor:
                    # A worker died between two tasks; this one had not begun, or its end was not seen.
                    broken = True
                    again.append(job)
                    continue
                failures = 0
                del self._limits[job.number]
                yield job, found
            if finished or self._somebody_works([job for job, _ in running.values()]):
                sign_of_life = time.monotonic()
            if broken or time.monotonic() - sign_of_life > STALLED:
                failures += 1
                words = self._last_words()
                self._end_pool()
                again += [job for job, _ in running.values()]
                running.clear()
                sign_of_life = time.monotonic()
                if failures >= ATTEMPTS:
                    raise BatchError(f"the worker processes do not start; they say: {words or 'nothing'}")

    def _somebody_works(self, jobs: Iterable[Job]) -> bool:
        """Whether some worker is busy with a job whose time is not long over."""
        allowed = {job.number: job.timeout + job.grace for job in jobs}
        now = time.monotonic()
        return any(now - note.began < allowed.get(note.number, 0.0) for note in self.notes())

    def _schedule(self, job: Job) -> Future[dict[str, Any]]:
        try:
            return self._live_pool().schedule(run, args=(job,), timeout=job.timeout + job.grace)
        except RuntimeError:  # the pool broke a moment ago
            self._end_pool()
            return self._live_pool().schedule(run, args=(job,), timeout=job.timeout + job.grace)

    def _outcome(self, job: Job, future: Future[dict[str, Any]], scheduled: float) -> dict[str, Any]:
        """What became of a job.  Raises BrokenExecutor when the pool gave up on all jobs at once."""
        note = next((note for note in read_notes(self._folder) if note.number == job.number), None)
        seen = {} if note is None else note.seen
        spent = time.monotonic() - (scheduled if note is None else note.began)
        try:
            return future.result()
        except BrokenExecutor:
            raise
        except TimeoutError:
            self._forget(note)
            message = f"no answer {job.grace:g} s past the limit of {job.timeout:g} s; the worker was ended"
            return {"status": Status.HANG, "message": message, "seconds": spent, "seen": seen}
        except ProcessExpired as death:
            pid = death.pid or 0
            found = {"seconds": spent, "seen": seen, "traceback": self._last_words(pid)}
            self._forget(note)
            forget(self._folder, pid)
            if pid in self._watch.reasons:
                used = self._watch.reasons.pop(pid)
                message = f"{used / 2**30:.2f} GB used, {job.memory / 2**30:.2f} GB allowed; the worker was ended"
                return {"status": Status.MEMORY, "message": message, **found}
            return {"status": Status.CRASHED, "message": _cause(death.exitcode), **found}
        except Exception as error:  # the answer could not be sent, for example
            return {"status": Status.ERROR, "message": f"{type(error).__name__}: {error}", "seconds": spent}

    def _forget(self, note: Note | None) -> None:
        if note is not None:
            forget(self._folder, note.pid)

    def _last_words(self, pid: int | None = None) -> str:
        """The end of what a worker printed, or any worker."""
        paths = [errors_path(self._folder, pid)] if pid is not None else sorted(self._folder.glob("*.err"))
        for path in paths:
            with contextlib.suppress(OSError):
                text = path.read_bytes()[-LAST_WORDS:].decode("utf-8", "replace").strip()
                if text:
                    return text
        return ""

    def _live_pool(self) -> ProcessPool:
        if self._pool is None:
            context = self._context()
            arguments = (self._work, str(self._folder))
            self._pool = ProcessPool(self._workers, initializer=set_up, initargs=arguments, context=context)
        return self._pool

    def _context(self) -> multiprocessing.context.BaseContext:
        """Where processes come from.  The libraries in them read their number of threads when they are loaded."""
        if "forkserver" not in multiprocessing.get_all_start_methods():
            return multiprocessing.get_context("spawn")
        from multiprocessing import forkserver

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self._work.partition(":")[0]])
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(self._threads))):
            forkserver.ensure_running()
        return context

    def _end_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()
        for note in read_notes(self._folder):
            forget(self._folder, note.pid)


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _cause(exit_code: int) -> str:
    """In words, how a process ended."""
    if exit_code >= 0:
        return f"the worker ended by itself with exit code {exit_code}"
    number = -exit_code
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"the worker died of signal {number}"
    if number == signal.SIGKILL:
        return "the worker was killed (SIGKILL): by somebody, or by the system because memory ran out"
    return f"the worker died of {name} ({signal.strsignal(number)})"
