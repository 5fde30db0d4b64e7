"""What a batch costs beside the verification: instances per second on easy instances, per worker.

    python -m verifier.benchmarks.batch_overhead [--instances 200] [--workers 1]

The instances are copies of one that takes about ten milliseconds; the clock starts when the first is done.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from verifier.benchmarks.batch import BatchOptions, Plan, plan, run_batch
from verifier.benchmarks.instances import read_instances
from verifier.benchmarks.journal import Journal
from verifier.benchmarks.pool import WorkerPool
from verifier.benchmarks.record import Record

DIGITS = Path(__file__).with_name("digits")
EASY = "vnnlib/image_00_eps_0.05.vnnlib"


class Stopwatch:
    """A watcher of a batch that notes when instances are done."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.inside: list[float] = []

    def start(self, plan: Plan, notes: object) -> None: ...

    def finished(self, record: Record) -> None:
        self.moments.append(time.perf_counter())
        self.inside.append(record.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="batch_overhead", description="Instances per second of a batch.")
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copy(DIGITS / "onnx/mlp.onnx", folder)
        names = [f"p{i}.vnnlib" for i in range(options.instances)]
        for name in names:
            shutil.copy(DIGITS / EASY, folder / name)
        (folder / "instances.csv").write_text("".join(f"mlp.onnx,{name},60\n" for name in names))
        instances = read_instances(folder / "instances.csv")
        watch = Stopwatch()
        began = time.perf_counter()
        with Journal(folder / "j.jsonl") as journal, WorkerPool(options.workers) as pool:
            todo = plan(instances, journal.records, BatchOptions(2**32))
            run_batch(todo, journal, pool, watch, folder / "counterexamples")
    rate = (len(watch.moments) - options.workers) / (watch.moments[-1] - watch.moments[options.workers - 1])
    print(
        f"start-up {watch.moments[0] - began:.2f} s; {rate:.1f} instances per second, {rate / options.workers:.1f} per "
        f"worker; {1000 * statistics.median(watch.inside):.1f} ms each inside the worker"
    )


if __name__ == "__main__":
    main()
