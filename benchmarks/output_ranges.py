"""The ranges of DeepGO's reachability table: outputs of six networks over [0, 10]^2, both ends from both sides.

    python -m verifier.benchmarks.output_ranges

Seconds are those of the call, model loading excluded; the first call of a process also loads the compiled kernel.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Annotated

import typer

from verifier.api import load
from verifier.options import limit_threads
from verifier.reachability import Range, output_range

SHARED = Path(__file__).resolve().parents[2] / "shared"


def agrees(found: Range, row: dict[str, str], tolerance: float) -> bool:
    """Whether every number lies in the reference's enclosures, widened by the tolerance."""
    low, high = (float(row[f"min_{side}"]) for side in ("low", "high"))
    least = low - tolerance <= found.lower <= found.attained_lower <= high + tolerance
    low, high = (float(row[f"max_{side}"]) for side in ("low", "high"))
    return least and low - tolerance <= found.attained_upper <= found.upper <= high + tolerance


def main(
    tolerance: Annotated[float, typer.Option(help="In units of the output.")] = 0.01,
    timeout: Annotated[float, typer.Option(help="Seconds per network.")] = 60.0,
    shared: Annotated[Path, typer.Option(help="Where benchmarks/ lies.")] = SHARED,
) -> None:
    """Run the benchmark."""
    limit_threads(1)
    folder = shared / "benchmarks" / "deepgo"
    with (folder / "reference.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    output_range(load(folder / rows[0]["onnx"]), (0, 10), 0, 1.0, timeout)
    for row in rows:
        network = load(folder / row["onnx"])
        started = time.perf_counter()
        found = output_range(network, (float(row["input_low"]), float(row["input_high"])), 0, tolerance, timeout)
        seconds = time.perf_counter() - started
        verdict = "agrees" if agrees(found, row, tolerance) and not found.reason else f"DIFFERS {found.reason}"
        print(
            f"{row['onnx']:14} [{found.lower:.4f}, {found.attained_lower:.4f}] "
            f"[{found.attained_upper:.4f}, {found.upper:.4f}] {seconds:6.2f} s "
            f"(DeepGO {row['deepgo_seconds']} s) {verdict}"
        )


if __name__ == "__main__":
    typer.run(main)
