"""Distances of the nearest counterexamples of the Wong-Kolter network on MNIST, and the decision problem beside them.

    python -m verifier.benchmarks.radius_wk17a --images 100 --timeout 120 --results radii.csv

Every image is also asked whether it is robust within ``epsilon``; the radius has to agree.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from verifier.api import load
from verifier.datasets import read_data
from verifier.options import limit_threads
from verifier.radius.entry import certified_radius, robust
from verifier.radius.record import Radius
from verifier.verdict import Verdict

SHARED = Path(__file__).resolve().parents[2] / "shared"


def agreement(found: Radius, epsilon: float, verdict: Verdict) -> str:
    """What the radius says of the decision problem, against its verdict."""
    if found.certified >= epsilon:
        return "agrees" if verdict is Verdict.UNSAT else "DIFFERS"
    if found.adversarial <= epsilon:
        return "agrees" if verdict is Verdict.SAT else "DIFFERS"
    return "open"


def main(
    images: Annotated[int, typer.Option(help="How many test images, from the first.")] = 100,
    first: Annotated[int, typer.Option(help="Where to start.")] = 0,
    epsilon: Annotated[float, typer.Option(help="Of the decision problem.")] = 0.1,
    tolerance: Annotated[float, typer.Option(help="Of the radius.")] = 1e-3,
    timeout: Annotated[float, typer.Option(help="Seconds per image.")] = 120.0,
    shared: Annotated[Path, typer.Option(help="Where benchmarks/ and datasets/ lie.")] = SHARED,
    results: Annotated[Path | None, typer.Option(help="Write one CSV row per image.")] = None,
) -> None:
    """Run the benchmark and print the summary."""
    limit_threads(1)
    model = load(shared / "benchmarks/mnist_wk17a/onnx/wk17a_linf0.1.onnx")
    shape = model.network.input_shape
    data = read_data(shared / "datasets/mnist/t10k-images-idx3-ubyte.gz", shape, f"{first}:{first + images}")
    assert data.labels is not None
    rows = []
    for index, x, label in zip(data.indices, data.inputs, data.labels.tolist(), strict=True):
        found = certified_radius(model, x, label, tolerance=tolerance, timeout=timeout)
        decided = robust(model, x, label, epsilon=epsilon, timeout=timeout).verdict
        rows.append(
            (index, label, found.certified, found.adversarial, round(found.seconds, 2), str(decided),
             agreement(found, epsilon, decided))
        )  # fmt: skip
        print(*rows[-1], flush=True)
    closed = sum(row[3] - row[2] <= tolerance for row in rows)
    gaps = sorted(row[3] - row[2] for row in rows)
    agreed = sum(row[-1] == "agrees" for row in rows)
    print(
        f"{closed} of {len(rows)} closed to {tolerance:g}, median gap {gaps[len(gaps) // 2]:.4f}; "
        f"{agreed} agree with the decision at {epsilon:g}, {sum(row[-1] == 'DIFFERS' for row in rows)} differ"
    )
    if results is not None:
        with results.open("w", newline="") as file:
            head = ("image", "label", "certified", "adversarial", "seconds", "decision", "agreement")
            csv.writer(file).writerows([head, *rows])


if __name__ == "__main__":
    typer.run(main)
