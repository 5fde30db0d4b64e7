"""Distances of the nearest counterexamples on the digits that ship with the project, in every norm.

python -m verifier.benchmarks.radius_digits --network mlp --timeout 60
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from verifier.api import load
from verifier.options import limit_threads
from verifier.radius.batch import certified_radii

DIGITS = Path(__file__).resolve().parent / "digits"


def main(
    network: Annotated[str, typer.Option(help="mlp or conv.")] = "mlp",
    norms: Annotated[str, typer.Option(help="Which, with commas.")] = "linf,l1,l2,l0",
    timeout: Annotated[float, typer.Option(help="Seconds per image.")] = 60.0,
    tolerance: Annotated[float, typer.Option(help="In units of the norm.")] = 1e-4,
) -> None:
    """Run the benchmark: one line per image that stays open, and one per norm."""
    limit_threads(1)
    model = load(DIGITS / "onnx" / f"{network}.onnx")
    data = np.load(DIGITS / "images.npz")
    for norm in norms.split(","):
        table = certified_radii(model, data["images"], data["labels"], norm=norm, timeout=timeout, tolerance=tolerance)
        for index, found in zip(table.indices, table, strict=True):
            if not found.closed:
                print(f"  image {index}: {found.certified:.6f} to {found.adversarial:.6f}, {found.reason}")
        seconds = [found.seconds for found in table]
        closed = sum(found.closed for found in table)
        print(
            f"{network} {norm}: {closed} of {len(table)} closed, longest {max(seconds):.1f} s, all {sum(seconds):.1f} s"
        )


if __name__ == "__main__":
    typer.run(main)
