"""How often and how fast the attack finds the known counterexamples of VNN-COMP 2021.

    python -m verifier.benchmarks.falsify_rate [--seeds 3] [--waves 2] [category ...]

Reads ``reference.csv`` of every category, takes the instances that are ``sat``, and attacks each with every seed.
Loading is not counted; the seconds are those of ``attack``, replays included.  One line per instance.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.falsify.attack import AttackOptions, attack
from verifier.model.read import load
from verifier.query import Query
from verifier.vnnlib.read import read

SUITES = Path(__file__).resolve().parents[2] / "shared" / "benchmarks" / "vnncomp2021"
CATEGORIES = ("acasxu", "mnistfc", "cifar10_resnet", "oval21", "verivital", "test")


def main() -> None:
    """Attack, print, and sum up by category."""
    parser = argparse.ArgumentParser(description="Success rate and speed of the attack on known sat instances.")
    parser.add_argument("categories", nargs="*", default=CATEGORIES)
    parser.add_argument("--root", type=Path, default=SUITES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--waves", type=int, default=AttackOptions.waves)
    parser.add_argument("--work", type=float, default=AttackOptions.work)
    parser.add_argument("--steps", type=int, default=AttackOptions.steps)
    parser.add_argument("--seconds", type=float, default=60.0, help="deadline of one attack")
    arguments = parser.parse_args()
    for category in arguments.categories:
        runs = [
            run
            for onnx, vnnlib in sat_instances(arguments.root / category)
            for run in measure(arguments.root / category, onnx, vnnlib, arguments)
        ]
        found = [seconds for success, seconds in runs if success]
        if runs:
            spent = sum(seconds for _, seconds in runs)
            print(
                f"{category}: found {len(found)} of {len(runs)} runs, {spent:.2f} s in all, "
                f"slowest success {max(found, default=0.0):.3f} s\n"
            )


def sat_instances(folder: Path) -> list[tuple[str, str]]:
    """Model and property of every instance known to be sat (a minority's doubt included)."""
    with (folder / "reference.csv").open(newline="") as file:
        return [(row["onnx"], row["vnnlib"]) for row in csv.DictReader(file) if row["verdict"] in ("sat", "sat?")]


def measure(folder: Path, onnx: str, vnnlib: str, arguments: argparse.Namespace) -> list[tuple[bool, float]]:
    """Whether a witness was found and the seconds it took, for every seed."""
    try:
        model = load(folder / onnx)
        query = Query.of(model.network, read(folder / vnnlib), model.replay)
    except InputError as error:
        print(f"skipped  {error}")
        return []
    runs = []
    for seed in range(arguments.seeds):
        options = AttackOptions(seed, arguments.waves, arguments.steps, arguments.work)
        begun = time.perf_counter()
        outcome = attack(query, Deadline.after(arguments.seconds), options)
        runs.append((outcome.witness is not None, time.perf_counter() - begun))
    marks = " ".join(f"{'found' if success else 'MISSED'} {seconds:.3f}" for success, seconds in runs)
    print(f"{marks}  {Path(onnx).name} {Path(vnnlib).name}", flush=True)
    return runs


if __name__ == "__main__":
    main()
