"""``verify report``: journals as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.errors import InputError, OptionError
from verifier.report.outputs import check_writable, write_whole


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Journals; also competition CSV files, reference.csv or folders of these.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    reference: Annotated[
        list[Path] | None, typer.Option(help="Known verdicts to hold the runs against; may be repeated.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    images: Annotated[int, typer.Option(help="Draw so many counterexamples at most.")] = 1000,
    timeout: Annotated[float | None, typer.Option(help="Seconds, for PAR-2 of files that do not say.")] = None,
) -> None:
    """Write one self-contained HTML page: summary, plots, every instance with its counterexample in pictures.

    Several journals are set against each other; contradictions stand on top, in red.
    """
    try:
        _report(runs, output, reference or [], title, images, timeout)
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None


def _report(
    paths: list[Path], output: Path, references: list[Path], title: str, images: int, timeout: float | None
) -> None:
    if images < 0:
        raise OptionError(f"the number of images is {images}; give 0 or more")
    check_writable(output)
    from verifier.benchmarks.outcomes import read_runs
    from verifier.benchmarks.report.render import render
    from verifier.errors import BatchError

    runs = read_runs([*paths, *references])
    if not any(run.outcomes for run in runs):
        raise BatchError(f"{', '.join(map(str, paths))}: no instance has finished yet; run verify bench first")
    write_whole(output, render(runs, title, images, timeout))
    typer.echo(output)
