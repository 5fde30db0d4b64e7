"""One ball around an image of MNIST for the Wong-Kolter network: how long hull planes take to decide it.

python -m verifier.benchmarks.ball_wk17a --index 9 --radius 0.152
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from verifier.api import load
from verifier.datasets import read_data
from verifier.deadline import Deadline
from verifier.options import limit_threads
from verifier.radius.balls import Balls
from verifier.radius.incumbent import Incumbent
from verifier.radius.question import question
from verifier.radius.record import Record

SHARED = Path(__file__).resolve().parents[2] / "shared"


def main(
    index: Annotated[str, typer.Option(help="Which test image.")] = "9",
    radius: Annotated[float, typer.Option(help="Of the ball, in linf.")] = 0.152,
    timeout: Annotated[float, typer.Option(help="Seconds of search.")] = 120.0,
    runs: Annotated[int, typer.Option(help="The first one compiles, or loads what was compiled.")] = 2,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    shared: Annotated[Path, typer.Option(help="Where benchmarks/ and datasets/ lie.")] = SHARED,
) -> None:
    """Print whether the ball holds, the seconds with and without the relaxation's making, and the regions."""
    limit_threads(threads)
    model = load(shared / "benchmarks/mnist_wk17a/onnx/wk17a_linf0.1.onnx")
    data = read_data(shared / "datasets/mnist/t10k-images-idx3-ubyte.gz", model.network.input_shape, index)
    assert data.labels is not None
    asked = question(model, data.inputs[0], int(data.labels[0]))
    for _ in range(runs):
        balls = Balls(asked, Record(Incumbent(asked)), torch.Generator().manual_seed(0))
        begun = time.monotonic()
        search = balls.search(radius, Deadline.never())
        if search is None:
            raise SystemExit("the network is too large for hull planes")
        made = time.monotonic()
        closed = search.work(Deadline.after(timeout))
        ended = time.monotonic()
        print(
            f"{'holds' if closed else 'open'}: {ended - begun:.2f} s, of which {ended - made:.2f} s for "
            f"{search.regions} regions; roots {search.roots.min():.3f} to {search.roots.max():.3f}"
        )


if __name__ == "__main__":
    typer.run(main)
