"""A batch: instances in, a journal out, and nothing lost in between.

What the journal already holds is not run again, unless the user names its status for another try, or the files have
changed since.  The journal is written before anything else is told; the competition's files are made from it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from verifier.benchmarks.board import Note
from verifier.benchmarks.competition import counterexample_path, write_counterexample, write_results
from verifier.benchmarks.instances import Instance, file_digest
from verifier.benchmarks.job import Job
from verifier.benchmarks.journal import Journal
from verifier.benchmarks.machine import machine, versions
from verifier.benchmarks.pool import Answers
from verifier.benchmarks.record import FAILED, Key, Record, Status
from verifier.errors import OptionError, OutputPathError

GRACE = 10.0


@dataclass(frozen=True)
class BatchOptions:
    """memory: bytes per worker.  grace: seconds past its limit after which a worker is ended.

    retry: statuses whose instances are run again.  The rest as for ``verify``.
    """

    memory: int
    grace: float = GRACE
    threads: int = 1
    seed: int = 0
    trust: str = "solver"
    device: str = "cpu"
    retry: frozenset[Status] = frozenset()


@dataclass(frozen=True)
class Plan:
    """jobs: what has to be run.  kept: records of the journal that answer an instance already.

    changed: instances that are run again because their files are others than the journal's.
    other_options: instances whose records were made with other options, and are kept.
    """

    jobs: tuple[Job, ...]
    kept: tuple[Record, ...]
    changed: tuple[Key, ...] = ()
    other_options: tuple[Key, ...] = ()


class Watcher(Protocol):
    """Who is told how a batch goes."""

    def start(self, plan: Plan, notes: Callable[[], list[Note]]) -> None: ...

    def finished(self, record: Record) -> None: ...


class Digests:
    """sha256 of files; each file is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def differs(self, path: Path, recorded: str | None) -> bool:
        """Whether a file is another one than when it was recorded; False where nobody can tell."""
        if recorded is None or not path.is_file():
            return False
        if path not in self._known:
            try:
                self._known[path] = file_digest(path)
            except OSError:
                return False
        return self._known[path] != recorded


def parse_statuses(text: str) -> frozenset[Status]:
    """ "timeout,error" as statuses; ``failed`` stands for all that are no verdict.  Raises OptionError."""
    found: set[Status] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word == "failed":
            found |= FAILED
        elif word in [*map(str, Status)]:
            found.add(Status(word))
        else:
            raise OptionError(f"--retry {word!r} is no status; use some of {', '.join(Status)}, or failed")
    return frozenset(found)


def plan(instances: Sequence[Instance], known: Mapping[Key, Record], options: BatchOptions) -> Plan:
    """What is left to do of a list."""
    jobs, kept, changed, other = [], [], [], []
    digests = Digests()
    for number, instance in enumerate(instances):
        job = Job(
            number=number,
            category=instance.category,
            onnx=instance.onnx,
            vnnlib=instance.vnnlib,
            onnx_path=str(instance.onnx_path),
            vnnlib_path=str(instance.vnnlib_path),
            timeout=instance.timeout,
            grace=options.grace,
            memory=options.memory,
            threads=options.threads,
            seed=options.seed,
            trust=options.trust,
            device=options.device,
        )
        record = known.get(instance.key)
        if record is None or record.status in options.retry:
            jobs.append(job)
        elif _differs(digests, instance, record):
            changed.append(instance.key)
            jobs.append(job)
        else:
            kept.append(record)
            if any(record.options.get(name) != job.options[name] for name in ("timeout", "seed", "trust")):
                other.append(instance.key)
    return Plan(tuple(jobs), tuple(kept), tuple(changed), tuple(other))


def _differs(digests: Digests, instance: Instance, record: Record) -> bool:
    pairs = ((instance.onnx_path, "onnx"), (instance.vnnlib_path, "vnnlib"))
    return any(digests.differs(path, record.files.get(name)) for path, name in pairs)


def run_batch(
    work: Plan, journal: Journal, answers: Answers, watcher: Watcher, counterexamples: Path
) -> Counter[Status]:
    """Run what is left, write every record to the journal as it comes; how often each status occurred.

    counterexamples: folder for those of ``sat`` records.  Raises OutputPathError when the journal cannot be
    written any more.
    """
    watcher.start(work, answers.notes)
    counts = Counter(record.status for record in work.kept)
    for job, found in answers.run(work.jobs):
        record = with_counterexample(recorded(job, found), counterexamples)
        journal.append(record)
        counts[record.status] += 1
        watcher.finished(record)
    return counts


def recorded(job: Job, found: Mapping[str, Any]) -> Record:
    """The record of a job and what came of it."""
    places: dict[str, Any] = {"machine": machine(), "versions": versions()}
    if "files" not in found:  # the worker did not come so far
        paths = {"onnx": Path(job.onnx_path), "vnnlib": Path(job.vnnlib_path)}
        places["files"] = {name: file_digest(path) for name, path in paths.items() if path.is_file()}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Record(
        category=job.category,
        onnx=job.onnx,
        vnnlib=job.vnnlib,
        timeout=job.timeout,
        finished=now,
        options=job.options,
        **{"seconds": 0.0, **places, **found, "bounds": tuple(found.get("bounds", ()))},
    )


def with_counterexample(record: Record, folder: Path) -> Record:
    """The record, after writing its counterexample; a file that cannot be written is noted in it, and costs no more."""
    try:
        write_counterexample(folder, record)
    except OutputPathError as error:
        return dataclasses.replace(record, output=str(error))
    return record


def write_competition_files(path: Path, journal: Journal, instances: Sequence[Instance], folder: Path) -> list[str]:
    """The CSV of all finished instances in the order of the list, and counterexamples that are missing still.

    Returns a sentence for every file that cannot be written.
    """
    wanted = [instance.key for instance in instances]
    records = [journal.records[key] for key in dict.fromkeys([*wanted, *journal.records]) if key in journal.records]
    problems = []
    try:
        write_results(path, records)
    except OutputPathError as error:
        problems.append(str(error))
    for record in records:
        if record.witness is not None and not counterexample_path(folder, record).is_file():
            try:
                write_counterexample(folder, record)
            except OutputPathError as error:
                problems.append(str(error))
    return problems
