"""Start-up: the wall time of ``verify`` on an easy property against that of importing torch and onnxruntime.

    python -m verifier.benchmarks.startup --runs 7

The two are run in turns, so that a machine that is busy is busy for both; the medians and their ratio are printed.
The bar is 1.5 times the imports plus half a second.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

DIGITS = Path(__file__).resolve().parent / "digits"


def main(runs: Annotated[int, typer.Option(help="Runs of each.")] = 7) -> None:
    """Measure and print."""
    imports = [sys.executable, "-c", "import torch, onnxruntime"]
    verify = [sys.executable, "-m", "verifier.cli", str(DIGITS / "onnx/mlp.onnx"), str(DIGITS / "demo_unsat.vnnlib")]
    seconds: dict[str, list[float]] = {"imports": [], "verify": []}
    for _ in range(runs + 1):
        for name, command in (("imports", imports), ("verify", verify)):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    # The first round warms the file cache.
    base, whole = (statistics.median(seconds[name][1:]) for name in ("imports", "verify"))
    print(f"imports {base:.2f} s, verify {whole:.2f} s, ratio {whole / base:.2f}, bar {1.5 * base + 0.5:.2f} s")


if __name__ == "__main__":
    typer.run(main)
