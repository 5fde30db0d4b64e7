"""A batch on Dask: everything is there once, also when a worker is killed in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from support.batch_work import names_of, verdict_of, write_list
from verifier.benchmarks.batch import BatchOptions, plan, run_batch
from verifier.benchmarks.board import Note
from verifier.benchmarks.instances import read_instances
from verifier.benchmarks.journal import Journal, read_records
from verifier.benchmarks.record import Record

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'nn-verifier[cluster]'")

from verifier.benchmarks.cluster import DaskAnswers
from verifier.errors import OptionError

# Dask closes connections from threads of its own when a worker was killed under it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("batch"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

QUICK = "support.batch_work:QuickWork"


class KillsAWorker:
    """A watcher that kills a process of the cluster once some instances are done."""

    def __init__(self, answers: DaskAnswers, after: int) -> None:
        self.answers, self.after, self.done, self.killed = answers, after, 0, 0

    def start(self, todo: object, notes: object) -> None: ...

    def finished(self, record: Record) -> None:
        self.done += 1
        if self.done == self.after:
            pids = self.answers._client.run(os.getpid)
            self.killed = min(pids.values())
            os.kill(self.killed, signal.SIGKILL)


def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    names = [*names_of(50), "poison-segfault.vnnlib"]
    instances = read_instances(write_list(tmp_path / "s" / "instances.csv", names))
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal, DaskAnswers("local:2", 1, QUICK) as answers:
        watcher = KillsAWorker(answers, after=10)
        run_batch(plan(instances, {}, BatchOptions(2**30, 5.0)), journal, answers, watcher, tmp_path)
    assert watcher.killed
    records = list(read_records(path))
    assert sorted(record.vnnlib for record in records) == sorted(names), "all there, none twice"
    for record in records:
        poisoned = "poison" in record.vnnlib
        assert str(record.status) == ("crashed" if poisoned else verdict_of(record.vnnlib))
        assert record.machine["host"]


def _age(note: Note) -> float:
    return time.monotonic() - note.began


def test_what_workers_do_is_heard(tmp_path: Path) -> None:
    source = write_list(tmp_path / "s" / "instances.csv", ["poison-sleep.vnnlib"], seconds=4)
    heard: list[str] = []
    with Journal(tmp_path / "j.jsonl") as journal, DaskAnswers("local:1", 1, QUICK) as answers:
        over = threading.Event()

        def listen() -> None:
            while not over.wait(0.2):
                heard.extend(f"{note.name} {note.stage} {0 <= _age(note) < 60}" for note in answers.notes())

        listener = threading.Thread(target=listen)
        listener.start()
        todo = plan(read_instances(source), {}, BatchOptions(2**30, 1.0))
        run_batch(todo, journal, answers, KillsAWorker(answers, after=-1), tmp_path)
        over.set()
        listener.join()
        assert [str(record.status) for record in journal.records.values()] == ["hang"]
    assert "m poison-sleep thinking True" in heard


@pytest.mark.parametrize("target", ["local:0", "local", "tcp://127.0.0.1:1"])
def test_no_such_scheduler(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.benchmarks.cluster.CONNECT_SECONDS", "1 s")
    with pytest.raises(OptionError, match="local:4"), DaskAnswers(target, 1, QUICK):
        pass
