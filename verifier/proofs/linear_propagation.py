"""Unit propagation over pseudo-Boolean constraints, compiled: what ``rup`` steps of cutting-planes proofs rest on.

A constraint ``sum a l >= d`` has the slack ``sum of a over the literals that are not false, minus d``: below 0 it is
in conflict, and a literal whose coefficient is larger than the slack must be true.  Short constraints and those
of the formula keep counters and lists of occurrences (Roussel and Manquinho, "Pseudo-Boolean and cardinality
constraints", 2009); the long ones that proofs derive would fill the lists and hardly ever propagate, so they are swept
over where the others do not suffice.

Literals are 2 v and, negated, 2 v + 1; constraint c has the literals ``literals[starts[c]:starts[c + 1]]``.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

SHORT = 8
"""Literals of a derived constraint up to which it keeps counters."""


class Propagation(NamedTuple):
    """counts: [size of the trail, occurrences].  truth: (literals,) 1, 0 or -1.  trail: literals that are true.

    slack, widest: (constraints,), -1 in ``widest`` for those that keep no counters.
    first, following, where, amount: per literal a list of the constraints with it and of its coefficients.
    """

    counts: Integers
    truth: NDArray[np.int8]
    trail: Integers
    slack: Integers
    widest: Integers
    first: Integers
    following: Integers
    where: Integers
    amount: Integers


@numba.njit(cache=True)
def new_propagation(variables, constraints):  # type: ignore[no-untyped-def]
    """Nothing is known, and there is no constraint."""
    return Propagation(
        np.zeros(2, np.int64),
        np.zeros(2 * variables + 2, np.int8),
        np.zeros(variables + 2, np.int64),
        np.zeros(constraints, np.int64),
        np.full(constraints, -1, np.int64),
        np.full(2 * variables + 2, -1, np.int64),
        np.zeros(1 << 12, np.int64),
        np.zeros(1 << 12, np.int64),
        np.zeros(1 << 12, np.int64),
    )


@numba.njit(cache=True)
def attach(index, keep, starts, literals, coefficients, degrees, state):  # type: ignore[no-untyped-def]
    """Add constraint ``index`` for good; the new state, and whether there is a conflict now.

    keep: whether it keeps counters however long it is.
    """
    begin, end = starts[index], starts[index + 1]
    if keep or end - begin <= SHORT:
        used = state.counts[1]
        if used + end - begin > len(state.where):
            larger = np.zeros((3, 2 * (used + end - begin)), np.int64)
            larger[0, :used], larger[1, :used] = state.following[:used], state.where[:used]
            larger[2, :used] = state.amount[:used]
            state = Propagation(
                state.counts, state.truth, state.trail, state.slack, state.widest, state.first,
                larger[0], larger[1], larger[2],
            )  # fmt: skip
        state.slack[index], state.widest[index] = -degrees[index], 0
        for at in range(begin, end):
            literal = literals[at]
            state.following[used], state.where[used] = state.first[literal], index
            state.amount[used] = coefficients[at]
            state.first[literal] = used
            used += 1
            state.widest[index] = max(state.widest[index], coefficients[at])
            if state.truth[literal] != -1:
                state.slack[index] += coefficients[at]
        state.counts[1] = used
    kept = state.counts[0]
    conflict = _sweep(index, starts, literals, coefficients, degrees, state)
    if not conflict:
        conflict, _ = _propagate(kept, starts, literals, coefficients, state)
    return state, conflict


@numba.njit(cache=True)
def derives(index, starts, literals, coefficients, degrees, state):  # type: ignore[no-untyped-def]
    """Whether propagation from the negation of constraint ``index`` and all before it ends in a conflict."""
    kept = state.counts[0]
    done = kept
    conflict = False
    while True:
        # The negation is ``sum a (not l) >= sum a - d + 1``; what follows is its slack.
        slack = degrees[index] - 1
        for at in range(starts[index], starts[index + 1]):
            if state.truth[literals[at]] == 1:
                slack -= coefficients[at]
        if slack < 0:
            conflict = True
            break
        for at in range(starts[index], starts[index + 1]):
            if coefficients[at] > slack and state.truth[literals[at]] == 0:
                _make_true(literals[at] ^ 1, state)
        if done == state.counts[0]:
            for other in range(index):
                if state.widest[other] < 0 and _sweep(other, starts, literals, coefficients, degrees, state):
                    conflict = True
                    break
            if conflict or done == state.counts[0]:
                break
        conflict, done = _propagate(done, starts, literals, coefficients, state)
        if conflict:
            break
    for at in range(kept, state.counts[0]):
        literal = state.trail[at]
        state.truth[literal] = state.truth[literal ^ 1] = 0
        if at < done:
            entry = state.first[literal ^ 1]
            while entry >= 0:
                state.slack[state.where[entry]] += state.amount[entry]
                entry = state.following[entry]
    state.counts[0] = kept
    return conflict


@numba.njit(cache=True)
def _make_true(literal, state):  # type: ignore[no-untyped-def]
    state.truth[literal], state.truth[literal ^ 1] = 1, -1
    state.trail[state.counts[0]] = literal
    state.counts[0] += 1


@numba.njit(cache=True)
def _sweep(index, starts, literals, coefficients, degrees, state):  # type: ignore[no-untyped-def]
    """Propagate one constraint without its counter; whether it is in conflict."""
    slack, widest = -degrees[index], 0
    for at in range(starts[index], starts[index + 1]):
        value = state.truth[literals[at]]
        if value != -1:
            slack += coefficients[at]
        if value == 0:
            widest = max(widest, coefficients[at])
    if slack < widest and slack >= 0:
        for at in range(starts[index], starts[index + 1]):
            if coefficients[at] > slack and state.truth[literals[at]] == 0:
                _make_true(literals[at], state)
    return slack < 0


@numba.njit(cache=True)
def _propagate(done, starts, literals, coefficients, state):  # type: ignore[no-untyped-def]
    """Whether there is a conflict, and how much of the trail has been subtracted from the counters."""
    while done < state.counts[0]:
        false = state.trail[done] ^ 1
        done += 1
        conflict = False
        entry = state.first[false]
        while entry >= 0:
            constraint = state.where[entry]
            state.slack[constraint] -= state.amount[entry]
            conflict = conflict or state.slack[constraint] < 0
            entry = state.following[entry]
        if conflict:
            return True, done
        entry = state.first[false]
        while entry >= 0:
            constraint = state.where[entry]
            entry = state.following[entry]
            slack = state.slack[constraint]
            if slack < state.widest[constraint]:
                for at in range(starts[constraint], starts[constraint + 1]):
                    if coefficients[at] > slack and state.truth[literals[at]] == 0:
                        _make_true(literals[at], state)
    return False, done
