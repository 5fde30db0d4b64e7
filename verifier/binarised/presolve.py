"""The program of a box, made smaller by exact integer reasoning.

Interval arithmetic on the sums, rounded to integers, fixes gates that never change; what they contributed goes into
thresholds.  Rows are divided by the greatest common divisor of their weights and their thresholds rounded up (the first
step of Chvatal-Gomory rounding).  Gates that are equal or opposite to each other become one: those with the same row up
to sign, and those whose rows imply each other (see ``encodings.sat.dominance``; what implies another only one way is
told to the engines by their encoders).  Gates that nobody reads disappear; levels that every gate reads alike become
one.  A goal that no values of the intervals can reach is impossible: that is a proof in exact arithmetic, and it needs
no solver.

On the lattice of a box of real inputs the program speaks of lattice points only.  But what its first layer's intervals
fix is fixed in the whole box, and the rest of that layer keeps its rows as they are, so what closes the program with
regard to rounding and to thresholds between integers (``Lattice.rounding``, ``Lattice.gap``) closes it for real inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.binarised.levels import Lattice
from verifier.binarised.query import Box
from verifier.encodings.sat.dominance import dominance
from verifier.encodings.sat.program import Program, Rows

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reduced:
    """A smaller program with the same answer.

    goals: positions in the box's goals that are still possible, in the order of the last layer's bits where there are
    several.  program: None when no goal is possible.  bounds: (goals of the box,), no point has a slack above it.
    scales: per goal, the divisors of its rows and their thresholds before they were divided.
    groups: per level of the program the box's inputs that it stands for.  hidden: layers that are the network's; what
    follows them states several goals.
    """

    program: Program | None
    goals: tuple[int, ...]
    bounds: Integers
    scales: tuple[tuple[Integers, Integers], ...]
    groups: tuple[Integers, ...]
    inputs: int
    hidden: int

    def goal_rows(self, place: int) -> Integers:
        """Weights (rows, bits) over the last hidden layer of goal number ``place``, divided."""
        assert self.program is not None
        layers = self.program.layers
        if len(self.goals) == 1:
            return np.asarray(self.program.asserted.weights.toarray())
        several = len(layers) > self.hidden + 1
        chosen = layers[self.hidden + 1].row(place)[0] if several else np.array([place])
        return np.asarray(layers[self.hidden].weights[chosen].toarray())

    def slack(self, place: int, sums: Integers) -> int:
        """Of goal number ``place`` where its divided rows have these sums (rows,)."""
        divisors, thresholds = self.scales[place]
        return int((divisors * sums - thresholds).min(initial=2**62))

    def point(self, levels: Integers, counts: Integers) -> Integers:
        """k (inputs,) of the box for levels of the program; inputs that no gate reads are 0.

        counts: of the box's levels.
        """
        k = np.zeros(self.inputs, np.int64)
        for group, level in zip(self.groups, levels.tolist(), strict=True):
            left = level
            for place in group:
                k[place] = min(left, counts[place])
                left -= k[place]
        return k

    def levels(self, k: Integers) -> Integers:
        """The inverse of ``point``, as far as it has one."""
        return np.array([k[group].sum() for group in self.groups], np.int64)


def presolve(box: Box, wanted: tuple[int, ...] | None = None) -> Reduced:
    """wanted: positions of the goals that matter, all of them by default."""
    positions = tuple(range(len(box.goals))) if wanted is None else wanted
    free = box.levels.free
    counts = box.levels.count[free]
    layers: list[Rows] = []
    weights, thresholds = sp.csr_array(box.layers[0].weights[:, free]), box.layers[0].thresholds
    upper = counts
    kept_before: _Substitution | None = None
    for number in range(len(box.layers)):
        if number:
            weights, thresholds = box.layers[number].weights, box.layers[number].thresholds
            assert kept_before is not None
            weights, thresholds = kept_before(weights, thresholds)
        if number == 0 and isinstance(box.levels, Lattice):
            rows, kept_before = _real_rows(weights, thresholds, box.levels, upper)
        else:
            rows, kept_before = _reduce(weights, thresholds, upper)
        layers.append(rows)
        upper = np.ones(len(rows), np.int64)
    assert kept_before is not None
    bounds = np.full(len(box.goals), -(2**62), np.int64)
    possible, parts, scales = [], [], []
    for position in positions:
        goal = box.goals[position]
        goal_weights, goal_thresholds = kept_before(goal.weights, goal.thresholds)
        highest = np.asarray(goal_weights.maximum(0).sum(axis=1)).reshape(-1) - goal_thresholds
        bounds[position] = highest.min(initial=2**62)
        if bounds[position] >= 0:
            possible.append(position)
            part, divisors = _divided(goal_weights, goal_thresholds)
            parts.append(part)
            scales.append((divisors, goal_thresholds))
    if not possible:
        return Reduced(None, (), bounds, (), (), len(box.levels.count), len(layers))
    hidden = len(layers)
    asserted = _targets(layers, parts)
    layers, asserted = _without_unread(layers, asserted)
    program_layers, groups, merged = _merge_levels(layers, free, counts)
    program = Program(merged, program_layers, asserted)
    return Reduced(program, tuple(possible), bounds, tuple(scales), groups, len(box.levels.count), hidden)


class _Substitution:
    """What is known of a layer's bits: each is a constant, or one of the open bits or its negation.

    fixed: (gates,) is 0, 1 or -1 where open.  source: (gates,) which open bit.  negated: (gates,).
    """

    def __init__(self, fixed: Integers, source: Integers, negated: NDArray[np.bool_], count: int) -> None:
        open_ = np.flatnonzero(fixed < 0)
        self._constant = np.where(fixed < 0, negated, fixed).astype(np.int64)
        signs = np.where(negated[open_], -1, 1)
        self._map = sp.csr_array((signs, (open_, source[open_])), shape=(len(fixed), count))

    def __call__(self, weights: sp.csr_array, thresholds: Integers) -> tuple[sp.csr_array, Integers]:
        """Rows over the layer's bits as rows over its open bits."""
        changed = sp.csr_array(weights @ self._map)
        changed.eliminate_zeros()
        return changed, thresholds - weights @ self._constant


