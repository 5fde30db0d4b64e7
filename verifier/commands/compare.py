"""``verify compare``: several runs over the same instances side by side, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verifier.errors import InputError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from verifier.benchmarks.comparison import Pair, Row
    from verifier.benchmarks.outcomes import Outcome

HEADER = ("group", "run", "instances", "decided", "sat", "unsat", "failed", "contradicting", "PAR-2 s")
BY = ("category", "network")
LONGEST_LIST = 50


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Journals, competition CSV files, reference.csv or folders of these.")
    ],
    timeout: Annotated[float | None, typer.Option(help="Seconds, for PAR-2 of files that do not say.")] = None,
    by: Annotated[str, typer.Option(help="Rows of the table: category or network.")] = "category",
    all_: Annotated[bool, typer.Option("--all", help="List every instance, however many.")] = False,
) -> None:
    """Compare runs: what each decides, contradictions, PAR-2, and which instances only one of them decides.

    Exit code 1 when one run says sat where another says unsat.
    """
    try:
        code = _compare(runs, timeout, by, None if all_ else LONGEST_LIST)
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    if code:
        raise typer.Exit(code)


def _compare(paths: list[Path], timeout: float | None, by: str, longest: int | None) -> int:
    from rich.console import Console

    from verifier.benchmarks.comparison import disagreements, pair, table
    from verifier.benchmarks.outcomes import read_runs

    if by not in BY:
        raise OptionError(f"--by {by!r} is not possible; use category or network")
    if len(paths) < 2:
        raise OptionError("there is nothing to compare with; name two runs at least")
    found = read_runs(paths)
    console = Console(highlight=False, soft_wrap=True)
    _print_table(console, table(found, by, timeout))
    for other in found[1:]:
        _print_pair(console, pair(found[0], other), longest)
    differing = disagreements(found)
    wrong = [str(d) for d in differing if not d.doubtful]
    _print_list(console, "CONTRADICTIONS", wrong, None, "bold red")
    doubtful = [str(d) for d in differing if d.doubtful]
    _print_list(console, "Disagreements where one side was in doubt itself", doubtful, longest)
    return int(bool(wrong))


def _print_table(console: Console, rows: Sequence[Row]) -> None:
    """A drawn table on a terminal, aligned columns elsewhere."""
    cells = [
        (
            row.group,
            row.run,
            *map(str, (row.instances, row.decided, row.sat, row.unsat, row.failed, row.contradicting)),
            "-" if row.par2 is None else f"{row.par2:.2f}",
        )
        for row in rows
    ]
    if console.is_terminal:
        from rich.table import Table

        drawn = Table()
        for column, name in enumerate(HEADER):
            drawn.add_column(name, justify="left" if column < 2 else "right")
        for row, texts in zip(rows, cells, strict=True):
            drawn.add_row(*texts, style="bold red" if row.contradicting else None)
        console.print(drawn)
        return
    widths = [max(len(row[column]) for row in [HEADER, *cells]) for column in range(len(HEADER))]
    for texts in [HEADER, *cells]:
        padded = [str.ljust(*both) for both in zip(texts[:2], widths[:2], strict=True)]
        padded += [str.rjust(*both) for both in zip(texts[2:], widths[2:], strict=True)]
        console.print("  ".join(padded).rstrip(), markup=False)


def _print_pair(console: Console, found: Pair, longest: int | None) -> None:
    first, second = found.first, found.second
    if not found.common:
        console.print(f"\n{first} and {second} have no instance in common", markup=False)
        return
    line = f"\n{first} against {second}: {found.common} instances in common, {found.both} timed in both"
    if found.ratio is not None:
        line += f", median of {first} / {second} seconds {found.ratio:.3g}"
    console.print(line, markup=False)
    for name, other, outcomes in ((first, second, found.only_first), (second, first, found.only_second)):
        _print_list(console, f"Decided by {name}, not by {other}", [_told(o) for o in outcomes], longest)


def _told(outcome: Outcome) -> str:
    seconds = "" if outcome.seconds is None else f" in {outcome.seconds:.1f} s"
    return f"{outcome}: {outcome.verdict}{'?' if outcome.doubtful else ''}{seconds}"


def _print_list(console: Console, title: str, lines: Sequence[str], longest: int | None, style: str = "") -> None:
    if not lines:
        return
    console.print(f"\n{title} ({len(lines)}):", style=style or None, markup=False)
    for line in lines[:longest]:
        console.print(f"  {line}", style=style or None, markup=False)
    if longest is not None and len(lines) > longest:
        console.print(f"  and {len(lines) - longest} more; list them with --all", markup=False)
