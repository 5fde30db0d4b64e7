"""``verify check-evidence MODEL SPEC FILE``: replay what verify --evidence wrote, with bounds of the checker's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verifier.deadline import Deadline
from verifier.errors import InputError

if TYPE_CHECKING:
    from verifier.evidence.check import Replayed


def check_evidence(
    model: Annotated[Path, typer.Argument(help="ONNX file, plain or .gz.")],
    spec: Annotated[Path, typer.Argument(help="VNN-LIB file, plain or .gz.")],
    evidence: Annotated[Path, typer.Argument(help="File that verify --evidence wrote.")],
    timeout: Annotated[float, typer.Option(help="Seconds for the check.")] = 3600.0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Write a line per second to stderr.")] = False,
) -> None:
    """Does EVIDENCE prove what it says about MODEL and SPEC?

    Prints accepted, or partly where something rests on a solver's word or remained open; refuses with exit code 2.
    """
    from verifier.api import check_evidence as replay
    from verifier.options import positive_seconds
    from verifier.report.live import LiveLine

    try:
        with LiveLine(Deadline.after(positive_seconds(timeout)), verbose) as line:
            found = replay(model, spec, evidence, timeout, line)
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    typer.echo("\n".join(lines(found)))


def lines(found: Replayed) -> list[str]:
    """What was replayed, a fact a line; the verdict on the file first."""
    complete = found.verdict == "sat" or (found.verdict == "unsat" and not found.unexplained)
    text = [f"accepted: {found.verdict}" if complete else f"partly: {found.verdict}"]
    if found.verdict == "sat":
        text.append("  onnxruntime confirms the counterexample")
    for kind, count in found.closed.items():
        leaves = f", {found.leaves[kind]:,} leaves" if kind in found.leaves else ""
        text.append(f"  {kind}: {_disjuncts(count)} closed{leaves}")
    for name in sorted(set(found.unexplained.values())):
        count = list(found.unexplained.values()).count(name)
        text.append(f"  {name}: {_disjuncts(count)} closed by the run itself, which no file can replay")
    for position, gaps in list(found.open.items())[:10]:
        text.append(f"  disjunct {position + 1}: open" + ("" if gaps is None else f", {gaps:,} regions without a leaf"))
    return text


def _disjuncts(count: int) -> str:
    return "1 disjunct" if count == 1 else f"{count:,} disjuncts"
