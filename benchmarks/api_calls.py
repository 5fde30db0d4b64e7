"""Many calls of the Python API in one process: memory and time per call, for a network of 784-256-256-10.

python -m verifier.benchmarks.api_calls --calls 1000
"""

from __future__ import annotations

import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from verifier.api import load
from verifier.model.network import build
from verifier.model.operators import Input, Linear, Operator, Relu
from verifier.model.read import Model
from verifier.model.write import write
from verifier.options import limit_threads
from verifier.radius.entry import certified_radius

SIZES = (784, 256, 256, 10)


def random_model() -> Model:
    """Loaded from a file that is gone afterwards: nothing can be read again."""
    generator = torch.Generator().manual_seed(0)
    nodes: list[tuple[Operator, tuple[int, ...]]] = [(Input((1, SIZES[0])), ())]
    for n_in, n_out in pairwise(SIZES):
        if len(nodes) > 1:
            nodes.append((Relu(), (len(nodes) - 1,)))
        weight = torch.randn(n_out, n_in, generator=generator).double() / n_in**0.5
        nodes.append((Linear(weight, torch.zeros(n_out, dtype=torch.float64)), (len(nodes) - 1,)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write(build(nodes), path)
        return load(path)


def main(
    calls: Annotated[int, typer.Option(help="How many.")] = 1000,
    timeout: Annotated[float, typer.Option(help="Seconds per call.")] = 0.1,
) -> None:
    """Print the peak memory after every tenth of the calls."""
    limit_threads(1)
    model = random_model()
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    for call in range(1, calls + 1):
        certified_radius(model, rng.uniform(0, 1, SIZES[0]), timeout=timeout)
        if call % max(1, calls // 10) == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            each = (time.perf_counter() - started) / call
            print(f"{call} calls: peak {peak:.0f} MB, {each:.3f} s per call", flush=True)


if __name__ == "__main__":
    typer.run(main)
