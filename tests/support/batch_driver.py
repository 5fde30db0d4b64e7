"""A batch in a process of its own, to be killed: ``python -m support.batch_driver LIST JOURNAL [WORKERS]``."""

from __future__ import annotations

import sys
from pathlib import Path

from support.batch_work import QUICK
from verifier.benchmarks.batch import BatchOptions, plan, run_batch, write_competition_files
from verifier.benchmarks.display import BatchDisplay
from verifier.benchmarks.instances import read_instances
from verifier.benchmarks.journal import Journal
from verifier.benchmarks.pool import WorkerPool

OPTIONS = BatchOptions(memory=2**30, grace=5.0)


def main(source: str, target: str, workers: str = "2") -> None:
    instances, path = read_instances(Path(source)), Path(target)
    folder = path.with_name("counterexamples")
    with Journal(path) as journal:
        work = plan(instances, journal.records, OPTIONS)
        with WorkerPool(int(workers), work=QUICK) as pool, BatchDisplay() as display:
            run_batch(work, journal, pool, display, folder)
        write_competition_files(path.with_suffix(".csv"), journal, instances, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
