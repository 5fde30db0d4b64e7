"""``verify radius MODEL DATA``: how robust the network is at each input, as a table, a CSV file and a picture."""

from __future__ import annotations

import math
import sys
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verifier.errors import InputError, OptionError
from verifier.report.outputs import check_writable

if TYPE_CHECKING:
    from verifier.radius.record import Radius
    from verifier.radius.table import RadiusTable

HEAD = f"{'index':>6} {'label':>5} {'certified':>12} {'adversarial':>12} {'seconds':>8}  "
CURVE_POINTS = 400


def radius(
    model: Annotated[Path, typer.Argument(help="ONNX file, plain or .gz.")],
    data: Annotated[Path, typer.Argument(help="IDX, CIFAR-10 .bin, .npy, .npz or .csv file, or a folder of PNGs.")],
    index: Annotated[str, typer.Option(help="Which inputs: 7, 0:100 or 0:1000:10; all by default.")] = "",
    norm: Annotated[str, typer.Option(help="linf, l1, l2 or l0.")] = "linf",
    timeout: Annotated[float, typer.Option(help="Seconds for each input.")] = 60.0,
    tolerance: Annotated[float, typer.Option(help="How far apart the two sides may stay.")] = 1e-4,
    bounds: Annotated[str, typer.Option(help="Lowest and highest valid input, or none.")] = "0,1",
    labels: Annotated[Path | None, typer.Option(help="File of labels where the data hold none.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Of a CSV file: name, or number from 0.")] = None,
    target: Annotated[int | None, typer.Option(help="Only this class counts as a counterexample.")] = None,
    group: Annotated[str | None, typer.Option(help="For l0: pixel, to change all channels together.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes that share the inputs.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads, where jobs is 1.")] = 1,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.")] = 0,
    csv: Annotated[Path | None, typer.Option(help="Write one row per input, as they come.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the rows of the CSV file; run the others.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy against distance: .png, .pdf or .svg.")] = None,
) -> None:
    """How far from each input of DATA is the nearest one that MODEL classifies otherwise?

    Per input a certified distance, within which there is none, and an adversarial one, at which onnxruntime confirms
    one. Without labels the model's own answers are to be kept.
    """
    try:
        for path in (csv, plot):
            if path is not None:
                check_writable(path)
        options: dict[str, Any] = {
            "norm": norm,
            "tolerance": tolerance,
            "bounds": _bounds(bounds),
            "target": target,
            "group": group,
            "seed": seed,
        }
        known = _known(csv, resume)
        table = _run(model, data, index, labels, label_column, timeout, jobs, threads, csv, known, options)
        if csv is not None:
            typer.echo(f"table: {csv}")
        if plot is not None:
            _plot(table, plot)
            typer.echo(f"plot: {plot}")
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    for defect in table.defects:
        typer.echo(defect, err=True)
    interrupted = any("interrupted" in found.reason for found in table)
    raise typer.Exit(1 if table.defects else 130 if interrupted else 0)


def _known(csv: Path | None, resume: bool) -> RadiusTable | None:
    from verifier.radius.table import RadiusTable

    if not resume:
        return None
    if csv is None:
        raise OptionError("--resume goes on with the rows of a CSV file; name it with --csv")
    return RadiusTable.read_csv(csv) if csv.exists() else None


def _run(
    model: Path,
    data: Path,
    index: str,
    labels: Path | None,
    label_column: str | None,
    timeout: float,
    jobs: int,
    threads: int,
    csv: Path | None,
    known: RadiusTable | None,
    options: dict[str, Any],
) -> RadiusTable:
    from verifier.datasets import read_data
    from verifier.model.read import load
    from verifier.options import limit_threads
    from verifier.radius.batch import certified_radii

    limit_threads(threads)
    network = load(model)
    batch = read_data(data, network.network.input_shape, index, labels, label_column)
    typer.echo(HEAD)

    def show(place: int, found: Radius) -> None:
        typer.echo(_line(batch.indices[place], found))
        sys.stdout.flush()

    table = certified_radii(
        network,
        batch.inputs,
        None if batch.labels is None else batch.labels.tolist(),
        indices=batch.indices,
        timeout=timeout,
        jobs=jobs,
        progress=sys.stderr.isatty(),
        each=show,
        csv=csv,
        known=known,
        **options,
    )
    typer.echo(_summary(table))
    return table


def _line(index: int, found: Radius) -> str:
    note = found.reason
    if found.adversarial == 0:
        note = "misclassified"
    elif found.witness is not None:
        note = "; ".join(part for part in (f"becomes {found.predicted}", found.reason) if part)
    numbers = f"{_digits(found.certified, ROUND_FLOOR):>12} {_digits(found.adversarial, ROUND_CEILING):>12}"
    numbers += f" {found.seconds:8.2f}"
    return f"{index:6} {found.label:5} {numbers}  {note}".rstrip()


def _digits(value: float, rounding: str) -> str:
    """Six digits, rounded to the side on which the number still holds."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    exact = Decimal(value)
    return format(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 5), rounding).normalize(), "f")


def _summary(table: RadiusTable) -> str:
    right = [found for found in table if found.adversarial > 0]
    closed = sum(found.closed for found in table)
    finite = sorted(found.certified for found in right)
    middle = f"; median certified {_digits(finite[len(finite) // 2], ROUND_FLOOR)}" if finite else ""
    return (
        f"{len(table)} inputs, {len(table) - len(right)} misclassified, gap closed on {closed}"
        f"{middle}; {sum(found.seconds for found in table):.1f} s"
    )


def _plot(table: RadiusTable, path: Path) -> None:
    import numpy as np

    from verifier.report.accuracy_plot import save_accuracy_plot

    known = [value for found in table for value in (found.certified, found.adversarial) if math.isfinite(value)]
    far = 1.05 * max(known, default=0.0) or 1.0
    distances = np.unique(np.append(np.linspace(0, far, CURVE_POINTS), [v for v in known if v > 0]))
    certified, adversarial = table.accuracy(distances)
    save_accuracy_plot(path, distances, certified, adversarial, table[0].norm, len(table))


def _bounds(text: str) -> tuple[float, float] | None:
    if text.strip().lower() == "none":
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"the bounds {text!r} are not two numbers; write 0,1 or none") from None
    return low, high
