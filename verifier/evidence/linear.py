"""The checker's own bounds: intervals and backward linear bounds in NumPy, every rounding error subtracted.

A row C over the values of a node is carried back to the input (CROWN, Zhang et al., NeurIPS 2018, theorem 3.2); split
constraints enter with multipliers (beta-CROWN, Wang et al., NeurIPS 2021, theorem 3.1).  Written apart from
``verifier.bounds``, which it does not import, so that a defect there does not repeat itself here.

Rounding (u = 2**-53; Higham, 2002, section 3.1).  The coefficients computed so far count as exact.  One operation on a
coefficient of value v rounds by at most u times the result, which costs at most that times the largest |v|.  A product
C M with sums of k terms is off by at most gamma_k |C| |M|, which costs gamma_k |C| (|M| |x|).  Costs are added up
in ``error``, 1.001 times which is subtracted at the end and covers the rounding of the costs themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.evidence.affine import Node

Array = NDArray[np.float64]

UNIT = 2.0**-53
TINY = 1e-290
"""Above all that underflow can lose."""
ROWS_BYTES = 2**22
"""For one array of coefficients."""


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds on the values of one node: low, high (size,)."""

    low: Array
    high: Array

    @property
    def size(self) -> Array:
        """The largest absolute value."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def undecided(self) -> NDArray[np.bool_]:
        return (self.low < 0) & (self.high > 0)

    def intersect(self, other: Box) -> Box:
        return Box(np.maximum(self.low, other.low), np.minimum(self.high, other.high))


@dataclass(frozen=True, eq=False)
class Lines:
    """lower z <= relu(z) <= upper z + intercept; each (rows or 1, size)."""

    lower: Array
    upper: Array
    intercept: Array


@dataclass(frozen=True, eq=False)
class Linear:
    """value >= coefficients . x + constants - error for every x of the box: (rows, n_inputs), (rows,), (rows,)."""

    coefficients: Array
    constants: Array
    error: Array

    def least(self, low: Array, high: Array) -> Array:
        """Over a box, or a box per row; (rows,)."""
        ends = np.where(self.coefficients > 0, self.coefficients * low, self.coefficients * high)
        room = gamma(ends.shape[1] + 4) * (np.abs(ends).sum(1) + np.abs(self.constants)) + TINY
        found: Array = ends.sum(1) + self.constants - 1.001 * (self.error + room)
        return np.where(np.isfinite(found), found, -np.inf)


def gamma(terms: int) -> float:
    """Relative error of a sum of ``terms`` products, rounded up."""
    return 1.01 * terms * UNIT


def lines(low: Array, high: Array, slopes: Array | None = None) -> Lines:
    """Of a ReLU over low, high, (rows, size); slopes: lower ones of undecided neurons, CROWN's adaptive ones if None.

    Any lower slope in [0, 1] is valid.  The intercept is rounded up until the line passes above (low, 0), (high, high).
    """
    active, undecided = low >= 0, (low < 0) & (high > 0)
    with np.errstate(invalid="ignore", over="ignore"):
        chord = np.where(undecided, np.clip(high / (high - low), 0, 1), active)
        above = np.maximum(-chord * low, (1 - chord) * high) * (1 + 2.0**-48) + TINY
    chosen = np.clip((high > -low).astype(float) if slopes is None else slopes, 0, 1)
    return Lines(np.where(undecided, chosen, active), chord, np.where(undecided, above, 0.0))


def interval(nodes: Sequence[Node], index: int, found: Sequence[Box]) -> Box:
    """Bounds of one node from those of what it reads, in centre and radius, rounded outward."""
    node = nodes[index]
    sources = [found[source] for source in node.sources]
    if node.relu:
        return Box(np.maximum(sources[0].low, 0), np.maximum(sources[0].high, 0))
    assert node.offset is not None
    assert node.offset_error is not None
    centres = [(box.low + box.high) / 2 for box in sources]
    radii = [np.maximum(box.high - c, c - box.low) * (1 + 4 * UNIT) for box, c in zip(sources, centres, strict=True)]
    centre = node.total(centres) + node.offset
    sizes = node.total([np.abs(c) + r for c, r in zip(centres, radii, strict=True)], absolute=True)
    doubt = 3 * gamma(node.terms + 8) * (sizes + np.abs(node.offset)) + 1.001 * node.offset_error + TINY
    radius = node.total(radii, absolute=True) + doubt
    with np.errstate(invalid="ignore"):
        low, high = centre - radius, centre + radius
    return Box(np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high))


class Backward:
    """Backward passes over a network whose node values lie in ``boxes`` (filled as far as passes start)."""

    def __init__(self, nodes: Sequence[Node], boxes: Sequence[Box]) -> None:
        self._nodes, self._boxes = nodes, boxes
        self._costs: dict[int, Array] = {}

    def _cost(self, index: int) -> Array:
        """What rounding in a step back through an affine node costs per unit of coefficient."""
        if index not in self._costs:
            node = self._nodes[index]
            assert node.offset is not None
            assert node.offset_error is not None
            sizes = node.total([self._boxes[source].size for source in node.sources], absolute=True)
            rounding = gamma(node.size + node.terms + 8) * (sizes + np.abs(node.offset))
            self._costs[index] = rounding + node.offset_error + TINY
        return self._costs[index]

    def run(
        self,
        start: int,
        rows: Array,
        relus: Mapping[int, Lines],
        input_rows: Array | None = None,
        multipliers: Mapping[int, Array] | None = None,
    ) -> Linear:
        """Linear lower bounds of ``rows . value(start) + input_rows . x``; rows: (count, size of start).

        multipliers: per ReLU node, (count, size): sign times a nonnegative multiplier, subtracted from the coefficients
        of its input, which is valid where sign * input >= 0.
        """
        pending: dict[int, Array] = {start: rows}
        constants, size, error = np.zeros(len(rows)), np.zeros(len(rows)), np.full(len(rows), TINY)
        longest = 2 * len(self._nodes) + 8

        def arrive(index: int, part: Array, rounded: bool) -> None:
            nonlocal error
            size_of = self._boxes[index].size
            if rounded:
                error = error + UNIT * (np.abs(part) @ size_of) + TINY
            if index in pending:
                part = pending[index] + part
                error = error + UNIT * (np.abs(part) @ size_of) + TINY
            pending[index] = part

        for index in range(start, 0, -1):
            values = pending.pop(index, None)
            if values is None:
                continue
            node = self._nodes[index]
            if not node.relu:
                assert node.offset is not None
                longest = max(longest, node.size + 2 * len(self._nodes) + 8)
                error = error + np.abs(values) @ self._cost(index)
                constants, size = constants + values @ node.offset, size + np.abs(values) @ np.abs(node.offset)
                for source, matrix in zip(node.sources, node.matrices, strict=True):
                    arrive(source, values @ matrix, False)
                continue
            line = relus[index]
            longest = max(longest, node.size + 2 * len(self._nodes) + 8)
            below = np.minimum(values, 0)
            part = below * line.intercept
            constants, size = constants + part.sum(1), size - part.sum(1)
            back = np.where(values > 0, values * line.lower, below * line.upper)
            arrive(node.sources[0], back, True)
            if multipliers is not None and index in multipliers:
                arrive(node.sources[0], -multipliers[index], False)
        if input_rows is not None:
            arrive(0, input_rows, False)
        final = pending.pop(0, np.zeros((len(rows), self._nodes[0].size)))
        return Linear(final, constants, error + gamma(longest) * size)


def crown(nodes: Sequence[Node], low: Array, high: Array) -> list[Box]:
    """Bounds on every node over a box: intervals, and for undecided ReLU inputs plain CROWN, adaptive slopes."""
    found = [Box(low, high)]
    inputs = {node.sources[0] for node in nodes if node.relu}
    passes = Backward(nodes, found)
    relus: dict[int, Lines] = {}
    for index in range(1, len(nodes)):
        found.append(interval(nodes, index, found))
        if nodes[index].relu:
            before = found[nodes[index].sources[0]]
            relus[index] = lines(before.low[None], before.high[None])
        elif index in inputs:
            found[index] = _tightened(nodes, passes, index, relus, found[index], (low, high))
    return found


def _tightened(
    nodes: Sequence[Node],
    passes: Backward,
    index: int,
    relus: Mapping[int, Lines],
    known: Box,
    box: tuple[Array, Array],
) -> Box:
    ends = [known.low.copy(), known.high.copy()]
    places = np.flatnonzero(known.undecided)
    for part in in_parts(places, max(node.size for node in nodes[: index + 1])):
        for side, sign in ((0, 1.0), (1, -1.0)):
            least = passes.run(index, unit_rows(part, sign, nodes[index].size), relus).least(*box)
            ends[side][part] = (
                np.maximum(ends[side][part], least) if side == 0 else np.minimum(ends[side][part], -least)
            )
    return Box(ends[0], ends[1])


def unit_rows(places: NDArray[np.int64], signs: Array | float, size: int) -> Array:
    """(count, size): ``signs`` at one place each."""
    rows = np.zeros((len(places), size))
    rows[np.arange(len(places)), places] = signs
    return rows


def in_parts(index: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    """An index cut so that one array of rows of that width stays small."""
    count = max(1, ROWS_BYTES // (8 * width))
    return [index[first : first + count] for first in range(0, len(index), count)]
