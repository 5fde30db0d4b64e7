"""A program of gates as pseudo-Boolean constraints: ``sum a_i l_i >= d`` over literals, all a_i positive.

Levels are in order encoding, as in the CNF (see ``gates``), so a level's value is the number of its true literals.  A
gate is two constraints, each with the smallest coefficient for its bit that interval bounds allow:

    bit = 1  =>  w x >= t            w x + (t - low) (1 - bit) >= t
    bit = 0  =>  w x <= t - 1       -w x + (high - t + 1) bit  >= 1 - t

What gates of a layer imply of each other (see ``dominance``) is added as clauses.  Solvers that reason with cutting
planes add such constraints up; a clause would hide what they can add.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.encodings.sat.clauses import Literal
from verifier.encodings.sat.program import Program, Rows

Integers = NDArray[np.int64]

PSEUDO_BOOLEAN = "pseudo-boolean"
"""The name of this form in proof files, beside those of the CNF's counters."""


@dataclass(frozen=True)
class Constraint:
    """``sum coefficients[i] literals[i] >= degree``; every variable once, all coefficients positive."""

    coefficients: tuple[int, ...]
    literals: tuple[Literal, ...]
    degree: int

    @property
    def text(self) -> str:
        """In the OPB format of the pseudo-Boolean competitions."""
        terms = zip(self.coefficients, self.literals, strict=True)
        sum_ = " ".join(f"+{a} {'' if literal > 0 else '~'}x{abs(literal)}" for a, literal in terms)
        return f"{sum_} >= {self.degree} ;"


@dataclass(frozen=True, eq=False)
class GateConstraints:
    """variables: 1 to this.  levels: per level its order variables, ``k > 0, k > 1, ...``."""

    variables: int
    constraints: tuple[Constraint, ...]
    levels: tuple[tuple[Literal, ...], ...]

    def decode(self, values: Sequence[int]) -> Integers:
        """Levels (levels,); values: those of the variables in order, from 1 on."""
        return np.array([sum(values[literal - 1] for literal in order) for order in self.levels], np.int64)

    def opb(self) -> str:
        """The whole formula in OPB format."""
        head = f"* #variable= {self.variables} #constraint= {len(self.constraints)}"
        return "\n".join([head, *(constraint.text for constraint in self.constraints)]) + "\n"


def gate_constraints(program: Program) -> GateConstraints:
    """Satisfiable exactly when levels exist for which the asserted rows hold."""
    numbers = itertools.count(1)
    levels = tuple(tuple(itertools.islice(numbers, int(count))) for count in program.counts)
    found = [normal([(1, low), (-1, high)], 0) for order in levels for low, high in itertools.pairwise(order)]
    before: list[tuple[Literal, ...]] = list(levels)
    upper = program.counts
    for layer, implied in zip(program.layers, program.implications, strict=True):
        bits = tuple(itertools.islice(numbers, len(layer)))
        lowest, highest = layer.weights.minimum(0) @ upper, layer.weights.maximum(0) @ upper
        # Rows that intervals decide need no larger coefficient than 0.
        lows, highs = np.minimum(lowest, layer.thresholds), np.maximum(highest, layer.thresholds - 1)
        for i, bit in enumerate(bits):
            terms, threshold = _terms(layer, i, before)
            low, high = int(lows[i]), int(highs[i])
            found.append(normal([*terms, (low - threshold, bit)], low))
            negated = [(-weight, literal) for weight, literal in terms]
            found.append(normal([*negated, (high - threshold + 1, bit)], 1 - threshold))
        for clause in implied.tolist():
            literals = tuple(bits[abs(gate) - 1] if gate > 0 else -bits[abs(gate) - 1] for gate in clause)
            found.append(Constraint((1, 1), literals, 1))
        before, upper = [(bit,) for bit in bits], np.ones(len(bits), np.int64)
    for i in range(len(program.asserted)):
        found.append(normal(*_terms(program.asserted, i, before)))
    # What holds anyway is left out: solvers do not number it alike.
    return GateConstraints(next(numbers) - 1, tuple(c for c in found if c.degree > 0), levels)


def normal(terms: Iterable[tuple[int, Literal]], degree: int) -> Constraint:
    """``sum w x >= degree`` for any integers w and variables x, each once: ``w x = w + |w| (1 - x)`` where w < 0."""
    coefficients, literals = [], []
    for weight, variable in terms:
        if weight:
            coefficients.append(abs(weight))
            literals.append(variable if weight > 0 else -variable)
            degree -= min(weight, 0)
    return Constraint(tuple(coefficients), tuple(literals), degree)


def _terms(rows: Rows, index: int, before: Sequence[tuple[Literal, ...]]) -> tuple[list[tuple[int, Literal]], int]:
    columns, weights, threshold = rows.row(index)
    pairs = zip(columns.tolist(), weights.tolist(), strict=True)
    return [(weight, literal) for column, weight in pairs for literal in before[column]], threshold
