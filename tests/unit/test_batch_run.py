"""Batches in real worker processes: what kills one instance costs no other, and nothing is run twice or lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from support.batch_work import POISONED_VERIFY, QUICK, expected, names_of, verdict_of, write_list
from verifier import verify
from verifier.benchmarks.batch import BatchOptions, parse_statuses, plan, run_batch, write_competition_files
from verifier.benchmarks.display import BatchDisplay
from verifier.benchmarks.instances import Instance, read_instances
from verifier.benchmarks.journal import Journal, read_journal
from verifier.benchmarks.pool import WorkerPool
from verifier.benchmarks.record import Record, Status
from verifier.errors import BatchError, OptionError

DIGITS = Path(__file__).resolve().parents[2] / "benchmarks" / "digits"
TESTS = Path(__file__).resolve().parents[1]
OPTIONS = BatchOptions(memory=2**30, grace=0.5)

pytestmark = pytest.mark.xdist_group("batch")


def run(
    source: Path, path: Path, work: str = QUICK, options: BatchOptions = OPTIONS, workers: int = 2
) -> dict[str, Record]:
    """Run a list; the records by the property's name."""
    instances = read_instances(source)
    with Journal(path) as journal:
        todo = plan(instances, journal.records, options)
        with WorkerPool(workers, work=work) as pool:
            run_batch(todo, journal, pool, BatchDisplay(), path.parent / "counterexamples")
    return {record.vnnlib: record for record in read_journal(path).values()}


def test_every_way_to_fail_costs_one_instance(tmp_path: Path) -> None:
    """The real verifier on 60 instances, five of which are poisoned in five ways."""
    good = _copies(tmp_path, 56)
    blocked = next(i for i in good if _truth(i) == "sat")
    rows = [f"{i.onnx},{i.vnnlib},30" for i in good]
    poisons = {"segfault": Status.CRASHED, "memory-error": Status.MEMORY, "loop": Status.HANG}
    for poison in poisons:
        (tmp_path / f"poison-{poison}.vnnlib").write_bytes((tmp_path / good[0].vnnlib).read_bytes())
        rows.insert(7, f"mlp.onnx,poison-{poison}.vnnlib,{1 if poison == 'loop' else 30}")
    (tmp_path / "corrupt.onnx").write_bytes(b"\x08\x08corrupt")
    rows.insert(20, f"corrupt.onnx,{good[0].vnnlib},30")
    source = tmp_path / "instances.csv"
    source.write_text("\n".join(rows))
    # A counterexample that cannot be written: a folder stands in its place.
    taken = tmp_path / "counterexamples" / tmp_path.name / f"{blocked.onnx[:-5]}_{blocked.vnnlib[:-7]}.counterexample"
    taken.mkdir(parents=True)

    journal = tmp_path / "out.jsonl"
    run(source, journal, POISONED_VERIFY)
    records = read_journal(journal)
    assert len(records) == 60
    assert len(journal.read_text().splitlines()) == 60
    by_pair = {(record.onnx, record.vnnlib): record for record in records.values()}
    truths = {(i.onnx, i.vnnlib): _truth(i) for i in good}
    assert {pair: str(by_pair[pair].status) for pair in truths} == truths
    for poison, status in poisons.items():
        record = by_pair["mlp.onnx", f"poison-{poison}.vnnlib"]
        assert (record.status, bool(record.message)) == (status, True)
    assert "SIGSEGV" in by_pair["mlp.onnx", "poison-segfault.vnnlib"].message
    assert "swallow" in by_pair["mlp.onnx", "poison-segfault.vnnlib"].traceback, "where it crashed"
    corrupt = by_pair["corrupt.onnx", good[0].vnnlib]
    assert corrupt.status is Status.ERROR
    assert "corrupt.onnx" in corrupt.message
    assert "Is a directory" in by_pair[blocked.onnx, blocked.vnnlib].output
    assert not any(record.output for record in records.values() if record.vnnlib != blocked.vnnlib)
    assert all(set(record.files) == {"onnx", "vnnlib"} and record.machine for record in records.values())


def _copies(folder: Path, count: int) -> list[Instance]:
    """So many instances of the digits suite, under other names where it has not enough."""
    found = []
    for number, instance in enumerate((read_instances(DIGITS / "instances.csv") * 2)[:count]):
        onnx, name = Path(instance.onnx).name, f"{number:02}_{Path(instance.vnnlib).name}"
        (folder / onnx).write_bytes(instance.onnx_path.read_bytes())
        (folder / name).write_bytes(instance.vnnlib_path.read_bytes())
        found.append(replace(instance, onnx=onnx, vnnlib=name, folder=folder))
    return found


