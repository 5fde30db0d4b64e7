"""How the searches scale: regions per second against batch size and threads, and where the time goes.

    python -m verifier.benchmarks.scaling --seconds 5 --case "mnistfc 256x4 prop_0 0.03"

Prints tables in Markdown, for PERFORMANCE.md.  A batch size is measured once the frontier is large enough to fill it.
The profile groups the time inside functions by the file they stand in, and that inside torch and numpy by function.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
import typer

from verifier.benchmarks.search_cases import INPUT_CASES, RELU_CASES, SUITES, Prepared, prepared, read_case, relu_search
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.search.input_split import InputSplitting
from verifier.search.refining_split import RefineOptions, RefiningSplitting
from verifier.search.relu_split import ReluSplitting

Search = ReluSplitting | RefiningSplitting | InputSplitting

RELU_BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
REFINING_BATCHES = (1, 2, 4, 8, 16)
THREADS = (1, 2)
WARM_UP = 4.0
"""Seconds, at most, in which a search fills its frontier before it is measured, in units of those measured."""
LINES, LEAST_SHARE = 14, 0.005
PACKAGES = ("verifier", "bounds", "vnnlib", "encodings", "benchmarks")


def refining_search(case: Prepared, batch: int) -> RefiningSplitting:
    return RefiningSplitting(case.query, case.nodes, case.slopes, RefineOptions(largest_batch=batch, most_bytes=2**34))


def rate(search: Search, seconds: float, batch: int = 1) -> str:
    """Regions per second once the frontier holds a batch; with a note where the search ended before."""
    end = Deadline.after(WARM_UP * seconds)
    outcome = search.work(Deadline.after(0))
    while not search.exhausted and outcome.witness is None and not end.expired:
        outcome = search.work(end.within(seconds / 20))
        if outcome.open >= batch:
            break
    if search.exhausted or outcome.witness is not None:
        return f"decided after {outcome.regions}"
    before, begun = outcome.regions, time.perf_counter()
    outcome = search.work(Deadline.after(seconds))
    found = (outcome.regions - before) / (time.perf_counter() - begun)
    note = " (decided)" if search.exhausted else " (batches not full)" if outcome.open < batch else ""
    return f"{found:,.0f}{note}"


def batches(case: Prepared, seconds: float) -> None:
    """Tables of regions per second against batch size."""
    print("\n| ReLU splitting: regions split at once | regions/s |\n| --- | --- |")
    for batch in RELU_BATCHES:
        print(f"| {batch} | {rate(relu_search(case, batch), seconds, batch)} |", flush=True)
    print("\n| refining ReLU splitting: regions split at once | regions/s |\n| --- | --- |")
    for batch in REFINING_BATCHES:
        print(f"| {batch} | {rate(refining_search(case, batch), seconds, batch)} |", flush=True)


def threads(case: Prepared, inputs: str, root: Path, seconds: float) -> None:
    """A table of regions per second against torch's threads.  Input splitting's kernel runs on one thread."""
    print("\n| threads | ReLU splitting, batches of 1,024 | refining | input splitting |\n| --- | --- | --- | --- |")
    query = read_case(root, *INPUT_CASES[inputs])
    for count in THREADS:
        torch.set_num_threads(count)
        found = (
            rate(relu_search(case, 1024), seconds, 1024),
            rate(refining_search(case, RefineOptions.largest_batch), seconds),
            rate(InputSplitting(query), seconds),
        )
        print(f"| {count} | " + " | ".join(found) + " |", flush=True)
    torch.set_num_threads(1)


def profile(name: str, search: Search, seconds: float) -> None:
    """A table of the shares of time."""
    search.work(Deadline.after(seconds / 4))
    if search.exhausted:
        print(f"\n{name}: decided before it could be profiled")
        return
    profiler = cProfile.Profile()
    profiler.enable()
    search.work(Deadline.after(seconds))
    profiler.disable()
    shares: Counter[str] = Counter()
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        shares[group(file, function)] += own
    total = shares.total()
    print(f"\n| {name}: time inside | share |\n| --- | --- |")
    for label, own in [share for share in shares.most_common(LINES) if share[1] >= LEAST_SHARE * total]:
        print(f"| {label} | {100 * own / total:.1f} % |")


def group(file: str, function: str) -> str:
    """Our files by path, the built-in functions of libraries by name, other files by their package."""
    path = Path(file)
    root = Path(__file__).resolve().parents[1]
    if path.is_relative_to(root) and path.relative_to(root).parts[0] in PACKAGES:
        return f"`{path.relative_to(root)}`"
    if file == "~":
        name, _, owner = function.strip("<>").removeprefix("built-in ").removeprefix("method ").partition(" of ")
        return f"{owner.strip(chr(39)).split('.')[0]}.{name.strip(chr(39))}" if owner else name
    parts = path.parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else f"Python's {path.name}"


def main(
    case: Annotated[str, typer.Option(help="Instance for the ReLU searches, by its label.")] = next(iter(RELU_CASES)),
    inputs: Annotated[str, typer.Option(help="Instance for input splitting.")] = list(INPUT_CASES)[-1],
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 5.0,
    root: Annotated[Path, typer.Option(help="Folder with the suites.")] = SUITES,
) -> None:
    """Measure and print."""
    for label, known in ((case, RELU_CASES), (inputs, INPUT_CASES)):
        if label not in known:
            raise InputError(f"there is no instance {label!r}; choose one of {', '.join(map(repr, known))}")
    torch.set_num_threads(1)
    ready = prepared(read_case(root, *RELU_CASES[case]))
    print(f"ReLU searches on {case}, input splitting on {inputs}; {seconds:g} s each")
    batches(ready, seconds)
    threads(ready, inputs, root, seconds)
    profile("ReLU splitting", relu_search(ready, 1024), seconds)
    profile("refining ReLU splitting", refining_search(ready, RefineOptions.largest_batch), seconds)
    profile("input splitting", InputSplitting(read_case(root, *INPUT_CASES[inputs])), seconds)


if __name__ == "__main__":
    typer.run(main)
