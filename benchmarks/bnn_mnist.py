"""Verdicts and seconds on the binarised MNIST networks, models loaded once.

    python -m verifier.benchmarks.bnn_mnist --filter t2_eps0.05 --results t2.csv
    python -m verifier.benchmarks.bnn_mnist --filter a3 --engine cp-sat

Seconds are from the property in memory to the verdict: levels, goals, attack, presolve, engines, replay.  A verdict
that contradicts the reference is printed as WRONG and makes the exit code 1.  Of what stays open the best bounds are
printed: for every disjunct that is left the smallest margin that may exist and the smallest that was seen; a
counterexample has one of at most 0.
"""

from __future__ import annotations

import csv
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from verifier.binarised import pipeline
from verifier.binarised.query import BinarisedModel
from verifier.binarised.read import load_binarised
from verifier.deadline import Deadline
from verifier.verdict import Result, Verdict
from verifier.vnnlib.read import read

SHARED = Path(__file__).resolve().parents[2] / "shared"
DECIDED = (Verdict.SAT, Verdict.UNSAT)


def main(
    pattern: Annotated[str, typer.Option("--filter", help="Only properties whose name matches this.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds per instance.")] = 90.0,
    engine: Annotated[str, typer.Option(help="As for verify.")] = "auto",
    prove: Annotated[bool, typer.Option("--prove", help="With proofs, checked within the limit.")] = False,
    folder: Annotated[Path, typer.Option(help="Where instances.csv lies.")] = SHARED / "benchmarks/bnn_mnist",
    results: Annotated[Path | None, typer.Option(help="Append one CSV row per instance.")] = None,
) -> None:
    """Run, print a line per instance and a summary per family."""
    with (folder / "instances.csv").open() as file:
        instances = [(row[0], row[1]) for row in csv.reader(file) if re.search(pattern, row[1])]
    known = {}
    if (folder / "reference.csv").exists():
        with (folder / "reference.csv").open() as file:
            known = {row["vnnlib"]: row["verdict"] for row in csv.DictReader(file)}
    options = pipeline.Options(engine=engine, keep_proof=(lambda proof: None) if prove else None)
    models: dict[str, BinarisedModel] = {}
    families: dict[str, list[tuple[Verdict, float]]] = defaultdict(list)
    left: list[tuple[str, Result]] = []
    wrong = 0
    for onnx, vnnlib in instances:
        if onnx not in models:
            model, reason = load_binarised(folder / onnx)
            if model is None:
                raise typer.BadParameter(f"{onnx} is no binarised network: {reason}")
            models[onnx] = model
        spec = read(folder / vnnlib)
        started = time.perf_counter()
        query = pipeline.prepare(models[onnx], spec)
        result = pipeline.solve(query, Deadline.after(timeout), options)
        seconds = time.perf_counter() - started
        name = Path(vnnlib).name.removesuffix(".gz").removesuffix(".vnnlib")
        reference = known.get(vnnlib, "unknown")
        contradicts = result.verdict in DECIDED and reference in DECIDED and reference != result.verdict
        wrong += contradicts
        methods = "" if result.evidence is None else f"{result.evidence.level}: {', '.join(result.evidence.methods)}"
        typer.echo(f"{name:24} {result.verdict:8} {seconds:8.3f}  {methods or result.message}{'  WRONG' * contradicts}")
        if result.verdict not in DECIDED:
            left.append((name, result))
        families[name.rsplit("_", 1)[0]].append((result.verdict, seconds))
        if prove and (checked := result.statistics.counts.get("seconds of checking the proof")) is not None:
            typer.echo(f"{'':24} of these {checked:.3f} for checking the proof")
        if results is not None:
            with results.open("a") as file:
                csv.writer(file).writerow([onnx, vnnlib, result.verdict, f"{seconds:.4f}", methods])
    typer.echo("family                    sat  unsat  open     mean      max")
    for family, outcomes in families.items():
        count = {verdict: sum(v == verdict for v, _ in outcomes) for verdict in DECIDED}
        times = [seconds for _, seconds in outcomes]
        open_ = len(outcomes) - sum(count.values())
        typer.echo(
            f"{family:24} {count[Verdict.SAT]:4} {count[Verdict.UNSAT]:6} {open_:5} "
            f"{sum(times) / len(times):8.3f} {max(times):8.3f}"
        )
    if left:
        typer.echo("open                     disjuncts  best seen  margins from .. to, disjunct by disjunct")
    for name, result in left:
        still = [(number, bound) for number, bound in enumerate(result.bounds, 1) if bound.level is None]
        ranges = "  ".join(f"{number}: {bound.lower:g} .. {bound.upper:g}" for number, bound in still)
        nearest = min(bound.upper for _, bound in still)
        typer.echo(f"{name:24} {len(still):3} of {len(result.bounds):2} {nearest:10g}  {ranges}")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
