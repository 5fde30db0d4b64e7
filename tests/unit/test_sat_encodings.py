"""CNF forms of gates: every counter against counting, the order encoding, and one published mistake."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from pysat.solvers import Solver

from verifier.encodings.sat.cardinality import COUNTERS
from verifier.encodings.sat.clauses import FALSE, TRUE, Clauses
from verifier.encodings.sat.gates import chain, gate_formula
from verifier.encodings.sat.program import Program, Rows


@pytest.mark.parametrize("counter", COUNTERS)
@pytest.mark.parametrize("size", range(1, 8))
def test_counter_is_equivalent_to_counting(counter: str, size: int) -> None:
    """For every threshold and assignment unit propagation alone finds the output: auxiliaries are functions."""
    for threshold in range(-1, size + 2):
        cnf = Clauses()
        inputs = [cnf.new() * (-1) ** i for i in range(size)]
        output = COUNTERS[counter](cnf, inputs, threshold)
        with Solver("glucose4", bootstrap_with=cnf.clauses) as solver:
            for bits in itertools.product((False, True), repeat=size):
                consistent, implied = solver.propagate([x if bit else -x for x, bit in zip(inputs, bits, strict=True)])
                assert consistent
                expected = sum(bits) >= threshold
                if output in (TRUE, FALSE):
                    assert (output == TRUE) is expected
                else:
                    assert (output if expected else -output) in implied


def test_modulo_is_the_smallest_on_wide_gates() -> None:
    sizes = {}
    for name, counter in COUNTERS.items():
        cnf = Clauses()
        counter(cnf, [cnf.new() for _ in range(100)], 50)
        sizes[name] = len(cnf.clauses)
    assert min(sizes, key=lambda name: sizes[name]) == "modulo"


def levels_of(clauses: list[list[int]], order: tuple[int, ...]) -> set[int]:
    """All values that the order literals can have together."""
    found = set()
    with Solver("glucose4", bootstrap_with=clauses) as solver:
        for model in solver.enum_models():
            true = {literal for literal in model if literal > 0}
            found.add(sum(literal in true for literal in order))
    return found


def test_chain_admits_every_level_and_only_in_order() -> None:
    cnf = Clauses()
    order = chain(cnf, 4)
    assert levels_of([*cnf.clauses, [order[0], -order[0]]], order) == {0, 1, 2, 3, 4}
    with Solver("glucose4", bootstrap_with=cnf.clauses) as solver:
        assert sum(1 for _ in solver.enum_models()) == 5


def test_star_in_place_of_the_chain_loses_levels() -> None:
    """The published mistake: where ``k > 1`` implies every later bit, only the levels 0, 1 and all remain.

    The instance is a gate that fires at levels 2 and 3 of 0..4 only: it has a solution, which the star denies.
    """
    between = Program(
        np.array([4]),
        (Rows(sp.csr_array(np.array([[1], [-1]])), np.array([2, -3])),),
        Rows(sp.csr_array(np.array([[1, 1]])), np.array([2])),
    )
    formula = gate_formula(between)
    star = [list(clause) for clause in formula.clauses]
    _, second, *rest = formula.levels[0]
    star += [[-second, later] for later in rest]
    with Solver("glucose4", bootstrap_with=formula.clauses) as solver:
        assert solver.solve()
        assert formula.decode(solver.get_model())[0] in (2, 3)
    with Solver("glucose4", bootstrap_with=star) as solver:
        assert not solver.solve(), "this is the mistake, and it has to show"