def _reduce(weights: sp.csr_array, thresholds: Integers, upper: Integers) -> tuple[Rows, _Substitution]:
    """Open rows, no two of which are equivalent up to sign; and what became of the others."""
    lowest, highest = weights.minimum(0) @ upper, weights.maximum(0) @ upper
    fixed = np.where(lowest >= thresholds, 1, np.where(highest < thresholds, 0, -1))
    open_ = np.flatnonzero(fixed < 0)
    rows, _ = _divided(sp.csr_array(weights[open_]), thresholds[open_])
    kept, place, opposite = _equal(rows)
    rows = Rows(sp.csr_array(rows.weights[kept]), rows.thresholds[kept])
    relation = dominance(rows, upper)
    if relation is not None:
        again, place_again, opposite_again = _equivalent(relation)
        rows = Rows(sp.csr_array(rows.weights[again]), rows.thresholds[again])
        place, opposite = place_again[place], opposite ^ opposite_again[place]
    source, negated = np.zeros(len(thresholds), np.int64), np.zeros(len(thresholds), bool)
    source[open_], negated[open_] = place, opposite
    return rows, _Substitution(fixed, source, negated, len(rows))


def _real_rows(
    weights: sp.csr_array, thresholds: Integers, box: Lattice, upper: Integers
) -> tuple[Rows, _Substitution]:
    """The same for the first layer on real inputs: rows are fixed for the whole box, or left as they are.

    Off the lattice a row's negation is another one, and rounding to an integer threshold moves it.
    """
    reach = np.asarray(abs(weights).sum(axis=1)).reshape(-1) * int(box.ragged)
    lowest, highest = weights.minimum(0) @ upper - reach, weights.maximum(0) @ upper + reach
    below = math.floor(box.rounding + box.gap)
    fixed = np.where(lowest > thresholds, 1, np.where(highest < thresholds - below, 0, -1))
    open_ = np.flatnonzero(fixed < 0)
    source = np.zeros(len(thresholds), np.int64)
    source[open_] = np.arange(len(open_))
    rows = Rows(sp.csr_array(weights[open_]), thresholds[open_])
    return rows, _Substitution(fixed, source, np.zeros(len(thresholds), bool), len(rows))


