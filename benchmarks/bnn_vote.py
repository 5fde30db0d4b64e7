"""Five networks and one image: can it fool all of them, or the majority of a vote?  Models loaded once.

    python -m verifier.benchmarks.bnn_vote --epsilon 0.5 --way same

The five type-1 networks of bnn_mnist and the first test images of MNIST; the property is "some other class than the
true one scores at least as high".  Seconds are from the property in memory to the verdict.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from verifier.benchmarks.mnist_wk17a import SHARED
from verifier.binarised import pipeline
from verifier.binarised.read import load_binarised
from verifier.binarised.together import Ensemble
from verifier.datasets import read_idx
from verifier.deadline import Deadline
from verifier.verdict import Verdict
from verifier.vnnlib.robustness import robustness

NETWORKS = ("type1_512_512_100", "type1_seed1", "type1_seed2", "type1_seed3", "type1_seed4")


def main(
    epsilon: Annotated[float, typer.Option(help="L-infinity radius.")] = 0.5,
    way: Annotated[str, typer.Option(help="same, any or majority.")] = "same",
    images: Annotated[int, typer.Option(help="How many test images.")] = 20,
    timeout: Annotated[float, typer.Option(help="Seconds per image.")] = 90.0,
    shared: Annotated[Path, typer.Option(help="Where benchmarks/ and datasets/ lie.")] = SHARED,
) -> None:
    """Run and print a line per image and the mean."""
    models = []
    for name in NETWORKS:
        model, reason = load_binarised(shared / f"benchmarks/bnn_mnist/onnx/{name}.onnx")
        assert model is not None, reason
        models.append(model)
    ensemble = Ensemble(models)
    pictures = read_idx(shared / "datasets/mnist/t10k-images-idx3-ubyte.gz")
    labels = read_idx(shared / "datasets/mnist/t10k-labels-idx1-ubyte.gz")
    outcomes: Counter[Verdict] = Counter()
    seconds, cpu = [], []
    for index in range(images):
        x = (pictures[index].reshape(-1) / np.float32(255)).astype(np.float64)
        spec = robustness(x, epsilon=epsilon, label=int(labels[index]), n_outputs=10, bounds=(0.0, 1.0))
        started, used = time.perf_counter(), time.process_time()
        result, _ = pipeline.solve_all(ensemble.queries(spec, way), Deadline.after(timeout))
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
        outcomes[result.verdict] += 1
        typer.echo(f"image {index:3}  {result.verdict:8} {seconds[-1]:8.3f}  {result.message}")
    typer.echo(
        f"epsilon {epsilon:g}, {way}: {dict(outcomes)}, mean {np.mean(seconds):.4f} s "
        f"({np.mean(cpu):.4f} s of the processor), max {max(seconds):.3f} s"
    )


if __name__ == "__main__":
    typer.run(main)
