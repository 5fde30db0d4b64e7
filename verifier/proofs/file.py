"""Proof files: text, one section per box that intervals alone did not close.

    nn-verifier proof 1
    model SHA256
    section 0 FINGERPRINT          box 0; a digest of its program after presolve
    pol 3*17 -5*4                  conflict: 17 times the row of gate 3 being 1 plus 4 times that of gate 5 being 0
    tabulate 4 2 3 1               the rest by exhaustion, gates in this order            (see ``tabulation``)
    formula later modulo           or: the CNF of the layers behind the first, with the conflicts' clauses,
    1 -7 0                             refuted by these DRUP steps                         (see ``rup``)
    d 1 -7 0
    formula whole pseudo-boolean   or: the program in pseudo-Boolean constraints
    l 1                                refuted by cutting planes                           (see ``cutting_planes``)
    end

Gates and variables count from 1.  ``formula whole FORM`` is the CNF of the whole program, and takes no conflicts.  The
program and the formula are not in the file: the checker makes both from the model and the property.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from verifier.deadline import Deadline
from verifier.encodings.sat.cardinality import COUNTERS
from verifier.encodings.sat.gates import gate_formula, later_formula
from verifier.encodings.sat.program import Program
from verifier.encodings.sat.pseudo_boolean import PSEUDO_BOOLEAN, gate_constraints
from verifier.errors import ProofError
from verifier.proofs.conflict import Conflict, refutes

HEADER = "nn-verifier proof 1"


@dataclass(frozen=True, eq=False)
class Section:
    """Why the program of box ``box`` has no solution.

    order: of the gates, for a proof by exhaustion; None for one in clauses.
    whole: whether the formula is that of the whole program; counter: its form; steps: in DRAT's text form, or VeriPB's
    for the pseudo-Boolean form.
    """

    box: int
    fingerprint: str
    conflicts: tuple[Conflict, ...] = ()
    order: tuple[int, ...] | None = None
    whole: bool = False
    counter: str = "modulo"
    steps: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        yield f"section {self.box} {self.fingerprint}"
        for conflict in self.conflicts:
            signed = np.where(conflict.bits, conflict.gates + 1, -conflict.gates - 1)
            terms = zip(signed.tolist(), conflict.multipliers.tolist(), strict=True)
            yield "pol " + " ".join(f"{gate}*{factor}" for gate, factor in terms)
        if self.order is not None:
            yield "tabulate " + " ".join(str(gate + 1) for gate in self.order)
        else:
            yield f"formula {'whole' if self.whole else 'later'} {self.counter}"
            yield from self.steps
        yield "end"


@dataclass(frozen=True)
class ProofFile:
    model_sha256: str
    sections: dict[int, Section] = field(default_factory=dict)

    def text(self) -> str:
        lines = [HEADER, f"model {self.model_sha256}"]
        for section in self.sections.values():
            lines += section.lines()
        return "\n".join(lines) + "\n"


def fingerprint(program: Program) -> str:
    """A digest of everything in a program."""
    digest = hashlib.sha256()
    for array in (
        program.counts,
        *(
            part
            for rows in (*program.layers, program.asserted)
            for part in (rows.weights.indptr, rows.weights.indices, rows.weights.data, rows.thresholds)
        ),
    ):
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def check_section(section: Section, program: Program, deadline: Deadline) -> str:
    """ "" when the section proves that the program has no solution, otherwise why it does not."""
    if section.fingerprint != fingerprint(program):
        return "it is about another program: another model, property or version of this package"
    first = program.layers[0] if program.layers else None
    for number, conflict in enumerate(section.conflicts, 1):
        if first is None or np.any(conflict.gates >= len(first)) or np.any(conflict.gates < 0):
            return f"pol step {number} names a gate that the program does not have"
        if not refutes(first, program.counts, conflict):
            return f"pol step {number} does not follow"
    if section.order is not None:
        from verifier.proofs.tabulation import all_fail

        return all_fail(program, section.order, section.conflicts, deadline)
    if section.whole and section.conflicts:
        return "a formula of the whole program takes no conflicts"
    if section.counter == PSEUDO_BOOLEAN:
        from verifier.proofs.cutting_planes import check_cutting_planes

        if not section.whole:
            return "the pseudo-Boolean form is of the whole program only"
        formula = gate_constraints(program)
        return check_cutting_planes(formula.variables, formula.constraints, section.steps)
    from verifier.proofs.rup import check_rup

    return check_rup(*formula_clauses(section, program), section.steps)


def formula_clauses(section: Section, program: Program) -> tuple[int, list[list[int]]]:
    """The number of variables and the clauses that the DRUP steps of a section refute."""
    formula = gate_formula(program, section.counter) if section.whole else later_formula(program, section.counter)
    return formula.variables, [*formula.clauses, *(conflict.clause for conflict in section.conflicts)]


def read_proof(text: str, source: str) -> ProofFile:
    """Raises ProofError with the line that is wrong."""
    lines = text.splitlines()
    if len(lines) < 2 or lines[0] != HEADER or not lines[1].startswith("model "):
        raise ProofError(f"{source}: this is no proof file of nn-verifier; it begins with the line {HEADER!r}")
    proof = ProofFile(lines[1].split()[1])
    at = 2
    while at < len(lines):
        try:
            section, at = _section(lines, at)
        except (ValueError, IndexError, KeyError):
            raise ProofError(f"{source}:{at + 1}: the section that begins here is malformed or cut off") from None
        proof.sections[section.box] = section
    return proof


def _section(lines: list[str], at: int) -> tuple[Section, int]:
    word, box, digest = lines[at].split()
    if word != "section":
        raise ValueError(word)
    conflicts: list[Conflict] = []
    order: tuple[int, ...] | None = None
    formula, whole, counter, steps = False, False, "modulo", []
    at += 1
    while lines[at] != "end":
        word, *rest = lines[at].split()
        if formula:
            # Steps of the pseudo-Boolean form have words of their own.
            steps.append(lines[at])
        elif word == "pol":
            pairs = [term.split("*") for term in rest]
            gates = np.array([int(gate) for gate, _ in pairs], np.int64)
            if np.any(gates == 0):
                raise ValueError(rest)
            conflicts.append(Conflict(np.abs(gates) - 1, gates > 0, np.array([int(f) for _, f in pairs], np.int64)))
        elif word == "tabulate":
            order = tuple(int(gate) - 1 for gate in rest)
        elif word == "formula":
            formula = True
            whole, counter = {"whole": True, "later": False}[rest[0]], rest[1]
            if counter not in (*COUNTERS, PSEUDO_BOOLEAN):
                raise ValueError(counter)
        else:
            raise ValueError(word)
        at += 1
    return Section(int(box), digest, tuple(conflicts), order, whole, counter, tuple(steps)), at + 1
