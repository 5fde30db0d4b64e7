"""What covering rounding errors costs a search: regions per second with and without, in paired runs.

    python -m verifier.benchmarks.rigour_cost --seconds 10 --rounds 3

ReLU splitting, without: regions are closed by the float32 evaluation of the slopes and multipliers that the ascent
found, in place of the float64 one with its error bounds.  Input splitting, without: a copy of the compiled loop in
which ``triangular._account`` finds no error.
Nobody should use either to prove anything: the variants live here alone.

Rounds alternate between the two, so that a machine that is busy is busy for both; medians are printed.  The bars: at
most 25 % for ReLU splitting and 50 % for input splitting.
"""

from __future__ import annotations

import importlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
import typer
from torch import Tensor

from verifier.benchmarks.search_cases import (
    INPUT_CASES,
    RELU_CASES,
    SUITES,
    prepared,
    read_case,
    relu_search,
    replaced,
)
from verifier.bounds.beta_crown import AscentOptions, RegionBounds, Root, Rows, Splits, ascended, evaluate
from verifier.bounds.crown import LinearBound
from verifier.deadline import Deadline
from verifier.query import Query
from verifier.search import box_loop, input_split, relu_split, triangular, zonotope_kernel

BATCH = 256
"""Regions that ReLU splitting splits at once, the same for both variants: left alone they may settle on others."""

Run = Callable[[float], tuple[int, float, bool]]
"""From a number of seconds to regions visited, seconds used, and whether the search came to its end."""


def float32_bounds(
    root: Root,
    rows: Rows,
    splits: Splits,
    options: AscentOptions,
    least: Callable[[LinearBound], Tensor] | None = None,
) -> RegionBounds:
    """As ``beta_crown.bound_regions``, with no float64 and no error bounds anywhere: proves nothing."""
    found = evaluate(root.fast, rows.float(), ascended(root, rows, splits, options), least)
    return replace(found, lower=found.lower.double(), points=found.points.double())


def careless_loop(folder: Path) -> ModuleType:
    """A copy of ``box_loop`` in which nothing is widened and no row errs: proves nothing."""
    names = {
        module.__name__: f"careless_{module.__name__.rpartition('.')[2]}" for module in (triangular, zonotope_kernel)
    }
    sys.path.insert(0, str(folder))
    for module in (triangular, zonotope_kernel, box_loop):
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        for name, careless in names.items():
            text = text.replace(f"from {name} import", f"from {careless} import")
        text = re.sub(r"    _account\(.*\)\n", "    widen[:] = 0.0\n    row_error[:] = 0.0\n", text)
        (folder / f"careless_{module.__name__.rpartition('.')[2]}.py").write_text(text, encoding="utf-8")
    return importlib.import_module("careless_box_loop")


def relu_runs(query: Query) -> dict[str, Run]:
    """ReLU splitting, with and without care for rounding."""
    case = prepared(query)

    def run(seconds: float) -> tuple[int, float, bool]:
        return timed(relu_search(case, BATCH), seconds)

    def careless(seconds: float) -> tuple[int, float, bool]:
        with replaced(relu_split, "bound_regions", float32_bounds):
            return run(seconds)

    return {"with": run, "without": careless}


def input_runs(query: Query, careless_copy: ModuleType) -> dict[str, Run]:
    """Input splitting, with and without care for rounding."""
    careless_root = sys.modules["careless_triangular"].root_system

    def run(seconds: float) -> tuple[int, float, bool]:
        return timed(input_split.InputSplitting(query), seconds)

    def careless(seconds: float) -> tuple[int, float, bool]:
        with replaced(box_loop, "search", careless_copy.search), replaced(triangular, "root_system", careless_root):
            return timed(input_split.InputSplitting(query), seconds)

    return {"with": run, "without": careless}


def timed(search: relu_split.ReluSplitting | input_split.InputSplitting, seconds: float) -> tuple[int, float, bool]:
    """Let a fresh search work."""
    begun = time.perf_counter()
    outcome = search.work(Deadline.after(seconds))
    return outcome.regions, time.perf_counter() - begun, search.exhausted or outcome.witness is not None


def measure(label: str, runs: dict[str, Run], seconds: float, rounds: int) -> None:
    """One line: medians of both, and the cost."""
    for run in runs.values():
        run(min(seconds, 1.0))  # compiles and warms up
    rates: dict[str, list[float]] = {name: [] for name in runs}
    ends = {}
    for _ in range(rounds):
        for name, run in runs.items():
            regions, used, ended = run(seconds)
            rates[name].append(regions / used)
            ends[name] = f"{regions} in {used:.1f} s" + ("" if ended else ", cut off")
    rate = {name: statistics.median(found) for name, found in rates.items()}
    cost = rate["without"] / rate["with"] - 1
    print(
        f"{label:45}{rate['with']:12.0f}{rate['without']:12.0f}{100 * cost:9.0f} %   "
        f"{ends['with']} / {ends['without']}",
        flush=True,
    )


def main(
    seconds: Annotated[float, typer.Option(help="Of each run, at most.")] = 10.0,
    rounds: Annotated[int, typer.Option(help="Runs of each variant.")] = 3,
    root: Annotated[Path, typer.Option(help="Folder with the suites.")] = SUITES,
    threads: Annotated[int, typer.Option(help="For torch.")] = 1,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    print(f"{'':45}{'with':>12}{'without':>12}{'cost':>11}   regions per second; the last runs")
    for label, names in RELU_CASES.items():
        measure(f"ReLU splitting, {label}", relu_runs(read_case(root, *names)), seconds, rounds)
    with tempfile.TemporaryDirectory() as folder:
        careless_copy = careless_loop(Path(folder))
        for label, names in INPUT_CASES.items():
            query = read_case(root, *names)
            measure(f"input splitting, {label}", input_runs(query, careless_copy), seconds, rounds)


if __name__ == "__main__":
    typer.run(main)
