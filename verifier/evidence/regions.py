"""Replay of the refining search: bounds on all ReLU inputs anew in every region, then the bounds of its leaves.

Parents come before children in the file, and a child starts from its parent's bounds.  Layer by layer, from the first
that the file names:

1. Both sides of every undecided neuron, and of a split one the side against its sign, are bounded by backward passes
   whose slopes are those of the root, moved along with the neurons' upper lines: clip(slope + 3/2 (u / (u - l) -
   u0 / (u0 - l0)), 0, 1).  Any slope in [0, 1] would be valid.
2. The linear upper bound of sign * z of a split neuron becomes a halfspace H x + h >= 0 that contains the region.
3. A row C x + d is bounded over the box, or over the box by (C - sum b H) x + d - sum b h with recorded b >= 0.

Crossed bounds show that a region is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from verifier.errors import ProofError
from verifier.evidence.affine import Node
from verifier.evidence.file import Columns
from verifier.evidence.leaves import Neurons, Rows, agree, relaxed, rows_named, spread, subtract
from verifier.evidence.linear import TINY, Backward, Linear, Lines, gamma, in_parts, lines, unit_rows
from verifier.evidence.root import Root
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SHIFT = 1.5


@dataclass(eq=False)
class _Halfspaces:
    """coefficients @ x + constants >= 0 for all x of a region, in order of the neurons they belong to."""

    neurons: list[int] = field(default_factory=list)
    coefficients: list[Array] = field(default_factory=list)
    constants: list[float] = field(default_factory=list)

    def least(self, bound: Linear, weights: Array, low: Array, high: Array) -> Array:
        """The larger of the least values over the box alone and with these weights, (rows, halfspaces)."""
        plain = bound.least(low, high)
        if not len(self.neurons) or not np.any(weights):
            return plain
        if not np.all((weights >= 0) & np.isfinite(weights)):
            raise ProofError("a halfspace has a negative weight, which proves nothing; write the file anew")
        H, h = np.stack(self.coefficients), np.array(self.constants)
        size = np.maximum(np.abs(low), np.abs(high))
        terms = gamma(len(h) + 4)
        doubt = terms * ((np.abs(bound.coefficients) + weights @ np.abs(H)) @ size)
        doubt += terms * (np.abs(bound.constants) + weights @ np.abs(h)) + TINY
        cut = Linear(bound.coefficients - weights @ H, bound.constants - weights @ h, bound.error + doubt)
        return np.maximum(plain, cut.least(low, high))


class Regions:
    """The replay of one search, fed with its regions one by one.  parents: the splits of those that have children."""

    def __init__(
        self,
        nodes: tuple[Node, ...],
        root: Root,
        neurons: Neurons,
        tables: list[int],
        disjuncts: tuple[Disjunct, ...],
        leaves: Columns,
        parents: set[tuple[int, ...]],
    ) -> None:
        self._nodes, self._root, self._neurons, self._tables = nodes, root, neurons, tables
        self._disjuncts, self._leaves, self._parents = disjuncts, leaves, parents
        self._ends = np.cumsum(leaves["count"]) if leaves else np.zeros(0, np.int64)
        self._passes = Backward(nodes, root.boxes)
        self._known: dict[tuple[int, ...], tuple[Array, Array, int]] = {}
        self.count = 0
        self.empty: list[NDArray[np.int32]] = []
        sides = [np.zeros(len(neurons)), np.zeros(len(neurons))]
        for k in np.unique(neurons.node).tolist():
            own, before = neurons.own(k), root.boxes[nodes[k].sources[0]]
            sides[0][own], sides[1][own] = before.low[neurons.place[own]], before.high[neurons.place[own]]
        self._low, self._high = sides
        with np.errstate(invalid="ignore", divide="ignore"):
            self._whole = np.nan_to_num(self._high / (self._high - self._low))

    def check(self, chunk: Columns, at: int, codes: NDArray[np.int32], cuts: slice) -> None:
        """One region: row ``at`` of a chunk, its splits, and where its weights stand in the chunk."""
        low, high = self._start(int(chunk["last"][at]), codes)
        signs = np.zeros(len(self._neurons))
        signs[np.abs(codes) - 1] = np.sign(codes)
        low, high = np.where(signs > 0, np.maximum(low, 0), low), np.where(signs < 0, np.minimum(high, 0), high)
        spaces = _Halfspaces()
        weights = {name: chunk[f"cut_{name}"][cuts] for name in ("neuron", "side", "split", "value")}
        for k in range(len(self._nodes)):
            if self._nodes[k].relu and len(self._neurons.own(k)):
                self._bound_layer(k, k >= int(chunk["first"][at]), signs, low, high, spaces, weights)
        if tuple(sorted(codes.tolist())) in self._parents:
            self._known[tuple(sorted(codes.tolist()))] = low, high, 2
        if chunk["empty"][at]:
            if not np.any(low > high):
                raise ProofError(f"region {self.count + 1} is said to be empty, but its bounds do not cross")
            self.empty.append(codes)
        self._close(self.count, signs, low, high, spaces)
        self.count += 1

    def _start(self, last: int, codes: NDArray[np.int32]) -> tuple[Array, Array]:
        """The bounds of the parent; forgotten once both children are there."""
        if not len(codes):
            return self._low.copy(), self._high.copy()
        key = tuple(sorted(code for code in codes.tolist() if abs(code) != last + 1))
        if len(key) != len(codes) - 1 or key not in self._known:
            raise ProofError(f"region {self.count + 1} has no parent before it; write the file anew")
        low, high, left = self._known.pop(key)
        if left > 1:
            self._known[key] = low, high, left - 1
        return low.copy(), high.copy()

    def _bound_layer(
        self,
        k: int,
        anew: bool,
        signs: Array,
        low: Array,
        high: Array,
        spaces: _Halfspaces,
        weights: dict[str, NDArray],
    ) -> None:
        """Bound the numbered inputs of ReLU node k, in place, and add the halfspaces of its split neurons."""
        nodes, own = self._nodes, self._neurons.own(k)
        undecided = own[(low[own] < 0) & (high[own] > 0)] if anew else own[:0]
        split = own[signs[own] != 0]
        number = np.concatenate([split, undecided, undecided])
        side = np.concatenate([signs[split] > 0, np.zeros(len(undecided)), np.ones(len(undecided))]).astype(np.int64)
        if not len(number):
            return
        source = nodes[k].sources[0]
        widest = max(node.size for node in nodes[: k + 1])
        relus = self._lines(k, low, high)
        box = self._root.boxes[0]
        for part in in_parts(np.arange(len(number)), widest):
            chosen = np.where(side[part] == 0, 1.0, -1.0)
            rows = unit_rows(self._neurons.place[number[part]], chosen, nodes[source].size)
            sloped = self._sloped(k, relus, number[part], side[part], low, high)
            bound = self._passes.run(source, rows, sloped)
            for i in np.flatnonzero(part < len(split)).tolist():
                spaces.neurons.append(int(number[part[i]]))
                spaces.coefficients.append(-bound.coefficients[i])
                # Rounding of the linear bound makes the halfspace larger.
                spaces.constants.append(float(np.nextafter(-bound.constants[i] + 1.001 * bound.error[i], np.inf)))
            used = _weights_of(weights, number[part], side[part], spaces.neurons)
            least = spaces.least(bound, used, box.low, box.high)
            below = side[part] == 0
            np.maximum.at(low, number[part][below], least[below])
            np.minimum.at(high, number[part][~below], -least[~below])

    def _lines(self, k: int, low: Array, high: Array) -> dict[int, Lines]:
        return {j: lines(*self._ends_of(j, low, high)) for j in range(k) if self._nodes[j].relu}

    def _ends_of(self, j: int, low: Array, high: Array) -> tuple[Array, Array]:
        """Bounds on the whole input of ReLU node j, (1, size) each."""
        before, own = self._root.boxes[self._nodes[j].sources[0]], self._neurons.own(j)
        sides = before.low.copy(), before.high.copy()
        for side, values in zip(sides, (low, high), strict=True):
            side[self._neurons.place[own]] = values[own]
        return sides[0][None], sides[1][None]

    def _sloped(
        self, k: int, relus: dict[int, Lines], number: Index, side: Index, low: Array, high: Array
    ) -> dict[int, Lines]:
        """The lines with the rows' own slopes."""
        if k not in self._tables or k not in self._root.slopes:
            return relus
        table = self._root.slopes[k]
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = np.clip(np.nan_to_num(high / (high - low), posinf=0, neginf=0), 0, 1)
        count = table.shape[2]
        at = np.searchsorted(self._neurons.own(k), number)
        slopes = np.clip(table[side, at] + SHIFT * (inside - self._whole)[:count], 0, 1)
        found = dict(relus)
        for j in np.unique(self._neurons.node[:count]).tolist():
            mine, ends = self._neurons.own(j), self._ends_of(j, low, high)
            chosen = np.zeros((len(number), self._nodes[j].size))
            chosen[:, self._neurons.place[mine]] = slopes[:, mine]
            found[j] = lines(*ends, chosen)
        return found

    def _close(self, region: int, signs: Array, low: Array, high: Array, spaces: _Halfspaces) -> None:
        """The disjuncts that are closed in a region."""
        leaves, nodes = self._leaves, self._nodes
        box = self._root.boxes[0]
        for i in np.flatnonzero(leaves["region"] == region).tolist() if leaves else ():
            mine = slice(int(self._ends[i] - leaves["count"][i]), int(self._ends[i]))
            own, multipliers = spread(
                leaves["count"][i : i + 1], leaves["splits"][mine], leaves["multipliers"][mine], len(self._neurons)
            )
            if not np.array_equal(own[0], signs):
                raise ProofError(f"region {region + 1} has other splits than its leaf; write the file anew")
            rows = Rows.of(self._disjuncts[int(leaves["owner"][i])])
            row = rows_named(leaves["row"][i : i + 1], rows)
            slopes = leaves["slopes"][i : i + 1]
            relus, minus = relaxed(
                nodes, self._root.boxes, self._neurons, own, slopes, multipliers, (low[None], high[None])
            )
            inputs = None if rows.inputs is None else rows.inputs[row]
            bound = self._passes.run(len(nodes) - 1, rows.outputs[row], relus, inputs, minus)
            least = spaces.least(bound, leaves["cut_value"][mine][None], box.low, box.high)
            found = subtract(least, rows.bounds[row])
            agree(found, leaves["claim"][i : i + 1], f"region {region + 1}", 1)


def _weights_of(weights: dict[str, NDArray], number: Index, side: Index, order: list[int]) -> Array:
    """(rows, halfspaces so far) of the rows that bound these neurons from these sides."""
    found = np.zeros((len(number), len(order)))
    rows = {(int(n), int(s)): i for i, (n, s) in enumerate(zip(number, side, strict=True))}
    columns = {neuron: i for i, neuron in enumerate(order)}
    mine = np.isin(weights["neuron"], number)
    parts = (weights[name][mine].tolist() for name in ("neuron", "side", "split", "value"))
    for neuron, which, split, value in zip(*parts, strict=True):
        row, column = rows.get((neuron, which)), columns.get(split)
        if row is not None and column is not None:
            found[row, column] = value
    return found
