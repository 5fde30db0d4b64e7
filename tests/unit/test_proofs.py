"""Proof checkers: true proofs pass, every kind of damage is refused."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import dratify
import numpy as np
import pytest
from pysat.solvers import Solver

from fuzz.gates import random_program, satisfiable
from verifier.binarised.patterns import PatternOptions, search_patterns
from verifier.deadline import Deadline
from verifier.encodings.sat.gates import gate_formula
from verifier.encodings.sat.program import Program
from verifier.errors import ProofError
from verifier.proofs.file import ProofFile, Section, check_section, fingerprint, read_proof
from verifier.proofs.rup import check_rup

NEVER = Deadline.never()


def refuted(seeds: range = range(200)) -> list[tuple[Program, Section]]:
    """Unsatisfiable programs with a proof that needs at least one conflict."""
    found = []
    for seed in seeds:
        program = random_program(seed)
        if satisfiable(program) or len(program.layers[0]) < 2:
            continue
        outcome = search_patterns(program, NEVER, PatternOptions(block=1, samples=1))
        if outcome.rigorous and outcome.conflicts:
            found.append((program, Section(0, fingerprint(program), outcome.conflicts, outcome.order)))
    return found


CASES = refuted()


def test_there_are_cases() -> None:
    assert len(CASES) > 10


def test_pattern_proofs_are_accepted() -> None:
    assert [check_section(section, program, NEVER) for program, section in CASES] == [""] * len(CASES)


def test_missing_conflicts_are_noticed_somewhere() -> None:
    """Without conflicts the exhaustion finds a pattern that satisfies the rows, wherever one was needed."""
    faults = [check_section(dataclasses.replace(s, conflicts=()), p, NEVER) for p, s in CASES]
    assert any("satisfies the asserted rows" in fault for fault in faults)


def test_wrong_multipliers_are_refused() -> None:
    program, section = next((p, s) for p, s in CASES if len(s.conflicts[0].gates) > 1)
    first = section.conflicts[0]
    for multipliers in (np.zeros_like(first.multipliers), -first.multipliers):
        damaged = dataclasses.replace(first, multipliers=multipliers)
        section_ = dataclasses.replace(section, conflicts=(damaged, *section.conflicts[1:]))
        assert "pol step 1 does not follow" in check_section(section_, program, NEVER)
    flipped = dataclasses.replace(first, bits=~first.bits)
    assert check_section(dataclasses.replace(section, conflicts=(flipped,)), program, NEVER)


def test_another_program_is_refused() -> None:
    (program, section), (other, _) = CASES[0], CASES[1]
    assert "another program" in check_section(section, other, NEVER)
    assert check_section(section, program, NEVER) == ""


def test_incomplete_order_is_refused() -> None:
    program, section = CASES[0]
    assert section.order is not None
    damaged = dataclasses.replace(section, order=section.order[1:])
    assert "every gate" in check_section(damaged, program, NEVER)


def drat(program: Program, solver: str) -> tuple[int, list[list[int]], list[str]]:
    formula = gate_formula(program)
    with Solver(solver, bootstrap_with=formula.clauses, with_proof=True) as session:
        assert not session.solve()
        return formula.variables, formula.clauses, session.get_proof()


@pytest.mark.parametrize("solver", ["glucose4", "cadical153"])
def test_solver_proofs_are_accepted(solver: str) -> None:
    for program, _ in CASES[:12]:
        assert check_rup(*drat(program, solver)) == ""


def dimacs(variables: int, clauses: list[list[int]]) -> str:
    lines = [f"p cnf {variables} {len(clauses)}", *(" ".join(map(str, [*clause, 0])) for clause in clauses)]
    return "\n".join(lines) + "\n"


def pigeons(solver: str) -> list[tuple[int, list[list[int]], list[str]]]:
    """4 to 6 pigeons in one hole less, with proofs."""
    found = []
    for count in (4, 5, 6):
        holes = count - 1
        clauses = [[p * holes + h + 1 for h in range(holes)] for p in range(count)]
        pairs = [(p, q) for p in range(count) for q in range(p)]
        clauses += [[-(p * holes + h + 1), -(q * holes + h + 1)] for p, q in pairs for h in range(holes)]
        with Solver(solver, bootstrap_with=clauses, with_proof=True) as session:
            assert not session.solve()
            found.append((count * holes, clauses, session.get_proof()))
    return found


@pytest.mark.parametrize("solver", ["glucose4", "cadical153"])
def test_a_checker_of_other_people_agrees(solver: str) -> None:
    """Proofs whole, and with steps left out: what is accepted here, it accepts (it knows RAT as well as RUP)."""
    accepted, refused = 0, 0
    rng = np.random.default_rng(0)
    for variables, clauses, steps in [*(drat(program, solver) for program, _ in CASES[:12]), *pigeons(solver)]:
        formula = dratify.parse_dimacs(dimacs(variables, clauses))
        for left_out in (0, 1, len(steps) // 2, len(steps)):
            kept = np.sort(rng.permutation(len(steps))[: len(steps) - left_out])
            shorter = [*(steps[i] for i in kept.tolist()), "0"]
            fine = check_rup(variables, clauses, shorter) == ""
            other = dratify.check_proof(formula, "\n".join(shorter) + "\n").ok
            assert other or not fine
            accepted, refused = accepted + (fine and other), refused + (not fine and not other)
    assert accepted >= 12
    assert refused > 3


@pytest.mark.skipif(shutil.which("drat-trim") is None, reason="drat-trim is not installed; dratify is asked above")
@pytest.mark.parametrize("solver", ["glucose4", "cadical153"])
def test_drat_trim_agrees(solver: str, tmp_path: Path) -> None:
    for program, _ in CASES[:12]:
        variables, clauses, steps = drat(program, solver)
        (tmp_path / "f.cnf").write_text(dimacs(variables, clauses))
        (tmp_path / "f.drat").write_text("\n".join(steps) + "\n")
        command = ["drat-trim", str(tmp_path / "f.cnf"), str(tmp_path / "f.drat")]
        assert "s VERIFIED" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


PIGEONS = [[1, 2], [3, 4], [5, 6], [-1, -3], [-1, -5], [-3, -5], [-2, -4], [-2, -6], [-4, -6]]
"""Three pigeons, two holes."""


def test_rup_by_hand() -> None:
    assert check_rup(6, PIGEONS, ["-1 0", "0"]) == ""
    assert "lemma 1 does not follow" in check_rup(6, PIGEONS[1:], ["1 0", "0"])
    assert check_rup(6, PIGEONS, []) == "the steps do not derive the empty clause"
    assert check_rup(6, PIGEONS, ["0"]) == "the steps do not derive the empty clause"


def test_a_deleted_clause_is_gone() -> None:
    assert check_rup(6, PIGEONS, ["d -2 -4 0", "-1 0", "0"])


@pytest.mark.parametrize(
    ("line", "words"), [("1 2", "single 0"), ("1 x 0", "no clause"), ("9 0", "variable"), ("0 1 0", "single 0")]
)
def test_malformed_steps(line: str, words: str) -> None:
    assert words in check_rup(6, PIGEONS, [line])


def test_rup_refuses_lemmas_that_cut_off_models() -> None:
    """On satisfiable formulas no proof may pass: here all lemmas of length one and two are tried."""
    program = next(p for p in map(random_program, range(100)) if satisfiable(p))
    formula = gate_formula(program)
    for a in range(1, formula.variables + 1):
        for sign in (1, -1):
            assert check_rup(formula.variables, formula.clauses, [f"{sign * a} 0", "0"]) != ""


def test_files_survive_a_round_trip(tmp_path: Path) -> None:
    program, section = CASES[0]
    steps = tuple(drat(program, "glucose4")[2])
    other = Section(1, fingerprint(program), whole=True, steps=steps)
    text = ProofFile("ab" * 32, {0: section, 1: other}).text()
    again = read_proof(text, "p")
    assert again.text() == text
    assert [check_section(again.sections[i], program, NEVER) for i in (0, 1)] == ["", ""]


@pytest.mark.parametrize("damage", ["", "nn-verifier proof 1\n", "nn-verifier proof 1\nmodel a\nsection 0\n"])
def test_damaged_files_are_one_sentence(damage: str) -> None:
    with pytest.raises(ProofError, match="proof"):
        read_proof(damage, "the proof")
