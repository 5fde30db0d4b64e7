"""Conflicts: gates of the first layer that cannot have certain values together, by a combination of their rows.

The row of a gate that is 1 is ``w k >= t``, of one that is 0 ``-w k >= 1 - t``.  Non-negative integer multiples of
rows are added up; where no levels ``0 <= k <= counts`` satisfy the sum, the values are impossible: the ``pol`` step of
pseudo-Boolean proofs (Elffers, Gocht, McCreesh and Nordstrom 2020), followed by the clause that it implies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.encodings.sat.program import Program, Rows

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Conflict:
    """Gates ``gates`` cannot have the values ``bits`` together.

    multipliers: positive integers, combine their rows.
    """

    gates: Integers
    bits: NDArray[np.bool_]
    multipliers: Integers

    @property
    def clause(self) -> list[int]:
        """The clause over the first layer's bits, variables from 1."""
        return [-(int(g) + 1) if bit else int(g) + 1 for g, bit in zip(self.gates, self.bits, strict=True)]


def pair_conflicts(program: Program) -> list[Conflict]:
    """What gates of the first layer imply of each other, as conflicts of two rows; for integer levels."""
    ones = np.ones(2, np.int64)
    return [Conflict(np.abs(clause) - 1, clause < 0, ones) for clause in program.implications[0] if program.layers]


def refutes(rows: Rows, counts: Integers, conflict: Conflict, rounding: float | None = None) -> bool:
    """Whether the combination of rows has no solution within the counts; exact.

    rounding: None for integer levels.  For real ones a gate is 0 anywhere below its threshold, not only from 1 below
    on, and its sum may be off by so much.
    """
    if np.any(conflict.multipliers < 0):
        return False
    factors = conflict.multipliers * np.where(conflict.bits, 1, -1)
    combined = rows.weights[conflict.gates].T @ factors
    thresholds = rows.thresholds[conflict.gates]
    below = 1 if rounding is None else 0
    needed = int(conflict.multipliers @ np.where(conflict.bits, thresholds, below - thresholds))
    if rounding is not None:
        needed -= math.ceil(rounding * int(conflict.multipliers.sum()) * (1 + 1e-9))
    return int(np.maximum(combined, 0) @ counts) < needed
