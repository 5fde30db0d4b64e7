"""The bounds that a search starts from, computed again: plain CROWN, then the recorded rows of alpha-CROWN.

A row bounds one undecided ReLU input from one side with lower slopes of its own on all earlier undecided neurons (Xu
et al., Fast and Complete, ICLR 2021, section 3).  Nodes go in order; each is first met with the interval that the
tighter bounds before it give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.errors import ProofError
from verifier.evidence.affine import Node
from verifier.evidence.file import Columns
from verifier.evidence.leaves import Neurons
from verifier.evidence.linear import Backward, Box, Lines, in_parts, interval, lines, unit_rows

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Root:
    """boxes: bounds on every node.  slopes: per ReLU node [2, own neurons, earlier neurons], lower rows then upper."""

    boxes: list[Box]
    slopes: dict[int, NDArray[np.float32]]


def optimised(nodes: tuple[Node, ...], boxes: list[Box], neurons: Neurons, rows: Columns) -> Root:
    """The root with recorded rows; ``boxes`` are plain CROWN's.  Raises ProofError for rows that make no sense."""
    found = [boxes[0]]
    order = np.arange(len(rows.get("node", ())))
    ends = np.cumsum(rows["count"]) if len(order) else np.zeros(0, np.int64)
    slopes: dict[int, NDArray[np.float32]] = {}
    relus: dict[int, Lines] = {}
    reader = {node.sources[0]: k for k, node in enumerate(nodes) if node.relu}
    for index in range(1, len(nodes)):
        found.append(boxes[index].intersect(interval(nodes, index, found)))
        if nodes[index].relu:
            before = found[nodes[index].sources[0]]
            relus[index] = lines(before.low[None], before.high[None])
        k = reader.get(index)
        mine = order[rows["node"] == k] if k is not None and len(order) else order[:0]
        if k is None or not len(mine):
            continue
        earlier = np.flatnonzero(neurons.node < k)
        place = rows["place"][mine].astype(np.int64)
        if np.any(rows["count"][mine] != len(earlier)) or np.any((place < 0) | (place >= nodes[index].size)):
            raise ProofError("a row of the optimised bounds does not fit the network; the file is about another model")
        own = rows["slopes"][ends[mine][:, None] - len(earlier) + np.arange(len(earlier))]
        if not np.all((own >= 0) & (own <= 1)):
            raise ProofError("a row of the optimised bounds has slopes outside [0, 1]; write the file anew")
        found[index] = _met(nodes, found, neurons, relus, index, place, rows["side"][mine], own)
        slopes[k] = _table(found, nodes, neurons, k, place, rows["side"][mine], own)
    return Root(found, slopes)


def _met(
    nodes: tuple[Node, ...],
    found: list[Box],
    neurons: Neurons,
    relus: dict[int, Lines],
    index: int,
    place: NDArray[np.int64],
    side: NDArray[np.int8],
    own: NDArray[np.float32],
) -> Box:
    """Bounds of one node, met with those of its rows."""
    low, high = found[index].low.copy(), found[index].high.copy()
    signs = np.where(side == 0, 1.0, -1.0)
    for part in in_parts(np.arange(len(place)), max(node.size for node in nodes[: index + 1])):
        sloped = with_slopes(nodes, found, neurons, relus, own[part].astype(np.float64))
        rows = unit_rows(place[part], signs[part], nodes[index].size)
        least = Backward(nodes, found).run(index, rows, sloped).least(found[0].low, found[0].high)
        below = side[part] == 0
        np.maximum.at(low, place[part][below], least[below])
        np.minimum.at(high, place[part][~below], -least[~below])
    return Box(low, high)


def with_slopes(
    nodes: tuple[Node, ...], boxes: list[Box], neurons: Neurons, relus: dict[int, Lines], slopes: Array
) -> dict[int, Lines]:
    """The lines with a slope per row on the first numbered neurons: (rows, earlier neurons)."""
    found = dict(relus)
    for j in relus:
        mine = neurons.own(j)
        mine = mine[mine < slopes.shape[1]]
        if len(mine):
            before = boxes[nodes[j].sources[0]]
            chosen = np.repeat((before.high > -before.low).astype(np.float64)[None], len(slopes), 0)
            chosen[:, neurons.place[mine]] = slopes[:, mine]
            found[j] = lines(before.low[None], before.high[None], chosen)
    return found


def _table(
    found: list[Box],
    nodes: tuple[Node, ...],
    neurons: Neurons,
    k: int,
    place: NDArray[np.int64],
    side: NDArray[np.int8],
    own: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Slopes of the rows of node k's numbered neurons; CROWN's adaptive ones for rows that were not recorded."""
    numbers = neurons.own(k)
    adaptive = np.zeros(own.shape[1], np.float32)
    for j in np.unique(neurons.node[: own.shape[1]]).tolist():
        before, mine = found[nodes[j].sources[0]], neurons.own(j)
        adaptive[mine] = (before.high > -before.low)[neurons.place[mine]]
    table = np.broadcast_to(adaptive, (2, len(numbers), own.shape[1])).copy()
    at = np.searchsorted(neurons.place[numbers], place)
    known = at < len(numbers)
    known[known] = neurons.place[numbers][at[known]] == place[known]
    table[side[known].astype(np.int64), at[known]] = own[known]
    return table
