"""The same batch on a Dask cluster: instances go to Dask workers, and there into a pool of one killable process.

    connect("local:4")          four Dask workers on this machine
    connect("tcp://host:8786")  a scheduler that runs already
    connect("scheduler.json")   the same, by the file it wrote

A Dask worker that dies has its instances given to others; an instance in whose company workers died several times is
recorded as crashed.  Every instance has one future, and each future is recorded once.

Models and properties must lie at the same paths on all machines.  The process that a Dask worker keeps for instances
is a child of it, which daemonic workers may not have: external workers are to be started with
``DASK_DISTRIBUTED__WORKER__DAEMON=False`` or ``--no-nanny``.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import re
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from verifier.benchmarks.board import Note
from verifier.benchmarks.job import Job
from verifier.benchmarks.pool import VERIFY, Answers, WorkerPool
from verifier.benchmarks.record import Status
from verifier.errors import OptionError

try:
    import dask
    from distributed import Client, KilledWorker, LocalCluster, Worker, WorkerPlugin, as_completed, get_worker
except ModuleNotFoundError:
    raise OptionError("running on a cluster needs Dask; install it with: pip install 'nn-verifier[cluster]'") from None

PLUGIN = "verify-bench"
CONNECT_SECONDS = "20 s"
SECONDS_BETWEEN_NOTES = 1.0


def connect(target: str, threads: int = 1, work: str = VERIFY) -> Answers:
    """target: as above.  threads: per instance.  Raises OptionError for a scheduler that does not answer."""
    return DaskAnswers(target, threads, work)


class DaskAnswers:
    """A context manager around a client."""

    def __init__(self, target: str, threads: int, work: str) -> None:
        self._target, self._threads, self._work = target, threads, work
        self._notes: dict[str, tuple[float, list[Note]]] = {}

    def __enter__(self) -> DaskAnswers:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it is chatty about workers that die
        with contextlib.ExitStack() as stack:
            local = re.fullmatch(r"local:([1-9]\d*)", self._target)
            if local:
                stack.enter_context(dask.config.set({"distributed.worker.daemon": False}))
                cluster = LocalCluster(n_workers=int(local[1]), threads_per_worker=1, dashboard_address=None)
                address: Any = stack.enter_context(cluster)
            elif self._target.startswith("local"):
                raise OptionError(f"--cluster {self._target!r} is not of the form local:N; write for example local:4")
            else:
                address = self._target
            self._client: Any = stack.enter_context(self._connected(address))
            self._client.register_plugin(NodePlugin(self._threads, self._work), name=PLUGIN)
            self._client.subscribe_topic(PLUGIN, self._hear)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _connected(self, address: Any) -> Any:
        with dask.config.set({"distributed.comm.timeouts.connect": CONNECT_SECONDS}):
            try:
                if isinstance(address, str) and Path(address).is_file():
                    return Client(scheduler_file=address, timeout=CONNECT_SECONDS)
                return Client(address, timeout=CONNECT_SECONDS)
            except (OSError, ValueError, TimeoutError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise OptionError(
                    f"no Dask scheduler answers at {self._target} ({reason}); start one with `dask scheduler`, or use "
                    "--cluster local:4"
                ) from None

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Every job with what is to be recorded of it, in the order in which they finish."""
        name = uuid.uuid4().hex[:8]
        waiting = {
            self._client.submit(on_node, job, key=f"verify-{name}-{job.number}", pure=False): job for job in jobs
        }
        for future in as_completed(list(waiting)):
            job = waiting.pop(future)
            yield job, self._outcome(future)
            future.release()

    def _outcome(self, future: Any) -> dict[str, Any]:
        try:
            return future.result()
        except KilledWorker:
            return {"status": Status.CRASHED, "message": "the Dask workers that ran it died, time and again"}
        except Exception as error:
            return {"status": Status.ERROR, "message": f"{type(error).__name__}: {' '.join(str(error).split())}"}

    def notes(self) -> list[Note]:
        """What the workers said last, those left out that have been silent for a while."""
        now = time.monotonic()
        return [
            note
            for stamp, notes in list(self._notes.values())
            if now - stamp < 5 * SECONDS_BETWEEN_NOTES
            for note in notes
        ]

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        _, said = event
        now = time.monotonic()
        # Clocks differ from machine to machine: ages travel, not moments.
        notes = [Note(**values) for values in said["notes"]]
        self._notes[said["worker"]] = now, [replace(note, began=now - note.began) for note in notes]


class NodePlugin(WorkerPlugin):
    """What a Dask worker keeps: a pool of one process for each of its threads that runs instances."""

    def __init__(self, threads: int, work: str) -> None:
        self._threads, self._work = threads, work

    def setup(self, worker: Worker) -> None:
        self._idle: list[WorkerPool] = []
        self._all: list[WorkerPool] = []
        self._over = threading.Event()
        self._reporter = threading.Thread(target=self._report, args=(worker,), daemon=True, name="verify-notes")
        self._reporter.start()

    def teardown(self, worker: Worker) -> None:
        self._over.set()
        while self._all:
            self._all.pop().__exit__()

    @contextlib.contextmanager
    def pool(self) -> Iterator[WorkerPool]:
        """A pool for the caller alone; list operations are atomic, so no lock is needed."""
        try:
            pool = self._idle.pop()
        except IndexError:
            pool = WorkerPool(1, self._threads, self._work).__enter__()
            self._all.append(pool)
        yield pool
        self._idle.append(pool)

    def _report(self, worker: Worker) -> None:
        while not self._over.wait(SECONDS_BETWEEN_NOTES):
            now = time.monotonic()
            notes = [asdict(replace(n, began=now - n.began)) for pool in list(self._all) for n in pool.notes()]
            with contextlib.suppress(Exception):  # the connection may be closing
                worker.log_event(PLUGIN, {"worker": worker.address, "notes": notes})


def on_node(job: Job) -> dict[str, Any]:
    """Runs in a thread of a Dask worker: the job in a process of its own."""
    from verifier.benchmarks.machine import machine, versions

    if multiprocessing.current_process().daemon:
        raise RuntimeError(
            "this Dask worker is daemonic and may not start processes; start workers with "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment, or with --no-nanny"
        )
    plugin: Any = get_worker().plugins[PLUGIN]
    with plugin.pool() as pool:
        ((_, found),) = pool.run([job])
    return {"machine": machine(), "versions": versions(), **found}
