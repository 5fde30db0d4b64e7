"""``verify bench``: run a list of instances, or a suite by name, and keep every result."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verifier.errors import InputError, OptionError
from verifier.options import check_device, parse_trust, positive_seconds

if TYPE_CHECKING:
    from verifier.benchmarks.batch import BatchOptions, Plan
    from verifier.benchmarks.instances import Instance
    from verifier.benchmarks.journal import Journal
    from verifier.benchmarks.pool import Answers

MEMORY_SHARE = 0.9
"""Of the memory that is free at the start, for all workers together, unless --memory says otherwise."""


def bench(
    instances: Annotated[
        str, typer.Argument(help="List with rows onnx,vnnlib,seconds, or SUITE or SUITE/CATEGORY; none: the suites.")
    ] = "",
    results: Annotated[Path | None, typer.Option(help="The journal, NAME.jsonl; continued where it exists.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Instances at a time; by default one per core.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds per instance, in place of the list's.")] = None,
    memory: Annotated[float | None, typer.Option(help="GB per worker; by default what is free is shared.")] = None,
    filter_: Annotated[
        str, typer.Option("--filter", help="Only instances whose 'category onnx vnnlib' has this regular expression.")
    ] = "",
    shard: Annotated[str, typer.Option(help="i/n: the i-th of n parts, for job arrays; then verify merge.")] = "",
    retry: Annotated[str, typer.Option(help="Run these again: timeout,error,... or failed for all failures.")] = "",
    data: Annotated[Path | None, typer.Option(help="Where your copy of the suite's files lies.")] = None,
    cluster: Annotated[str, typer.Option(help="Dask scheduler: address, scheduler file, or local:N.")] = "",
    threads: Annotated[int, typer.Option(help="CPU threads per instance.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.")] = 0,
    trust: Annotated[str, typer.Option(help="Weakest evidence that counts as unsat: rigorous or solver.")] = "solver",
    grace: Annotated[float, typer.Option(help="Seconds past its limit after which a worker is ended.")] = 10.0,
) -> None:
    """Run many instances; each in a worker process with limits of its own.

    A crash, a hang or too much memory costs one instance and is recorded as such.  Whatever ends the run, the same
    command continues it.  Beside the journal NAME.jsonl it writes NAME.csv in the competition's form and the
    counterexamples in NAME-counterexamples/.
    """
    try:
        if not instances:
            _list_suites()
            return
        if timeout is not None:
            positive_seconds(timeout)
        chosen = _instances(instances, data, timeout, filter_, shard)
        options = _options(jobs, memory, grace, threads, seed, trust, device, retry)
        path = results or _default_journal(instances, shard)
        code = _run(chosen, path, jobs, options, cluster)
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    if code:
        raise typer.Exit(code)


def _list_suites() -> None:
    from verifier.benchmarks.suites import read_suite, suite_names

    typer.echo("verify bench LIST.csv, or one of the suites:")
    for name in suite_names():
        typer.echo(f"  {name:<14} {read_suite(name).description}")


def _instances(source: str, data: Path | None, timeout: float | None, pattern: str, part: str) -> list[Instance]:
    """What the user asked for.  Raises BatchError and OptionError."""
    from verifier.benchmarks.instances import matching, read_instances, shard
    from verifier.benchmarks.suites import suite_instances

    path = Path(source)
    if path.is_dir():
        path = path / "instances.csv"
    if path.is_file() or path.suffix == ".csv":
        found = read_instances(path, timeout=timeout)
    else:
        found = suite_instances(source, data, timeout, lambda text: typer.echo(text, err=True))
    if pattern:
        found = matching(found, pattern)
        if not found:
            raise OptionError(f"--filter {pattern!r} leaves no instance; it is looked for in 'category onnx vnnlib'")
    return shard(found, part) if part else found


def _options(
    jobs: int | None,
    memory: float | None,
    grace: float,
    threads: int,
    seed: int,
    trust: str,
    device: str,
    retry: str,
) -> BatchOptions:
    from verifier.benchmarks.batch import BatchOptions, parse_statuses

    parse_trust(trust)
    check_device(device)
    if jobs is not None and jobs < 1:
        raise OptionError(f"the number of jobs is {jobs}; give at least 1")
    if threads < 1:
        raise OptionError(f"the number of threads is {threads}; give at least 1")
    if memory is not None and not memory > 0:
        raise OptionError(f"the memory limit is {memory:g} GB; give a positive number")
    if not 0 <= grace < float("inf"):
        raise OptionError(f"the grace is {grace:g} seconds; give 0 or more")
    if memory is None:
        import psutil

        share = MEMORY_SHARE * psutil.virtual_memory().available / _workers(jobs, threads)
        memory = round(max(0.5, share / 2**30), 1)
    statuses = parse_statuses(retry)
    return BatchOptions(int(memory * 2**30), grace, threads, seed, trust, device, statuses)


def _workers(jobs: int | None, threads: int) -> int:
    from verifier.benchmarks.machine import usable_cores

    return jobs or max(1, usable_cores() // threads)


def _default_journal(source: str, shard: str) -> Path:
    """In the current folder, named after the suite or the list's folder."""
    path = Path(source)
    if path.is_dir():
        name = path.resolve().name
    elif path.suffix == ".csv":
        name = path.resolve().parent.name if path.stem == "instances" else path.stem
    else:
        name = source.replace("/", "-")
    return Path(name + (f"-shard-{shard.replace('/', '-of-')}" if shard else "") + ".jsonl")


