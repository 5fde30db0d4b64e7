"""Run every instance of a VNN-COMP style list: ``python -m verifier.benchmarks.run_instances``.

    run_instances INSTANCES.csv --results FILE --timeout 60 --threads 1 [--filter REGEX] [--one-process]

INSTANCES.csv has rows ``onnx,vnnlib,seconds`` with paths relative to itself; a file may also lie there with
``.gz`` appended.  Every instance is a run of the ``verify`` command in a process of its own, start-up
included in the seconds; with one thread it is pinned to the first core.  Each appends its row to FILE at
once, so a run that was stopped goes on where it was.  ``--one-process`` calls ``verifier.verify`` in this
process instead: start-up is paid once, but nothing ends an instance that ignores its limit.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any, NamedTuple, TextIO

COLUMNS = ("category", "onnx", "vnnlib", "verdict", "seconds", "level", "method", "message")
GRACE = 10.0
"""Seconds past the limit after which a run is killed."""


class Instance(NamedTuple):
    """One row of the list; the paths as they stand there."""

    category: str
    onnx: str
    vnnlib: str


def read_instances(path: Path, pattern: str) -> list[Instance]:
    """The rows that ``pattern`` matches somewhere; the category is the folder's name."""
    category = path.resolve().parent.name
    with path.open(newline="", encoding="utf-8") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if len(row) > 1]
    return [Instance(category, *row[:2]) for row in rows if re.search(pattern, " ".join(row[:2]))]


def open_results(path: Path) -> tuple[TextIO, set[Instance]]:
    """The results file, ready for the next row, and the instances that have a complete row in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", newline="", encoding="utf-8")
    file.seek(0)
    text = file.read()
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["message"] is not None]
    if not text:
        csv.DictWriter(file, COLUMNS).writeheader()
    elif not text.endswith("\n"):
        file.write("\n")
    return file, {Instance(row["category"], row["onnx"], row["vnnlib"]) for row in rows}


def located(folder: Path, name: str) -> str:
    zipped = folder / f"{name}.gz"
    return str(zipped if zipped.exists() else folder / name)


def in_subprocess(model: str, spec: str, timeout: float, threads: int) -> dict[str, Any]:
    """What ``verify --json`` writes, from a process of its own; only a message where it wrote nothing."""
    pin = ["taskset", "-c", "0"] if threads == 1 and shutil.which("taskset") else []
    verify = [sys.executable, "-m", "verifier.cli", model, spec]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch, "result.json")
        options = ["--timeout", f"{timeout:g}", "--threads", str(threads), "--json", str(answer)]
        with Popen(
            [*pin, *verify, *options],
            env=os.environ | limits,
            start_new_session=True,
            text=True,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
        ) as process:
            try:
                _, errors = process.communicate(timeout=timeout + GRACE)
            except BaseException as end:  # Ctrl-C too
                # The whole session: the run may have workers of its own.
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(end, TimeoutExpired):
                    return {"message": f"killed {GRACE:.0f} s past the limit"}
                raise
        if answer.exists():
            return json.loads(answer.read_text(encoding="utf-8"))
    return {"message": errors.strip().rpartition("\n")[2] or f"exit code {process.returncode}"}


def in_this_process(model: str, spec: str, timeout: float, threads: int) -> dict[str, Any]:
    """The same from a call; only a message where it failed: one instance must not end the batch."""
    from verifier.api import verify
    from verifier.pipeline import Options

    try:
        result = verify(model, spec, timeout, Options(threads=threads))
    except Exception as error:
        return {"message": f"{type(error).__name__}: {error}"}
    evidence = dataclasses.asdict(result.evidence) if result.evidence else None
    return {"verdict": str(result.verdict), "message": result.message, "evidence": evidence}


def run_one(folder: Path, instance: Instance, options: argparse.Namespace) -> dict[str, str]:
    """The row of one instance."""
    run = in_this_process if options.one_process else in_subprocess
    began = time.monotonic()
    paths = located(folder, instance.onnx), located(folder, instance.vnnlib)
    found = run(*paths, options.timeout, options.threads)
    seconds = time.monotonic() - began
    evidence = found.get("evidence") or {}
    return {
        **instance._asdict(),
        "verdict": found.get("verdict", "error"),
        "seconds": f"{seconds:.2f}",
        "level": evidence.get("level", ""),
        "method": "+".join(evidence.get("methods", ())),
        "message": " ".join((found.get("message") or "").split()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="run_instances", description="Run a list of instances.")
    add = parser.add_argument
    add("instances", type=Path, help="CSV file of rows onnx,vnnlib,seconds")
    add("--results", type=Path, required=True, help="CSV file to append to")
    add("--timeout", type=float, default=60.0, help="seconds for each instance")
    add("--threads", type=int, default=1)
    add("--filter", default="", help="regular expression: run only the rows it matches")
    add("--one-process", action="store_true", help="no process per instance")
    options = parser.parse_args(arguments)
    instances = read_instances(options.instances, options.filter)
    file, finished = open_results(options.results)
    with file:
        writer = csv.DictWriter(file, COLUMNS)
        for number, instance in enumerate(instances, 1):
            if instance not in finished:
                row = run_one(options.instances.parent, instance, options)
                writer.writerow(row)
                file.flush()
                print(f"{number}/{len(instances)}", *row.values(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
