"""``verify merge``: one journal from several, as the parts of a job array leave them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from verifier.errors import InputError
from verifier.report.outputs import check_writable, write_whole


def merge(
    journals: Annotated[list[Path], typer.Argument(help="Journals, for example those of verify bench --shard.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The journal to write; must not exist yet.")],
) -> None:
    """Join journals into one, with its competition CSV and counterexamples beside it.

    Of an instance that several journals have, a decided result is taken before an undecided one, and a later one
    before an earlier one.  Journals that contradict each other are refused.
    """
    try:
        _merge(journals, output)
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None


def _merge(journals: list[Path], output: Path) -> None:
    from verifier.benchmarks.competition import write_counterexample, write_results
    from verifier.benchmarks.journal import merge as merged
    from verifier.errors import OptionError

    if output.exists():
        raise OptionError(f"{output} exists already; remove it, or give -o another name")
    if output.suffix == ".csv":
        raise OptionError(f"-o names a journal, which is no CSV file; write {output.with_suffix('.jsonl')}")
    check_writable(output)
    records = merged(journals)
    write_whole(output, "".join(record.line() for record in records))
    write_results(output.with_suffix(".csv"), records)
    for record in records:
        write_counterexample(output.with_name(f"{output.stem}-counterexamples"), record)
    counts = Counter(record.status for record in records)
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    typer.echo(f"{output}: {len(records)} instances, {told}")
