"""Replay of input splitting: every box of the tree bounded anew, many at once.

The file holds the tree: where each box was cut in two.  What a box is, follows: the half of its parent, clipped to
where the rows of the disjuncts still open can hold.  Here as in the search a box is bounded by

- a zonotope (DeepZ, Singh et al., NeurIPS 2018, section 4) with a generator per input and per undecided ReLU, and a
  term for all rounding errors; a neuron decided in a box is decided in all boxes inside.  Networks whose layers branch
  or that are large have plain CROWN (``linear.crown``) in its place;
- a backward pass (``linear``) over the zonotope's bounds for every row: a disjunct is closed by a positive row, and a
  row that is at least m, with slope s along an input, cannot hold further than -m / |s| from its lower end.

A leaf that does not close at once is halved a few times more: the search may have been luckier with rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.errors import ProofError
from verifier.evidence.affine import Matrix, Node
from verifier.evidence.leaves import Rows
from verifier.evidence.linear import TINY, UNIT, Backward, Box, Lines, crown, gamma, lines
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Ends = dict[int, tuple[Array, Array]]
"""Per ReLU node bounds on its input, (boxes, size) each."""

LEAF, SMALLEST = -1, -2
"""Codes of nodes that are not split: closed, and open but too small to split."""
BATCH = 128
ROUNDS, MORE_ROUNDS, KEPT = 2, 8, 0.8
"""A box is bounded again after clipping unless more than this share of it is left, so often at most: more often where
zonotopes do not serve, as in the search there."""
MOST_NEURONS = 3000
"""A zonotope of more takes too much memory."""
MORE_HALVES = 4
"""How often a leaf that does not close is halved."""


@dataclass(frozen=True, eq=False)
class Tree:
    """codes: per node in the order visited, depth first; inputs i and n_inputs + i mean a split of input i whose lower,
    or upper, half comes next.  positions: of the splits.  other: where the second half is visited, -1 where never.
    """

    codes: NDArray[np.int16]
    positions: Array
    other: Index

    @staticmethod
    def read(codes: NDArray[np.int16], splits: Array, n_inputs: int) -> Tree:
        """Raises ProofError for what is no tree.  Nodes that are missing at the end are open."""
        split = codes >= 0
        if (
            np.any((codes < SMALLEST) | (codes >= 2 * n_inputs))
            or int(split.sum()) != len(splits)
            or not np.all(np.isfinite(splits))
        ):
            raise ProofError("the tree of boxes names inputs or cuts that do not exist; write the file anew")
        positions, other = np.zeros(len(codes)), np.full(len(codes), -1, np.int64)
        positions[split] = splits
        waiting: list[int] = []
        for at, code in enumerate(codes.tolist()):
            if at and codes[at - 1] < 0:
                if not waiting:
                    raise ProofError("the tree of boxes has nodes that belong to no box; write the file anew")
                other[waiting.pop()] = at
            if code >= 0:
                waiting.append(at)
        return Tree(codes, positions, other)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Boxes low, high (count, n_inputs); live (count, disjuncts); ends: what their parents knew.

    node: of the tree, -1 for boxes without one; halves: how often a leaf may still be halved.
    """

    low: Array
    high: Array
    live: NDArray[np.bool_]
    ends: Ends
    node: Index
    halves: Index

    def pick(self, index: Index) -> _Batch:
        ends = {k: (low[index], high[index]) for k, (low, high) in self.ends.items()}
        return _Batch(self.low[index], self.high[index], self.live[index], ends, self.node[index], self.halves[index])

    @staticmethod
    def join(parts: Sequence[_Batch]) -> _Batch:
        ends = {
            k: (np.concatenate([p.ends[k][0] for p in parts]), np.concatenate([p.ends[k][1] for p in parts]))
            for k in parts[0].ends
        }
        low, high, live, node, halves = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("low", "high", "live", "node", "halves")
        )
        return _Batch(low, high, live, ends, node, halves)