_TRUTHS: dict[bytes, str] = {}


def _truth(instance: Instance) -> str:
    """The verdict of a call in this process."""
    content = instance.onnx_path.read_bytes() + instance.vnnlib_path.read_bytes()
    if content not in _TRUTHS:
        _TRUTHS[content] = str(verify(instance.onnx_path, instance.vnnlib_path).verdict)
    return _TRUTHS[content]


def test_memory_beyond_the_limit(tmp_path: Path) -> None:
    names = ["poison-eater.vnnlib", *names_of(6)]
    options = replace(OPTIONS, memory=400 * 2**20)
    records = run(write_list(tmp_path / "s" / "instances.csv", names), tmp_path / "j.jsonl", options=options)
    assert records[names[0]].status is Status.MEMORY
    assert "0.39 GB allowed" in records[names[0]].message
    assert records[names[0]].seen == {"stage": "thinking", "lower": -1.0, "open": 3, "unit": "regions"}
    assert {name: records[name].status for name in names[1:]} == {name: verdict_of(name) for name in names[1:]}


def test_a_worker_that_ends_by_itself_and_one_that_is_killed(tmp_path: Path) -> None:
    names = ["poison-exit.vnnlib", "poison-sleep.vnnlib", *names_of(6)]
    source = write_list(tmp_path / "s" / "instances.csv", names, seconds=50)

    def kill_the_sleeper() -> None:
        for _ in range(600):
            time.sleep(0.05)
            for note in pools[0].notes() if pools else []:
                if "sleep" in note.name:
                    os.kill(note.pid, signal.SIGKILL)
                    return

    pools: list[WorkerPool] = []
    instances = read_instances(source)
    with Journal(tmp_path / "j.jsonl") as journal, WorkerPool(2, work=QUICK) as pool:
        pools.append(pool)
        killer = threading.Thread(target=kill_the_sleeper)
        killer.start()
        run_batch(plan(instances, {}, OPTIONS), journal, pool, BatchDisplay(), tmp_path)
        killer.join()
        records = {record.vnnlib: record for record in journal.records.values()}
    assert records[names[0]].status is Status.CRASHED
    assert "exit code 7" in records[names[0]].message
    assert records[names[1]].status is Status.CRASHED
    assert "SIGKILL" in records[names[1]].message
    assert {name: records[name].status for name in names[2:]} == {name: verdict_of(name) for name in names[2:]}


def test_what_a_dead_worker_started_is_ended(tmp_path: Path) -> None:
    names = ["poison-child.vnnlib", "poison-quiet-exit.vnnlib", *names_of(3)]
    source = write_list(tmp_path / "s" / "instances.csv", names, seconds=1)
    records = run(source, tmp_path / "j.jsonl", options=replace(OPTIONS, grace=1.0))
    assert records[names[0]].status is Status.HANG
    assert records[names[1]].status is Status.HANG, "it took its leave as if all were done"
    child = int((source.parent / "m.onnx").read_text())
    assert not _alive(child)


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_an_exception_that_nobody_foresaw_is_recorded_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "mlp.onnx").write_bytes((DIGITS / "onnx/mlp.onnx").read_bytes())
    (tmp_path / "poison-defect.vnnlib").touch()
    (tmp_path / "instances.csv").write_text("mlp.onnx,poison-defect.vnnlib,30")
    record = run(tmp_path / "instances.csv", tmp_path / "j.jsonl", POISONED_VERIFY)["poison-defect.vnnlib"]
    assert (record.status, record.message) == (Status.ERROR, "ZeroDivisionError: a defect of ours")
    assert "swallow" in record.traceback


def test_workers_that_cannot_start_end_the_run_with_their_last_words(tmp_path: Path) -> None:
    source = write_list(tmp_path / "s" / "instances.csv", names_of(3))
    with pytest.raises(BatchError, match=r"do not start.*no_such_module"):
        run(source, tmp_path / "j.jsonl", "no_such_module:Work")


def test_nothing_is_run_twice(tmp_path: Path) -> None:
    source = write_list(tmp_path / "s" / "instances.csv", [*names_of(8), "poison-exit.vnnlib"])
    journal = tmp_path / "j.jsonl"
    first = run(source, journal)
    assert {name: str(record.status) for name, record in first.items() if "poison" not in name} == {
        name: verdict_of(name) for name in names_of(8)
    }
    before = journal.read_text()
    run(source, journal)
    assert journal.read_text() == before
    again = run(source, journal, options=replace(OPTIONS, retry=parse_statuses("failed")))
    assert journal.read_text().startswith(before)
    assert len(journal.read_text().splitlines()) == 10
    assert again["poison-exit.vnnlib"].status is Status.CRASHED


