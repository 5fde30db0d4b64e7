"""A program of gates as CNF.

Levels are in order encoding: variable (i, j) says ``k_i > j``.  The *chain* ``k_i > j + 1 implies k_i > j`` is stated
for
every neighbouring pair: a published encoder stated it from the first to every other bit only, which lets a pixel move
by 0, 1 or all of its levels and so claims robustness wrongly.  A gate's bit is the output of a counter over the
literals of its row, a literal once per unit of its weight, negated where the weight is negative.  What gates of a layer
imply of each other (see ``dominance``) is added as clauses.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.encodings.sat.cardinality import COUNTERS, Counter
from verifier.encodings.sat.clauses import Clauses, Literal
from verifier.encodings.sat.program import Program, Rows

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GateFormula:
    """clauses: the CNF.  levels: per level its order literals, ``k > 0, k > 1, ...``; bits: per layer its bits'
    literals."""

    variables: int
    clauses: list[list[Literal]]
    levels: tuple[tuple[Literal, ...], ...]
    bits: tuple[tuple[Literal, ...], ...]

    def decode(self, model: Sequence[int]) -> Integers:
        """Levels (levels,) of a model: the signed variables in order."""
        true = {literal for literal in model if literal > 0}
        return np.array([sum(literal in true for literal in order) for order in self.levels], np.int64)


def gate_formula(program: Program, counter: str = "modulo") -> GateFormula:
    """Satisfiable exactly when levels exist for which the asserted rows hold."""
    cnf = Clauses()
    levels = tuple(chain(cnf, int(count)) for count in program.counts)
    bits, before = [], [list(order) for order in levels]
    for layer, implied in zip(program.layers, program.implications, strict=True):
        made = tuple(row_literal(cnf, layer, i, before, COUNTERS[counter]) for i in range(len(layer)))
        _imply(cnf, made, implied)
        bits.append(made)
        before = [[literal] for literal in made]
    _assert(cnf, program.asserted, before, COUNTERS[counter])
    return GateFormula(cnf.variables, cnf.clauses, levels, tuple(bits))


def later_formula(program: Program, counter: str = "modulo") -> GateFormula:
    """The layers behind the first: the first layer's bits are the variables 1, 2, ..., free of each other."""
    cnf = Clauses()
    first = tuple(cnf.new() for _ in range(len(program.layers[0])))
    bits, before = [first], [[literal] for literal in first]
    for layer, implied in zip(program.layers[1:], program.implications[1:], strict=True):
        made = tuple(row_literal(cnf, layer, i, before, COUNTERS[counter]) for i in range(len(layer)))
        _imply(cnf, made, implied)
        bits.append(made)
        before = [[literal] for literal in made]
    _assert(cnf, program.asserted, before, COUNTERS[counter])
    return GateFormula(cnf.variables, cnf.clauses, (), tuple(bits))


def chain(cnf: Clauses, count: int) -> tuple[Literal, ...]:
    """The order literals of one level in 0..count."""
    order = tuple(cnf.new() for _ in range(count))
    for low, high in itertools.pairwise(order):
        cnf.add((-high, low))
    return order


def row_literal(cnf: Clauses, rows: Rows, index: int, before: Sequence[Sequence[Literal]], counter: Counter) -> Literal:
    """A literal equivalent to one row.  before: per column the literals whose number of true ones is its value."""
    columns, weights, threshold = rows.row(index)
    literals: list[Literal] = []
    for column, weight in zip(columns.tolist(), weights.tolist(), strict=True):
        for literal in before[column]:
            if weight < 0:
                # w x = w + |w| (1 - x)
                threshold -= weight
            literals += [literal if weight > 0 else -literal] * abs(weight)
    return counter(cnf, literals, threshold)


def _imply(cnf: Clauses, bits: Sequence[Literal], implied: Integers) -> None:
    """What a layer's gates imply of each other: the counters know it, but unit propagation does not see it there."""
    for clause in implied.tolist():
        cnf.add([bits[abs(gate) - 1] if gate > 0 else -bits[abs(gate) - 1] for gate in clause])


def _assert(cnf: Clauses, rows: Rows, before: Sequence[Sequence[Literal]], counter: Counter) -> None:
    for i in range(len(rows)):
        columns, weights, threshold = rows.row(i)
        if threshold == 1 and np.all(weights == 1) and all(len(before[c]) == 1 for c in columns.tolist()):
            cnf.add([before[c][0] for c in columns.tolist()])
        else:
            cnf.add([row_literal(cnf, rows, i, before, counter)])
