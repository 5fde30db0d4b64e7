"""Replay of ReLU splitting: every leaf's bound from its slopes and multipliers, over the bounds of the root.

A leaf fixes signs of ReLU inputs.  A neuron split to be active is z, to be inactive 0; an undecided one has its upper
line over the root's bounds and the lower slope recorded; ``multiplier * sign * z`` is subtracted for every split.  What
remains positive over the whole box closes the leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.errors import ProofError
from verifier.evidence.affine import Node
from verifier.evidence.file import Columns
from verifier.evidence.linear import Backward, Box, Lines, in_parts, lines
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]
Index = NDArray[np.int64]

AGREEMENT = 1e-6
"""By how much, relative to 1 or to itself where that is larger, a claimed bound may exceed the one found here."""


@dataclass(frozen=True, eq=False)
class Neurons:
    """The numbered neurons of a section: ReLU nodes and places, ascending."""

    node: Index
    place: Index

    @staticmethod
    def read(columns: Columns, nodes: tuple[Node, ...]) -> Neurons:
        """Raises ProofError for numbers that the network does not have."""
        node, place = (columns.get(name, np.zeros(0)).astype(np.int64) for name in ("node", "place"))
        for k in np.unique(node).tolist():
            size = nodes[k].size if 0 <= k < len(nodes) and nodes[k].relu else 0
            own = place[node == k]
            if size == 0 or own.min() < 0 or own.max() >= size or np.any(np.diff(own) <= 0):
                raise ProofError("the file names neurons that the network does not have; it is about another model")
        if np.any(np.diff(node) < 0):
            raise ProofError("the neurons of a section are out of order; write the file anew")
        return Neurons(node, place)

    def __len__(self) -> int:
        return len(self.node)

    def own(self, k: int) -> Index:
        """Numbers of the neurons of ReLU node k."""
        return np.flatnonzero(self.node == k)


@dataclass(frozen=True, eq=False)
class Rows:
    """Constraints of a disjunct as rows to bound from below: outputs @ y + inputs @ x - bounds."""

    outputs: Array
    inputs: Array | None
    bounds: Array

    @staticmethod
    def of(disjunct: Disjunct, chosen: Index | None = None) -> Rows:
        part = disjunct.constraints
        index = np.arange(len(part)) if chosen is None else chosen
        inputs = np.asarray(part.inputs)[index] if part.mentions_inputs else None
        return Rows(part.outputs[index], inputs, part.bounds[index])


def subtract(values: Array, bounds: Array) -> Array:
    """The difference, rounded downward."""
    return np.nextafter(values - bounds, -np.inf)


def check_leaves(
    nodes: tuple[Node, ...],
    boxes: list[Box],
    neurons: Neurons,
    disjuncts: tuple[Disjunct, ...],
    chunk: Columns,
) -> None:
    """Raises ProofError unless every leaf of the chunk has a positive bound that is what it claims."""
    total = len(chunk["owner"])
    signs, multipliers = spread(chunk["count"], chunk["splits"], chunk["multipliers"], len(neurons))
    widest = max(node.size for node in nodes)
    for owner in np.unique(chunk["owner"]).tolist():
        rows = Rows.of(disjuncts[owner])
        for part in in_parts(np.flatnonzero(chunk["owner"] == owner), widest):
            chosen = rows_named(chunk["row"][part], rows)
            relus, minus = relaxed(nodes, boxes, neurons, signs[part], chunk["slopes"][part], multipliers[part])
            inputs = None if rows.inputs is None else rows.inputs[chosen]
            passes = Backward(nodes, boxes)
            bound = passes.run(len(nodes) - 1, rows.outputs[chosen], relus, inputs, minus)
            found = subtract(bound.least(boxes[0].low, boxes[0].high), rows.bounds[chosen])
            agree(found, chunk["claim"][part], f"a leaf of disjunct {owner + 1}", total)


def rows_named(row: NDArray[np.int32], rows: Rows) -> Index:
    # Beyond its own rows a disjunct repeats the first, as searches of several disjuncts pad them.
    return np.where(row < len(rows.bounds), row, 0).astype(np.int64)


def relaxed(
    nodes: tuple[Node, ...],
    boxes: list[Box],
    neurons: Neurons,
    signs: Array,
    slopes: Array,
    multipliers: Array,
    ends: tuple[Array, Array] | None = None,
) -> tuple[dict[int, Lines], dict[int, Array]]:
    """Lines of all ReLUs, and what split constraints subtract, for leaves with these signs; each (leaves, neurons).

    ends: bounds on the neurons' inputs in each leaf, (leaves, neurons); those of the root by default.
    """
    if slopes.shape != signs.shape or not np.all((slopes >= 0) & (slopes <= 1)):
        raise ProofError("a leaf has slopes outside [0, 1], or not one for every neuron; write the file anew")
    if not np.all((multipliers >= 0) & np.isfinite(multipliers)):
        raise ProofError("a leaf has a negative multiplier, which proves nothing; write the file anew")
    relus, minus = {}, {}
    for k, node in enumerate(nodes):
        if not node.relu:
            continue
        before, own = boxes[node.sources[0]], neurons.own(k)
        if not len(own):
            relus[k] = lines(before.low[None], before.high[None])
            continue
        place = neurons.place[own]
        low, high = (np.repeat(side[None], len(signs), 0) for side in (before.low, before.high))
        if ends is not None:
            low[:, place], high[:, place] = (side[:, own] for side in ends)
        low[:, place] = np.where(signs[:, own] > 0, np.maximum(low[:, place], 0), low[:, place])
        high[:, place] = np.where(signs[:, own] < 0, np.minimum(high[:, place], 0), high[:, place])
        adaptive = (high > -low).astype(float)
        adaptive[:, place] = slopes[:, own]
        relus[k] = lines(low, high, adaptive)
        if np.any(multipliers[:, own]):
            minus[k] = np.zeros(low.shape)
            minus[k][:, place] = multipliers[:, own] * signs[:, own]
    return relus, minus


def spread(
    counts: NDArray[np.int32], codes: NDArray[np.int32], values: NDArray[np.float32], size: int
) -> tuple[Array, Array]:
    """Signs and multipliers (leaves, neurons) from the ragged columns."""
    neuron = np.abs(codes).astype(np.int64) - 1
    if counts.sum() != len(codes) or len(codes) != len(values) or np.any((neuron < 0) | (neuron >= size)):
        raise ProofError("a leaf is split at a neuron that its section does not have; write the file anew")
    within = np.ones(len(codes), bool)
    within[np.cumsum(counts)[:-1][counts[1:] > 0]] = False
    if np.any(counts < 0) or np.any(within[1:] & (np.diff(neuron) <= 0)):
        raise ProofError("the splits of a leaf are out of order; write the file anew")
    signs, multipliers = np.zeros((len(counts), size)), np.zeros((len(counts), size))
    place = np.repeat(np.arange(len(counts)), counts), neuron
    signs[place], multipliers[place] = np.sign(codes), values
    return signs, multipliers


def agree(found: Array, claims: Array, what: str, total: int) -> None:
    """Raises ProofError unless all bounds are positive and no claim exceeds them."""
    slack = AGREEMENT * np.maximum(1.0, np.abs(claims))
    for fault, bad in (
        ("which does not close it", ~(found > 0)),
        ("less than it claims", ~(found >= claims - slack)),
    ):
        if np.any(bad):
            at = int(np.argmax(bad))
            raise ProofError(
                f"{what} ({total} in this part of the file) is bounded by {found[at]:.6g}, {fault} "
                f"(claimed: {claims[at]:.6g})"
            )
