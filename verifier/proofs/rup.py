"""Reverse unit propagation: a forward checker for DRUP proofs (Goldberg and Novikov 2003; Heule, Hunt and Wetzler
2013).

Every lemma must follow from the clauses before it by unit propagation alone; the last thing derived must be the empty
clause.  Deletions are obeyed except of clauses that are units at the time, as drat-trim does.  The propagation is a
compiled loop with two watched literals per clause; parsing and bookkeeping are plain Python.

Steps that are not RUP (the RAT steps of some preprocessing) are refused: the solvers used here make none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numba
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

UNDEFINED = 0


def check_rup(variables: int, clauses: Sequence[Sequence[int]], steps: Iterable[str]) -> str:
    """ "" when the steps derive the empty clause from the clauses, otherwise the first thing wrong.

    steps: lines of a DRAT file in text form, ``1 -2 0`` for a lemma and ``d 1 -2 0`` for a deletion.
    """
    literals: list[int] = []
    starts = [0]
    places: dict[tuple[int, ...], list[int]] = {}
    actions: list[int] = []
    for clause in clauses:
        if not clause:
            return ""
        _append(clause, literals, starts, places)
    given = len(starts) - 1
    for number, line in enumerate(steps, 1):
        words = line.split()
        deletion = bool(words) and words[0] == "d"
        try:
            clause = [int(word) for word in (words[1:] if deletion else words)]
        except ValueError:
            return f"step {number} is no clause: {line[:80]!r}"
        if not clause or clause[-1] != 0 or 0 in clause[:-1]:
            return f"step {number} does not end with a single 0: {line[:80]!r}"
        clause = clause[:-1]
        if any(abs(literal) > variables for literal in clause):
            return f"step {number} names a variable that the formula does not have"
        key = tuple(sorted(set(clause)))
        if deletion:
            found = places.get(key)
            if found:
                actions.append(-found.pop() - 1)
        else:
            if not clause:
                break
            actions.append(_append(clause, literals, starts, places))
    bad = _run(
        variables,
        given,
        np.array(_doubled(literals), np.int32),
        np.array(starts, np.int32),
        np.array(actions, np.int64),
    )
    if bad == DERIVED:
        return ""
    if bad == EXHAUSTED:
        return "the steps do not derive the empty clause"
    return f"lemma {bad + 1} does not follow by unit propagation"


DERIVED, EXHAUSTED = -1, -2


def _append(
    clause: Sequence[int], literals: list[int], starts: list[int], places: dict[tuple[int, ...], list[int]]
) -> int:
    distinct = sorted(set(clause))
    literals += distinct
    starts.append(len(literals))
    index = len(starts) - 2
    places.setdefault(tuple(distinct), []).append(index)
    return index


def _doubled(literals: list[int]) -> list[int]:
    """2 v for v, 2 v + 1 for -v."""
    return [2 * literal if literal > 0 else -2 * literal + 1 for literal in literals]


@numba.njit(cache=True)
def _propagate(values, trail, size, head, literals, starts, watches, following, first):  # type: ignore[no-untyped-def]
    """Unit propagation from trail[head:size]; (new size, whether there is a conflict)."""
    while head < size:
        false = trail[head] ^ 1
        head += 1
        previous = -1
        entry = first[false]
        while entry >= 0:
            clause, slot = entry >> 1, entry & 1
            after = following[entry]
            other = watches[2 * clause + 1 - slot]
            if values[other] == 1:
                previous, entry = entry, after
                continue
            moved = False
            for place in range(starts[clause], starts[clause + 1]):
                literal = literals[place]
                if literal != other and literal != false and values[literal] != -1:
                    watches[entry] = literal
                    following[entry] = first[literal]
                    first[literal] = entry
                    if previous < 0:
                        first[false] = after
                    else:
                        following[previous] = after
                    moved = True
                    break
            if moved:
                entry = after
                continue
            if values[other] == -1:
                return size, True
            values[other], values[other ^ 1] = 1, -1
            trail[size] = other
            size += 1
            previous, entry = entry, after
    return size, False


@numba.njit(cache=True)
def _unlink(entry, literal, following, first):  # type: ignore[no-untyped-def]
    at = first[literal]
    if at == entry:
        first[literal] = following[entry]
        return
    while following[at] != entry:
        at = following[at]
    following[at] = following[entry]


@numba.njit(cache=True)
def _attach(clause, values, trail, size, literals, starts, watches, following, first):  # type: ignore[no-untyped-def]
    """Watch two literals that are not false; (new size, whether the clause is false).  A unit goes on the trail."""
    begin, end = starts[clause], starts[clause + 1]
    found = 0
    for place in range(begin, end):
        literal = literals[place]
        if values[literal] != -1 and found < 2:
            watches[2 * clause + found] = literal
            found += 1
    if found == 0:
        return size, True
    if found == 1:
        unit = watches[2 * clause]
        if values[unit] == 0:
            values[unit], values[unit ^ 1] = 1, -1
            trail[size] = unit
            size += 1
        watches[2 * clause] = -1
        return size, False
    for slot in range(2):
        entry = 2 * clause + slot
        literal = watches[entry]
        following[entry] = first[literal]
        first[literal] = entry
    return size, False


@numba.njit(cache=True)
def _run(variables, given, literals, starts, actions):  # type: ignore[no-untyped-def]
    """DERIVED, EXHAUSTED, or the number of the first lemma that does not follow."""
    count = len(starts) - 1
    values = np.zeros(2 * variables + 2, np.int8)
    trail = np.zeros(2 * variables + 2, np.int32)
    watches = np.full(2 * count, -1, np.int32)
    following = np.full(2 * count, -1, np.int32)
    first = np.full(2 * variables + 2, -1, np.int32)
    size = 0
    for clause in range(given):
        size, conflict = _attach(clause, values, trail, size, literals, starts, watches, following, first)
        if conflict:
            return -1
    size, conflict = _propagate(values, trail, size, 0, literals, starts, watches, following, first)
    if conflict:
        return -1
    for action in actions:
        if action < 0:
            clause = -action - 1
            if watches[2 * clause] >= 0:
                true = False
                for slot in range(2):
                    true = true or values[watches[2 * clause + slot]] == 1
                # What is a reason stays, as in drat-trim.
                if not true:
                    for slot in range(2):
                        _unlink(2 * clause + slot, watches[2 * clause + slot], following, first)
                    watches[2 * clause] = -1
            continue
        kept = size
        holds = False
        for place in range(starts[action], starts[action + 1]):
            literal = literals[place]
            if values[literal] == 1:
                holds = True
                break
            if values[literal] == 0:
                values[literal], values[literal ^ 1] = -1, 1
                trail[size] = literal ^ 1
                size += 1
        if not holds:
            size, holds = _propagate(values, trail, size, kept, literals, starts, watches, following, first)
        for place in range(kept, size):
            values[trail[place]] = values[trail[place] ^ 1] = 0
        size = kept
        if not holds:
            return action - given
        size, conflict = _attach(action, values, trail, size, literals, starts, watches, following, first)
        if not conflict:
            size, conflict = _propagate(values, trail, size, kept, literals, starts, watches, following, first)
        if conflict:
            return -1
    return -2
