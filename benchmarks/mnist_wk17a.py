"""Certified accuracy of the Wong-Kolter network on MNIST: the benchmark that MIPVerify publishes.

    python -m verifier.benchmarks.mnist_wk17a --images 100 --timeout 120 --results wk17a.csv

For every image: misclassified, certified (with what the proof rests on), adversarial (with a replayed witness), or
undecided; and the seconds it took, model loading excluded (the model is loaded once).
"""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from verifier.api import prepare
from verifier.datasets import read_idx
from verifier.deadline import Deadline
from verifier.model.read import load
from verifier.options import limit_threads
from verifier.pipeline import Options, solve
from verifier.verdict import Verdict
from verifier.vnnlib.robustness import robustness

SHARED = Path(__file__).resolve().parents[2] / "shared"
OUTCOMES = {Verdict.UNSAT: "certified", Verdict.SAT: "adversarial"}


def main(
    images: Annotated[int, typer.Option(help="How many test images, from the first.")] = 100,
    first: Annotated[int, typer.Option(help="Where to start.")] = 0,
    epsilon: Annotated[float, typer.Option(help="L-infinity radius.")] = 0.1,
    timeout: Annotated[float, typer.Option(help="Seconds per image.")] = 120.0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    shared: Annotated[Path, typer.Option(help="Where benchmarks/ and datasets/ lie.")] = SHARED,
    results: Annotated[Path | None, typer.Option(help="Write one CSV row per image.")] = None,
) -> None:
    """Run the benchmark and print the summary."""
    limit_threads(threads)
    model = load(shared / "benchmarks/mnist_wk17a/onnx/wk17a_linf0.1.onnx")
    pictures = read_idx(shared / "datasets/mnist/t10k-images-idx3-ubyte.gz")
    labels = read_idx(shared / "datasets/mnist/t10k-labels-idx1-ubyte.gz")
    outcomes: Counter[str] = Counter()
    rows = []
    for index in range(first, first + images):
        x = (pictures[index].reshape(-1) / np.float32(255)).astype(np.float32).astype(np.float64)
        label = int(labels[index])
        started = time.perf_counter()
        if int(np.argmax(model.replay.run(x))) != label:
            outcome, method = "misclassified", ""
        else:
            spec = robustness(x, epsilon, label, 10, (0.0, 1.0))
            result = solve(prepare(model, spec), Deadline.after(timeout), Options(threads=threads))
            outcome = OUTCOMES.get(result.verdict, "undecided")
            method = "; ".join(result.evidence.methods) if result.evidence else ""
        seconds = time.perf_counter() - started
        outcomes[outcome] += 1
        rows.append((index, label, outcome, method, f"{seconds:.3f}"))
        print(*rows[-1], flush=True)
    total = sum(float(row[-1]) for row in rows)
    print(dict(outcomes), f"mean {total / len(rows):.2f} s per image, longest {max(float(r[-1]) for r in rows):.1f} s")
    if results is not None:
        with results.open("w", newline="") as file:
            csv.writer(file).writerows([("image", "label", "outcome", "method", "seconds"), *rows])


if __name__ == "__main__":
    typer.run(main)