def _run(chosen: list[Instance], path: Path, jobs: int | None, options: BatchOptions, cluster: str) -> int:
    """Run the batch; the exit code."""
    from verifier.benchmarks.batch import plan, run_batch, write_competition_files
    from verifier.benchmarks.display import BatchDisplay
    from verifier.benchmarks.journal import Journal

    if path.suffix == ".csv":
        raise OptionError(f"--results names the journal, which is no CSV file; write {path.with_suffix('.jsonl')}")
    folder = path.with_name(f"{path.stem}-counterexamples")
    with Journal(path) as journal:
        work = plan(chosen, journal.records, options)
        _announce(work, path)
        interrupted = False
        try:
            if work.jobs:
                workers = _workers(jobs, options.threads)
                with _answers(cluster, workers, options.threads) as answers, BatchDisplay() as display:
                    run_batch(work, journal, answers, display, folder)
        except KeyboardInterrupt:
            interrupted = True
        problems = write_competition_files(path.with_suffix(".csv"), journal, chosen, folder)
        return _summary(chosen, journal, path, problems, interrupted)


def _announce(work: Plan, path: Path) -> None:
    """What is about to happen, where that is not plain."""
    lines = []
    if work.kept:
        lines.append(f"{path} holds {len(work.kept)} results already; {len(work.jobs)} instances are left")
    if work.changed:
        lines.append(f"{len(work.changed)} instances run again: their files are not those of the journal")
    if work.other_options:
        lines.append(
            f"{len(work.other_options)} of the results were made with another time-out, seed or level of trust; they "
            "are kept (use --retry, or another --results)"
        )
    for line in lines:
        typer.echo(line, err=True)


def _summary(chosen: list[Instance], journal: Journal, path: Path, problems: list[str], interrupted: bool) -> int:
    """The counts on stdout, everything else on stderr; the exit code."""
    from rich.console import Console

    from verifier.benchmarks.display import counts_text
    from verifier.benchmarks.record import FAILED

    records = [journal.records[instance.key] for instance in chosen if instance.key in journal.records]
    console = Console(highlight=False, soft_wrap=True)
    counts = Counter(record.status for record in records)
    console.print(f"{len(records)} of {len(chosen)} instances  ", counts_text(counts), sep="")
    failed = [str(status) for status in FAILED if counts[status]]
    if failed:
        typer.echo(f"to run failed instances again, add --retry {','.join(failed)}", err=True)
    for problem in problems:
        typer.echo(f"warning: {problem}", err=True)
    typer.echo(
        f"journal {path}, competition form {path.with_suffix('.csv')}; to look at: verify report {path}", err=True
    )
    if interrupted:
        typer.echo("interrupted; the same command continues", err=True)
        return 130
    return 0


def _answers(cluster: str, workers: int, threads: int) -> Answers:
    if cluster:
        from verifier.benchmarks.cluster import connect

        return connect(cluster, threads)
    from verifier.benchmarks.pool import WorkerPool

    return WorkerPool(workers, threads)
