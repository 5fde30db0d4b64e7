"""``verify check-proof PROOF MODEL SPEC``: check a kept proof again, from the model and the property alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.deadline import Deadline
from verifier.errors import InputError, ProofError


def check_proof(
    proof: Annotated[Path, typer.Argument(help="File that verify --proof wrote.")],
    model: Annotated[Path, typer.Argument(help="ONNX file of a binarised network, plain or .gz.")],
    spec: Annotated[Path, typer.Argument(help="VNN-LIB file, plain or .gz.")],
    timeout: Annotated[float, typer.Option(help="Seconds for the check.")] = 600.0,
    also: Annotated[
        list[Path] | None, typer.Option("--model", help="The other networks, where several were taken together.")
    ] = None,
    together: Annotated[str, typer.Option(help="How, as for verify.")] = "same",
    export: Annotated[
        Path | None,
        typer.Option(help="Folder for formulas and steps, as DIMACS and DRAT or OPB and VeriPB."),
    ] = None,
) -> None:
    """Does PROOF show that no input in SPEC's region satisfies it?  Prints accepted, or why not with exit code 2."""
    try:
        for line in checked(proof, [model, *(also or [])], spec, Deadline.after(timeout), together, export):
            typer.echo(line)
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None


def checked(
    proof: Path, models: list[Path], spec: Path, deadline: Deadline, together: str, export: Path | None
) -> list[str]:
    """What was accepted, a line each.  Raises InputError."""
    from verifier.binarised.presolve import presolve
    from verifier.binarised.query import prepare
    from verifier.binarised.read import load_binarised
    from verifier.binarised.together import Ensemble
    from verifier.proofs.file import check_section, read_proof
    from verifier.vnnlib.read import read

    try:
        kept = read_proof(proof.read_text(encoding="ascii"), str(proof))
    except (OSError, UnicodeDecodeError) as error:
        raise ProofError(f"{proof} cannot be read ({error}); name a file that verify --proof wrote") from None
    networks = []
    for path in models:
        loaded, reason = load_binarised(path)
        if loaded is None:
            raise ProofError(
                f"{path} is no binarised network, and only these have proofs" + (reason and f" ({reason})")
            )
        networks.append(loaded)
    if len(networks) == 1:
        query = prepare(networks[0], read(spec))
    else:
        # The last query alone decides; the ones before it are only attacked.
        *_, query = Ensemble(networks).queries(read(spec), together)
    lines = ["accepted"]
    for number, box in enumerate(query.boxes):
        reduced = presolve(box)
        if reduced.program is None:
            lines.append(f"  box {number + 1}: all {len(box.goals)} disjuncts closed by integer intervals")
            continue
        if number not in kept.sections:
            raise ProofError(f"{proof} has no section for box {number + 1} of the property; it is about another one")
        section = kept.sections[number]
        if fault := check_section(section, reduced.program, deadline):
            raise ProofError(f"{proof}, box {number + 1}: {fault}")
        way = "exhaustion" if section.order is not None else f"{len(section.steps)} steps"
        lines.append(f"  box {number + 1}: {reduced.program.size}; {len(section.conflicts)} conflicts, {way}")
        if export is not None and section.order is not None:
            lines.append(
                "    nothing to export: no clauses, the conflicts and the exhaustion are for this checker only"
            )
        elif export is not None:
            _export(export, number, section, reduced.program)
    return lines


def _export(folder: Path, number: int, section: object, program: object) -> None:
    """Write the formula and the steps of one box."""
    from verifier.encodings.sat.program import Program
    from verifier.encodings.sat.pseudo_boolean import PSEUDO_BOOLEAN, gate_constraints
    from verifier.proofs.file import Section, formula_clauses
    from verifier.report.outputs import check_writable, write_whole

    assert isinstance(section, Section)
    assert isinstance(program, Program)
    steps = "\n".join(section.steps) + "\n"
    if section.counter == PSEUDO_BOOLEAN:
        files = {"opb": gate_constraints(program).opb(), "pbp": steps}
    else:
        variables, clauses = formula_clauses(section, program)
        lines = [f"p cnf {variables} {len(clauses)}", *(" ".join(map(str, [*clause, 0])) for clause in clauses)]
        files = {"cnf": "\n".join(lines) + "\n", "drat": steps}
    for name, text in files.items():
        path = folder / f"box{number + 1}.{name}"
        check_writable(path)
        write_whole(path, text)
