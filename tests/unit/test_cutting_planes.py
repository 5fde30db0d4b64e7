"""Pseudo-Boolean forms and the checker of cutting-planes proofs: true proofs pass, false steps never do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fuzz.gates import random_program, satisfiable
from verifier.deadline import Deadline
from verifier.encodings.sat.pseudo_boolean import PSEUDO_BOOLEAN, Constraint, gate_constraints, normal
from verifier.proofs.cutting_planes import check_cutting_planes
from verifier.proofs.file import Section, check_section, fingerprint

PIGEONS = [
    *(Constraint((1, 1), (a, a + 1), 1) for a in (1, 3, 5)),
    Constraint((1, 1, 1), (-1, -3, -5), 2),
    Constraint((1, 1, 1), (-2, -4, -6), 2),
]
"""Three pigeons, two holes: clauses need many steps, sums one."""
LOAD = [f"l {i}" for i in range(1, 6)]


def holds(constraint: Constraint, values: tuple[bool, ...]) -> bool:
    true = [values[abs(literal) - 1] == (literal > 0) for literal in constraint.literals]
    return sum(a for a, t in zip(constraint.coefficients, true, strict=True) if t) >= constraint.degree


@pytest.mark.parametrize("seed", range(60))
def test_constraints_have_exactly_the_programs_solutions(seed: int) -> None:
    program = random_program(seed)
    formula = gate_constraints(program)
    for levels in itertools.product(*(range(count + 1) for count in program.counts.tolist())):
        point = np.array(levels)
        bits = [bool(bit) for layer in program.bits(point[None]) for bit in layer[0]]
        order = [j < level for count, level in zip(program.counts.tolist(), levels, strict=True) for j in range(count)]
        values = (*order, *bits)
        assert len(values) == formula.variables
        assert np.array_equal(formula.decode([int(value) for value in values]), point)
        assert all(holds(c, values) for c in formula.constraints) is bool(program.holds(point[None])[0])
        for place in range(len(order), len(values)):
            flipped = (*values[:place], not values[place], *values[place + 1 :])
            assert not all(holds(c, flipped) for c in formula.constraints), "a bit is what its gate says"


def test_order_literals_allow_levels_only() -> None:
    """Every neighbouring pair is chained: no gap, and no level is lost."""
    program = random_program(5)
    formula = gate_constraints(program)
    levels = sum(len(order) for order in formula.levels)
    chains = [c for c in formula.constraints if max(map(abs, c.literals)) <= levels and c.degree == 1]
    for order in formula.levels:
        assert sum(set(map(abs, c.literals)) <= set(order) for c in chains if len(c.literals) == 2) >= len(order) - 1


def test_normal_form() -> None:
    assert normal([(2, 1), (-3, 2), (0, 3)], 1) == Constraint((2, 3), (1, -2), 4)


@pytest.mark.parametrize(
    "steps",
    [
        ["pol 1 2 + 3 + 4 + 5 +", "c 6"],
        ["pol 1 2 + 3 4 5 + + +", "c 6"],
        ["pol 1 2 * 2 2 * + 3 2 * + 4 2 * + 5 2 * + 2 d", "c 6"],
        ["rup +1 ~x1 >= 1 ;", "rup >= 1 ;", "c 7"],
    ],
)
def test_pigeons(steps: list[str]) -> None:
    assert check_cutting_planes(6, PIGEONS, [*LOAD, *steps]) == ""


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["pol 1 2 + 3 + 4 +", "c 6"], "no contradiction"),
        (["pol 1 2 + 9 +", "c 6"], "malformed or names a later step"),
        (["pol 1 2", "c 6"], "malformed"),
        (["pol +", "c 6"], "malformed"),
        (["pol 1 x7 +", "c 6"], "malformed"),
        (["pol 1 y +", "c 6"], "token"),
        (["pol 1 0 d", "c 6"], "malformed"),
        (["pol 1 99999999999999999 * 1000 *", "c 6"], "too large"),
        (["rup +1 ~x1 +1 ~x3 +1 ~x5 >= 3 ;", "c 6"], "step 6 does not follow"),
        (["rup +1 x1 +1 x1 >= 1 ;", "c 6"], "malformed"),
        (["rup +1 x9 >= 1 ;", "c 6"], "malformed"),
        (["red 1", "c 6"], "not checked"),
        (["l 6", "c 6"], "does not have"),
        (["c 9"], "contradiction"),
        ([], "contradiction"),
    ],
)
def test_false_steps_are_refused(steps: list[str], words: str) -> None:
    assert words in check_cutting_planes(6, PIGEONS, [*LOAD, *steps])


def test_random_steps_never_refute_what_has_a_solution() -> None:
    """Whatever is derived holds for every solution: random operations, each judged by enumeration."""
    rng = np.random.default_rng(0)
    solutions = [
        values for values in itertools.product((False, True), repeat=6) if all(holds(c, values) for c in PIGEONS[:4])
    ]
    assert solutions
    tokens = ["+"] * 4 + ["2 *", "3 d", "2 d", "s", "x1 w", "x4 w", "x2", "~x3", "~x6", "1", "2", "3", "4"]
    accepted = 0
    for _ in range(6000):
        words = ["1", *rng.choice(tokens, rng.integers(2, 9)).tolist()]
        claim = normal([(int(rng.integers(-2, 3)), v) for v in range(1, 7)], int(rng.integers(-1, 3)))
        # The claim follows from the one derived constraint if its negation is refuted; it must then hold everywhere.
        steps = [*LOAD[:4], "pol " + " ".join(words), f"rup {claim.text}"]
        formula = [*PIGEONS[:4], Constraint((), (), 1)]
        fault = check_cutting_planes(6, formula, [*steps, "l 5", "c 7"])
        if fault == "":
            accepted += 1
            assert all(holds(claim, values) for values in solutions), (words, claim)
    assert accepted > 100


def test_exacts_proofs_are_accepted_and_others_refused() -> None:
    """A proof about one program is none about a program that has solutions."""
    pytest.importorskip("exact", reason="the extra exact is not installed")
    from fuzz.gates import by_exact
    from verifier.solve.exact_run import Request, run

    proofs = []
    for seed in range(40):
        program = random_program(seed)
        if by_exact(program).sat is False:
            formula = gate_constraints(program)
            rows = [(c.coefficients, c.literals, c.degree) for c in formula.constraints]
            request = Request(
                variables=formula.variables, constraints=rows, hint=None, seconds=10.0, seed=0, proof=True
            )
            proofs.append(run(request)["steps"])
    assert len(proofs) > 5
    for seed in range(40):
        program = random_program(seed)
        if satisfiable(program):
            for steps in proofs:
                assert steps is not None
                section = Section(0, fingerprint(program), (), None, True, PSEUDO_BOOLEAN, tuple(steps))
                assert check_section(section, program, Deadline.never()) != ""