def _equal(rows: Rows) -> tuple[list[int], Integers, NDArray[np.bool_]]:
    """Rows to keep, which of them every row equals, and whether it is its negation, ``-w x >= 1 - t``."""
    seen: dict[tuple[bytes, bytes, int], int] = {}
    place, opposite = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
    kept: list[int] = []
    starts, columns, data = rows.weights.indptr, rows.weights.indices, rows.weights.data
    for row, threshold in enumerate(rows.thresholds.tolist()):
        part = slice(starts[row], starts[row + 1])
        where = columns[part].tobytes()
        key, mirrored = (where, data[part].tobytes(), threshold), (where, (-data[part]).tobytes(), 1 - threshold)
        if mirrored in seen:
            place[row], opposite[row] = seen[mirrored], True
            continue
        if key not in seen:
            seen[key] = len(kept)
            kept.append(row)
        place[row] = seen[key]
    return kept, place, opposite


def _equivalent(relation: NDArray[np.bool_]) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """The same for rows that imply each other; relation: as ``dominance`` gives it."""
    count = len(relation) // 2
    # The first literal of a class: a row above it in the list is a bit, one below a negation.
    first = (relation & relation.T)[:count].argmax(axis=1)
    mirrored = (relation & relation.T)[count:].argmax(axis=1)
    representative = np.minimum(first, mirrored)
    kept = np.flatnonzero(representative == np.arange(count))
    place = np.zeros(count, np.int64)
    place[kept] = np.arange(len(kept))
    return kept, place[representative], mirrored < first


def _divided(weights: sp.csr_array, thresholds: Integers) -> tuple[Rows, Integers]:
    """Every row divided by the greatest common divisor of its weights, its threshold rounded up; the divisors."""
    weights = weights.copy()
    weights.eliminate_zeros()
    weights.sort_indices()
    filled = np.flatnonzero(np.diff(weights.indptr))
    divisor = np.ones(len(thresholds), np.int64)
    if len(filled):
        divisor[filled] = np.gcd.reduceat(np.abs(weights.data), weights.indptr[filled])
    weights.data //= np.repeat(divisor, np.diff(weights.indptr))
    return Rows(weights, -(-thresholds // divisor)), divisor


def _targets(layers: list[Rows], goals: list[Rows]) -> Rows:
    """The rows to assert; several goals become gates, one bit each, of which one has to hold."""
    if len(goals) == 1:
        return goals[0]
    stacked = sp.csr_array(sp.vstack([goal.weights for goal in goals]))
    layers.append(Rows(stacked, np.concatenate([goal.thresholds for goal in goals])))
    sizes = np.array([len(goal) for goal in goals])
    if np.any(sizes != 1):
        rows = np.repeat(np.arange(len(goals)), sizes)
        every = sp.csr_array((np.ones(sizes.sum(), np.int64), (rows, np.arange(sizes.sum()))))
        layers.append(Rows(every, sizes.astype(np.int64)))
    return Rows(sp.csr_array(np.ones((1, len(goals)), np.int64)), np.ones(1, np.int64))


def _without_unread(layers: list[Rows], asserted: Rows) -> tuple[list[Rows], Rows]:
    """The same without gates that no later row reads."""
    kept = list(layers)
    readers = asserted
    for number in range(len(kept) - 1, -1, -1):
        read = np.unique(readers.weights.indices)
        narrowed = Rows(sp.csr_array(readers.weights[:, read]), readers.thresholds)
        if number == len(kept) - 1:
            asserted = narrowed
        else:
            kept[number + 1] = narrowed
        kept[number] = Rows(sp.csr_array(kept[number].weights[read]), kept[number].thresholds[read])
        readers = kept[number]
    return kept, asserted


def _merge_levels(
    layers: list[Rows], free: Integers, counts: Integers
) -> tuple[tuple[Rows, ...], tuple[Integers, ...], Integers]:
    """Levels that no gate reads are dropped; those that all gates read alike become one with a larger range."""
    columns = sp.csc_array(layers[0].weights)
    columns.sort_indices()
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for column in np.flatnonzero(np.diff(columns.indptr)).tolist():
        part = slice(columns.indptr[column], columns.indptr[column + 1])
        groups.setdefault((columns.indices[part].tobytes(), columns.data[part].tobytes()), []).append(column)
    members = [np.array(group) for group in groups.values()]
    first = sp.csr_array(layers[0].weights[:, [int(group[0]) for group in members]])
    merged = np.array([counts[group].sum() for group in members], np.int64)
    return (Rows(first, layers[0].thresholds), *layers[1:]), tuple(free[group] for group in members), merged
