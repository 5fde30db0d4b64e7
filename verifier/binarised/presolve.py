"""The program of a box, made smaller by exact integer reasoning.

Interval arithmetic on the sums, rounded to integers, fixes gates that never change; what they contributed goes into
thresholds.  Rows are divided by the greatest common divisor of their weights and their thresholds rounded up (the first
step of Chvatal-Gomory rounding); equal rows become one gate; gates that nobody reads disappear; levels that every gate
reads alike become one.  A goal that no values of the intervals can reach is impossible: that is a proof in exact
arithmetic, and it needs no solver.

On the lattice of a box of real inputs the program speaks of lattice points only, but the intervals of the first layer
are
those of the whole box (its ends are taken outward to integers), so what they close is closed for real inputs as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.binarised.levels import Lattice
from verifier.binarised.query import Box
from verifier.encodings.sat.program import Program, Rows

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reduced:
    """A smaller program with the same answer.

    goals: positions in the box's goals that are still possible, in the order of the last layer's bits where there are
    several.  program: None when no goal is possible.  bounds: (goals of the box,), no point has a slack above it.
    groups: per level of the program the box's inputs that it stands for.
    """

    program: Program | None
    goals: tuple[int, ...]
    bounds: Integers
    groups: tuple[Integers, ...]
    inputs: int

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
    kept_before = None
    for number in range(len(box.layers)):
        if number:
            weights, thresholds = box.layers[number].weights, box.layers[number].thresholds
            assert kept_before is not None
            weights, thresholds = kept_before(weights, thresholds)
        # Off the lattice a sum that is 0 in real numbers may round to either side of its threshold.
        slack = np.zeros(len(thresholds), np.int64)
        if number == 0 and isinstance(box.levels, Lattice):
            reach = np.asarray(abs(box.layers[0].weights).sum(axis=1)).reshape(-1)
            slack = 1 + (reach if box.levels.ragged else slack)
        rows, fixed, source = _reduce(weights, thresholds, upper, slack)
        layers.append(rows)
        kept_before = _Substitution(fixed, source, len(rows))
        upper = np.ones(len(rows), np.int64)
    assert kept_before is not None
    bounds = np.full(len(box.goals), -(2**62), np.int64)
    possible, parts = [], []
    for position in positions:
        goal = box.goals[position]
        goal_weights, goal_thresholds = kept_before(goal.weights, goal.thresholds)
        highest = np.asarray(goal_weights.maximum(0).sum(axis=1)).reshape(-1) - goal_thresholds
        bounds[position] = highest.min(initial=2**62)
        if bounds[position] >= 0:
            possible.append(position)
            parts.append(Rows(*_divided(goal_weights, goal_thresholds)))
    if not possible:
        return Reduced(None, (), bounds, (), len(box.levels.count))
    asserted = _targets(layers, parts)
    layers, asserted = _without_unread(layers, asserted)
    program_layers, groups, merged = _merge_levels(layers, free, counts)
    return Reduced(Program(merged, program_layers, asserted), tuple(possible), bounds, groups, len(box.levels.count))


class _Substitution:
    """What is known of a layer's bits: fixed (gates,) is 0, 1 or -1 where open; source: (gates,) open bit it equals."""

    def __init__(self, fixed: Integers, source: Integers, count: int) -> None:
        self._fixed = (fixed == 1).astype(np.int64)
        open_ = np.flatnonzero(fixed < 0)
        shape = (len(fixed), count)
        self._map = sp.csr_array((np.ones(len(open_), np.int64), (open_, source[open_])), shape=shape)

    def __call__(self, weights: sp.csr_array, thresholds: Integers) -> tuple[sp.csr_array, Integers]:
        """Rows over the layer's bits as rows over its open bits."""
        changed = sp.csr_array(weights @ self._map)
        changed.eliminate_zeros()
        return changed, thresholds - weights @ self._fixed


def _reduce(
    weights: sp.csr_array, thresholds: Integers, upper: Integers, slack: Integers
) -> tuple[Rows, Integers, Integers]:
    """Open rows without repetitions; per row whether it is fixed (-1 where not) and which open row it is.

    slack: (rows,), a row is only fixed when it passes its threshold by so much.
    """
    lowest, highest = weights.minimum(0) @ upper, weights.maximum(0) @ upper
    fixed = np.where(lowest >= thresholds + slack, 1, np.where(highest < thresholds - np.maximum(slack - 1, 0), 0, -1))
    open_ = np.flatnonzero(fixed < 0)
    divided, rounded = _divided(sp.csr_array(weights[open_]), thresholds[open_])
    seen: dict[tuple[bytes, bytes, int], int] = {}
    source = np.full(len(thresholds), -1, np.int64)
    kept: list[int] = []
    for i, (row, threshold) in enumerate(zip(open_.tolist(), rounded.tolist(), strict=True)):
        part = slice(divided.indptr[i], divided.indptr[i + 1])
        key = (divided.indices[part].tobytes(), divided.data[part].tobytes(), threshold)
        if key not in seen:
            seen[key] = len(kept)
            kept.append(i)
        source[row] = seen[key]
    return Rows(sp.csr_array(divided[kept]), rounded[kept]), fixed, source


def _divided(weights: sp.csr_array, thresholds: Integers) -> tuple[sp.csr_array, Integers]:
    """Every row divided by the greatest common divisor of its weights, its threshold rounded up."""
    weights = weights.copy()
    weights.eliminate_zeros()
    weights.sort_indices()
    filled = np.flatnonzero(np.diff(weights.indptr))
    divisor = np.ones(len(thresholds), np.int64)
    if len(filled):
        divisor[filled] = np.gcd.reduceat(np.abs(weights.data), weights.indptr[filled])
    weights.data //= np.repeat(divisor, np.diff(weights.indptr))
    return weights, -(-thresholds // divisor)


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