def test_instances_whose_files_changed_are_run_again(tmp_path: Path) -> None:
    source = write_list(tmp_path / "s" / "instances.csv", names_of(4))
    run(source, tmp_path / "j.jsonl")
    records = read_journal(tmp_path / "j.jsonl")
    instances = read_instances(source)
    assert plan(instances, records, OPTIONS).jobs == ()
    (source.parent / "p002.vnnlib").write_text("(assert false)")
    todo = plan(instances, records, OPTIONS)
    assert [job.vnnlib for job in todo.jobs] == ["p002.vnnlib"]
    assert todo.changed == (instances[2].key,)
    other = plan(instances, records, replace(OPTIONS, seed=5))
    assert len(other.other_options) == 3


def test_competition_files(tmp_path: Path) -> None:
    good = _copies(tmp_path, 4)
    source = tmp_path / "instances.csv"
    source.write_text("\n".join(f"{i.onnx},{i.vnnlib},30" for i in good))
    run(source, tmp_path / "j.jsonl", POISONED_VERIFY, workers=1)
    with Journal(tmp_path / "j.jsonl") as journal:
        problems = write_competition_files(tmp_path / "j.csv", journal, good, tmp_path / "counterexamples")
        records = journal.records
    assert problems == []
    rows = [line.split(",") for line in (tmp_path / "j.csv").read_text().splitlines()]
    assert [(row[1], row[2], row[4]) for row in rows] == [(i.onnx, i.vnnlib, _truth(i)) for i in good]
    written = sorted(path.name for path in (tmp_path / "counterexamples").rglob("*.counterexample"))
    sats = [record for record in records.values() if record.status is Status.SAT]
    assert sats
    assert len(written) == len(sats)
    assert Counter(str(record.status) for record in records.values()) == Counter(row[4] for row in rows)


@pytest.mark.parametrize(("text", "wanted"), [("", set()), ("timeout, error", {"timeout", "error"})])
def test_statuses(text: str, wanted: set[str]) -> None:
    assert {str(status) for status in parse_statuses(text)} == wanted


def test_bad_statuses() -> None:
    assert parse_statuses("failed") == {Status.ERROR, Status.CRASHED, Status.MEMORY, Status.HANG}
    with pytest.raises(OptionError, match="'open' is no status; use some of sat, unsat"):
        parse_statuses("sat,open")


# --- killed runs -------------------------------------------------------------------------------------------------


def driver(source: Path, journal: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "support.batch_driver", str(source), str(journal)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def shares(count: int) -> Iterator[float]:
    """Of a run, spread over it, the same ones in every test run."""
    return ((i * 0.618034) % 1 for i in range(1, count + 1))


def wait_for_lines(process: subprocess.Popen[bytes], journal: Path, count: int) -> None:
    """Until the journal has so many lines or the process has ended."""
    while process.poll() is None and (journal.read_bytes().count(b"\n") if journal.exists() else 0) < count:
        time.sleep(0.001)


@pytest.mark.slow
def test_runs_killed_at_any_moment_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    source = write_list(tmp_path / "s" / "instances.csv", names_of(60))
    wanted = expected(read_instances(source))
    assert driver(source, tmp_path / "whole.jsonl").wait() == 0
    assert _verdicts(tmp_path / "whole.jsonl") == wanted
    cut_short = 0
    for number, share in enumerate(shares(20)):
        journal = tmp_path / f"killed-{number}.jsonl"
        process = driver(source, journal)
        # By progress, not by the clock: how fast the machine is must not decide what is tested.
        wait_for_lines(process, journal, int(share * len(wanted)))
        time.sleep(0.05 * share)
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        cut_short += process.wait() == -signal.SIGKILL
        assert driver(source, journal).wait() == 0
        lines = journal.read_text().splitlines()
        assert len(lines) == len(wanted), "a line for every instance, none twice"
        assert _verdicts(journal) == wanted
        assert not psutil.wait_procs(family, timeout=10)[1], "workers outlive the run"
    assert cut_short >= 10


def _verdicts(journal: Path) -> dict[tuple[str, str, str], str]:
    return {key: str(record.status) for key, record in read_journal(journal).items()}
