"""Gates of one layer that decide others: "if this bit is 1, that one is 1 (or 0)", from their rows alone.

A literal of gate j is its bit, with the row ``w x >= t``, or the bit's negation, with ``-w x >= 1 - t``.  Literal a
implies literal b where no x of the box satisfies a's row and misses b's by an integer; it suffices that the sum of
both, ``(w_a - w_b) x >= t_a - t_b + 1``, exceeds what intervals allow:

    sum_i max(0, w_a - w_b)_i upper_i <= t_a - t_b

This is the sum of two rows of a ``pol`` proof with multipliers 1.  The relation is transitive and closed under
contraposition, so equivalent literals form classes and the rest an order, of which ``implications`` gives the
covering pairs (Aho, Garey and Ullman 1972).  In propositional solvers these are the binary clauses that probing for
failed literals learns one by one; cardinality encodings hide them.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from verifier.encodings.sat.program import Rows

Integers = NDArray[np.int64]
Relation = NDArray[np.bool_]

MOST_GATES, MOST_STEPS = 1024, 16
"""Beyond this many gates, or steps from the smallest weight of a layer to its largest, nothing is compared."""
EXACT = 2**24
"""Sums up to here are exact in float32."""


def dominance(rows: Rows, upper: Integers) -> Relation | None:
    """Entry (a, b): whether literal a implies literal b; literals (2 gates,), the bits and then their negations.

    upper: (before,), what the rows read is between 0 and this.  None where it would take too long.
    """
    count = len(rows)
    if not 0 < count <= MOST_GATES:
        return None
    positive = rows.weights.toarray()
    weights = np.concatenate([positive, -positive])
    steps = np.unique(weights)
    if steps[-1] - steps[0] > MOST_STEPS or int(np.max(np.abs(weights) @ upper)) >= EXACT // 2:
        return None
    excess = np.zeros((2 * count, 2 * count), np.float32)
    sizes = upper.astype(np.float32)
    for low, high in itertools.pairwise(steps.tolist()):
        # Between two neighbouring values, max(0, w_a - w_b) grows where w_a is above and w_b is not.
        above = (weights >= high).astype(np.float32)
        with np.errstate(invalid="ignore"):  # OpenBLAS's flags on tiny matrices
            excess += (above * (sizes * np.float32(high - low))) @ (1 - above).T
    thresholds = np.concatenate([rows.thresholds, 1 - rows.thresholds])
    return np.asarray(excess <= (thresholds[:, None] - thresholds[None, :]))


def implications(rows: Rows, upper: Integers) -> Integers:
    """Clauses (n, 2) of signed gates, from 1 on, that hold wherever the bits are those of the rows.

    Between gates that are not constant, all that ``dominance`` finds follows from these by unit propagation.
    """
    relation = dominance(rows, upper)
    if relation is None:
        return np.zeros((0, 2), np.int64)
    mutual = relation & relation.T
    strict = relation & ~mutual
    below = strict.astype(np.float32)
    covering = strict & (below @ below == 0)
    count = len(rows)
    # Equivalent literals form a ring through their class: each implies the next, the last the first.
    for first in np.flatnonzero(mutual.sum(axis=1) > 1).tolist():
        members = np.flatnonzero(mutual[first])
        if members[0] == first:
            covering[members, np.roll(members, -1)] = True
    left, right = np.nonzero(covering)
    signed = np.concatenate([np.arange(1, count + 1), -np.arange(1, count + 1)])
    clauses = np.sort(np.stack([-signed[left], signed[right]], axis=1), axis=1)
    # A literal that implies its own negation is interval reasoning's to fix.
    return np.unique(clauses[clauses[:, 0] != clauses[:, 1]], axis=0)