class Boxes:
    """The replay of one search over the box of ``disjuncts``; boxes: bounds on all nodes over it."""

    def __init__(self, nodes: tuple[Node, ...], boxes: list[Box], disjuncts: Sequence[Disjunct], tree: Tree) -> None:
        self._nodes, self._tree = nodes, tree
        neurons = sum(node.size for node in nodes if node.relu)
        self._zonotope = neurons <= MOST_NEURONS and all(len(node.sources) <= 1 for node in nodes)
        self._passes = Backward(nodes, boxes)
        parts = [Rows.of(disjunct) for disjunct in disjuncts]
        self._outputs, self._bounds = (np.concatenate([getattr(p, n) for p in parts]) for n in ("outputs", "bounds"))
        width = nodes[0].size
        self._inputs = np.concatenate(
            [np.zeros((len(p.bounds), width)) if p.inputs is None else p.inputs for p in parts]
        )
        self._owner = np.repeat(np.arange(len(parts)), [len(p.bounds) for p in parts])
        self._count = len(parts)
        self._root = boxes
        self.open = np.zeros(len(parts), np.int64)

    def run(self) -> Iterator[int]:
        """Replay everything; yields how many boxes are left, or more.  Counts open ones per disjunct in ``open``."""
        done = 0
        root = self._root
        ends = {
            k: (root[n.sources[0]].low[None], root[n.sources[0]].high[None])
            for k, n in enumerate(self._nodes)
            if n.relu
        }
        whole = np.zeros(1, np.int64) if len(self._tree.codes) else np.full(1, -1)
        live = np.ones((1, self._count), bool)
        waiting = [_Batch(root[0].low[None], root[0].high[None], live, ends, whole, np.full(1, MORE_HALVES))]
        while waiting:
            parts, size = [], 0
            while waiting and size < BATCH:
                parts.append(waiting.pop())
                size += len(parts[-1].node)
            batch = _Batch.join(parts)
            for rest in range(BATCH, len(batch.node), BATCH):
                waiting.append(batch.pick(np.arange(rest, min(rest + BATCH, len(batch.node)))))
            batch = batch.pick(np.arange(min(BATCH, len(batch.node))))
            # What the tree does not reach is open, whatever its bounds.
            self.open += batch.live[batch.node < 0].sum(0)
            batch = batch.pick(np.flatnonzero(batch.node >= 0))
            if not len(batch.node):
                continue
            codes = self._tree.codes[batch.node]
            known, score = self._bounded(batch)
            still = known.live.any(1)
            done += len(codes)
            yield max(0, len(self._tree.codes) - done)
            split, leaf = np.flatnonzero(still & (codes >= 0)), still & (codes == LEAF)
            halved = np.flatnonzero(leaf & (known.halves > 0))
            self.open += known.live[(leaf & (known.halves == 0)) | (codes == SMALLEST)].sum(0)
            for children in (*self._children(known, split, codes), *_halves(known, halved, score)):
                if len(children.node):
                    waiting.append(children)

    def _children(self, known: _Batch, at: Index, codes: NDArray[np.int16]) -> Iterator[_Batch]:
        """The two parts of split boxes."""
        width = known.low.shape[1]
        node, dimension = known.node[at], codes[at].astype(np.int64) % width
        above_first = codes[at] >= width
        for upper in (False, True):
            following = np.where(above_first == upper, node + 1, self._tree.other[node])
            # Beyond the end of the tree boxes are open.
            following = np.where(following < len(self._tree.codes), following, -1)
            yield _cut(known.pick(at), dimension, self._tree.positions[node], upper, following)

    def _bounded(self, batch: _Batch) -> tuple[_Batch, Array]:
        """The boxes clipped, with the disjuncts they leave open; and where relaxation is lost, (boxes, n_inputs)."""
        score = batch.high - batch.low
        again = np.flatnonzero(batch.live.any(1) & np.all(batch.low <= batch.high, axis=1))
        empty = np.any(batch.low > batch.high, axis=1)
        batch.live[empty] = False
        for _ in range(ROUNDS if self._zonotope else MORE_ROUNDS):
            if not len(again):
                break
            part = batch.pick(again)
            ends = self._zonotopes(part) if self._zonotope else self._crowned(part)
            low, high, live, own_score = self._clipped(part, ends)
            with np.errstate(invalid="ignore", divide="ignore"):
                shares = np.where(part.high > part.low, (high - low) / (part.high - part.low), 1.0)
            kept = np.prod(np.clip(shares, 0, 1), axis=1)
            batch.low[again], batch.high[again], batch.live[again], score[again] = low, high, live, own_score
            for k, sides in ends.items():
                for mine, side in zip(batch.ends[k], sides, strict=True):
                    mine[again] = side
            again = again[live.any(1) & (kept <= KEPT)]
        return batch, score

    def _crowned(self, batch: _Batch) -> Ends:
        """The same by plain CROWN, box by box, for networks whose layers branch, or that are large."""
        found = {k: (low.copy(), high.copy()) for k, (low, high) in batch.ends.items()}
        for at in range(len(batch.low)):
            boxes = crown(self._nodes, batch.low[at], batch.high[at])
            for k, (low, high) in found.items():
                own = boxes[self._nodes[k].sources[0]]
                low[at], high[at] = np.maximum(low[at], own.low), np.minimum(high[at], own.high)
        return found

    def _zonotopes(self, batch: _Batch) -> Ends:
        """Bounds on the inputs of all ReLUs, not looser than the parents'."""
        count, width = batch.low.shape
        centre = ((batch.low + batch.high) / 2).T
        reach = np.maximum(batch.high.T - centre, centre - batch.low.T) * (1 + 4 * UNIT)
        generators = np.zeros((width, count, width))
        generators[np.arange(width), :, np.arange(width)] = reach
        doubt = np.full((width, count), TINY)
        rows = np.arange(width)  # all others have no generators
        found: Ends = {}
        for k, node in enumerate(self._nodes[1:], 1):
            if not node.relu:
                assert node.offset is not None
                assert node.offset_error is not None
                matrix, magnitude = node.matrices[0], node.magnitudes[0]
                total = magnitude @ (np.abs(centre) + reach + doubt)
                rounding = 3 * gamma(node.terms + 8) * (total + np.abs(node.offset)[:, None])
                doubt = (magnitude @ doubt) * (1 + 8 * UNIT * node.size) + rounding + node.offset_error[:, None] + TINY
                centre = matrix @ centre + node.offset[:, None]
                generators = _times(matrix[:, rows], generators)
                rows = np.arange(node.size)
                reach = np.abs(generators).sum(2) * (1 + 2 * gamma(generators.shape[2]))
                continue
            radius = reach + doubt
            wide = 8 * UNIT * (np.abs(centre) + radius) + TINY
            low = np.maximum((centre - radius - wide).T, batch.ends[k][0])
            high = np.minimum((centre + radius + wide).T, batch.ends[k][1])
            found[k] = low, high
            line = lines(low, high)
            slope, band = line.upper.T, line.intercept.T / 2
            doubt = slope * doubt + 8 * UNIT * (slope * (np.abs(centre) + radius) + band) + TINY
            centre = slope * centre + band
            reach = (slope * reach + band) * (1 + 4 * UNIT)
            rows, fresh = np.flatnonzero((slope > 0).any(1)), np.flatnonzero((band > 0).any(1))
            known = generators.shape[2]
            scaled = np.zeros((len(rows), count, known + len(fresh)))
            np.multiply(generators[rows], slope[rows, :, None], out=scaled[:, :, :known])
            scaled[np.searchsorted(rows, fresh), :, known + np.arange(len(fresh))] = band[fresh]
            generators = scaled
        return found

    def _clipped(self, batch: _Batch, ends: Ends) -> tuple[Array, Array, NDArray[np.bool_], Array]:
        """Boxes clipped by the rows of open disjuncts (hull over these), what remains live, and splitting scores."""
        box, row = np.nonzero(batch.live[:, self._owner])
        relus: dict[int, Lines] = {k: lines(low[box], high[box]) for k, (low, high) in ends.items()}
        bound = self._passes.run(len(self._nodes) - 1, self._outputs[row], relus, self._inputs[row])
        low, high = batch.low[box], batch.high[box]
        least = bound.least(low, high)
        margin = np.nextafter(least - self._bounds[row], -np.inf)
        live = batch.live.copy()
        live[box[margin > 0], self._owner[row[margin > 0]]] = False
        slope = bound.coefficients
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            reach = np.maximum(-margin, 0)[:, None] / np.abs(slope) * (1 + 2.0**-50)
            reach = np.where(np.isnan(reach), np.inf, reach)
        below = np.where(slope < 0, np.nextafter(high - reach, -np.inf), -np.inf)
        above = np.where(slope > 0, np.nextafter(low + reach, np.inf), np.inf)
        shape = (len(batch.low), self._count, low.shape[1])
        own_low, own_high = (
            np.broadcast_to(batch.low[:, None], shape).copy(),
            np.broadcast_to(batch.high[:, None], shape).copy(),
        )
        np.maximum.at(own_low, (box, self._owner[row]), below)
        np.minimum.at(own_high, (box, self._owner[row]), above)
        live &= np.all(own_low <= own_high, axis=2)
        hull_low = np.where(live[:, :, None], own_low, np.inf).min(1)
        hull_high = np.where(live[:, :, None], own_high, -np.inf).max(1)
        closed = ~live.any(1)
        hull_low[closed], hull_high[closed] = batch.low[closed], batch.high[closed]
        score = np.zeros_like(batch.low)
        np.maximum.at(score, box, np.abs(slope) * (high - low) + TINY * (high - low))
        return hull_low, hull_high, live, score


def _times(matrix: Matrix, generators: Array) -> Array:
    """(rows, boxes, generators)."""
    product: Array = matrix @ generators.reshape(len(generators), -1)
    return product.reshape(-1, *generators.shape[1:])


def _halves(known: _Batch, at: Index, score: Array) -> Iterator[_Batch]:
    """The halves of leaves that did not close: nodes of their own, still leaves."""
    part = known.pick(at)
    dimension = score[at].argmax(1)
    own = np.arange(len(at)), dimension
    middle = (part.low[own] + part.high[own]) / 2
    for upper in (False, True):
        half = _cut(part, dimension, middle, upper, part.node)
        yield _Batch(half.low, half.high, half.live, half.ends, half.node, part.halves - 1)


def _cut(part: _Batch, dimension: Index, position: Array, upper: bool, node: Index) -> _Batch:
    low, high = part.low.copy(), part.high.copy()
    own = np.arange(len(dimension)), dimension
    if upper:
        low[own] = np.maximum(low[own], position)
    else:
        high[own] = np.minimum(high[own], position)
    ends = {k: (a.copy(), b.copy()) for k, (a, b) in part.ends.items()}
    return _Batch(low, high, part.live.copy(), ends, node, part.halves)
