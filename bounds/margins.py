"""Lower bounds on the margins of disjuncts: the first stage of a run, and the one that closes easy properties.

Disjuncts that share a box are bounded together; different boxes form a batch.  A disjunct is impossible when one
of its rows is bounded above zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.beta_crown import Rows
from verifier.bounds.box_bounds import bounds_over, margins_over
from verifier.bounds.crown import backward, intermediate_bounds, relax
from verifier.bounds.level import Bounds, Level
from verifier.bounds.rounding import attainable_level
from verifier.deadline import Deadline
from verifier.model.network import Network
from verifier.vnnlib.spec import Disjunct

BATCH_BYTES = 2**26
"""Memory for the values of all nodes over one batch of boxes."""
CROWN, AFFINE_FORMS = "crown", "affine forms"
"""Methods."""
FEW_INPUTS, WIDE = 16, 256
"""Where no more inputs vary and some layer has more ReLUs, these are bounded by affine forms first (``box_bounds``)."""


@dataclass(frozen=True, eq=False)
class BoxGroup:
    """The disjuncts, by position, over one box (lower, upper: (n_inputs,))."""

    positions: tuple[int, ...]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GroupBounds:
    """What is known over one box.

    nodes: bounds on every node, [1, *shape].
    margins: for each position of the group a lower bound on its margin.  method: how they were found.
    """

    group: BoxGroup
    nodes: tuple[Bounds, ...]
    margins: tuple[float, ...]
    level: Level
    method: str


def group_by_box(disjuncts: Sequence[Disjunct]) -> list[BoxGroup]:
    """Disjuncts with equal boxes together, in order of first appearance."""
    found: dict[tuple[bytes, bytes], list[int]] = {}
    seen: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    for position, disjunct in enumerate(disjuncts):
        identity = (id(disjunct.lower), id(disjunct.upper))
        key = seen.setdefault(identity, (disjunct.lower.tobytes(), disjunct.upper.tobytes()))
        found.setdefault(key, []).append(position)
    return [
        BoxGroup(tuple(positions), disjuncts[positions[0]].lower, disjuncts[positions[0]].upper)
        for positions in found.values()
    ]


def margin_bounds(
    network: Network, disjuncts: Sequence[Disjunct], deadline: Deadline, forms: bool = True
) -> Iterator[GroupBounds]:
    """Bounds over each box in turn, until all are done or the deadline passes.

    The network's dtype and device are used; only float64 on the CPU gives rigorous bounds.
    forms: whether wide networks of few inputs are bounded by affine forms first; else all are by plain CROWN.
    """
    groups = group_by_box(disjuncts)
    size = sum(node.size for node in network.nodes) * 8
    forms = forms and any(_is_wide_of_few_inputs(network, group.lower, group.upper) for group in groups)
    batch = max(1, min(256, BATCH_BYTES // (size * (FEW_INPUTS if forms else 1))))
    for first in range(0, len(groups), batch):
        if deadline.expired:
            return
        yield from _bound_batch(network, disjuncts, groups[first : first + batch], deadline, forms)


def _bound_batch(
    network: Network, disjuncts: Sequence[Disjunct], groups: Sequence[BoxGroup], deadline: Deadline, forms: bool
) -> Iterator[GroupBounds]:
    lower = _tensor(network, np.stack([group.lower for group in groups]))
    upper = _tensor(network, np.stack([group.upper for group in groups]))
    rows = [_rows(disjuncts, group) for group in groups]
    count = max(1, *(len(bounds) for _, _, bounds in rows)) if rows else 1
    outputs = np.zeros((len(groups), count, network.n_outputs))
    inputs = np.zeros((len(groups), count, network.n_inputs)) if any(r[1] is not None for r in rows) else None
    bounds = np.zeros((len(groups), count))
    for b, (output_part, input_part, bound_part) in enumerate(rows):
        outputs[b, : len(bound_part)], bounds[b, : len(bound_part)] = output_part, bound_part
        if inputs is not None and input_part is not None:
            inputs[b, : len(bound_part)] = input_part
    tensors = (_tensor(network, outputs), None if inputs is None else _tensor(network, inputs))
    if forms:
        box = torch.stack([lower, upper], 1)
        boxes = bounds_over(network, None, box, WIDE)
        wanted = Rows(*tensors, torch.from_numpy(bounds))
        nodes = tuple(boxes.nodes)
        values = margins_over(network, boxes, box, wanted, torch.arange(len(groups))).rows.numpy()
    else:
        nodes = intermediate_bounds(network, lower, upper, deadline)
        shaped = tensors[0].reshape(len(groups), count, *network.output_shape)
        lowest = backward(relax(network, nodes), len(network.nodes) - 1, shaped, tensors[1]).over_box(lower, upper)
        values = lowest.cpu().double().numpy() - bounds
        # One rounding in the subtraction above.
        values -= np.spacing(np.abs(values))
    level = min(bound.level for bound in nodes)
    for b, group in enumerate(groups):
        margins, at = [], 0
        for position in group.positions:
            length = len(disjuncts[position].constraints)
            # Without rows nothing stands against the disjunct: every point of the box satisfies it.
            margins.append(float(values[b, at : at + length].max()) if length else -np.inf)
            at += length
        single = tuple(Bounds(n.lower[b : b + 1], n.upper[b : b + 1], n.level) for n in nodes)
        yield GroupBounds(group, single, tuple(margins), level, AFFINE_FORMS if forms else CROWN)


def _is_wide_of_few_inputs(network: Network, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
    if attainable_level(network.dtype, network.device) is not Level.RIGOROUS:
        return False
    widest = max((network.nodes[k].size for k in network.relus), default=0)
    return widest > WIDE and 0 < int(np.count_nonzero(upper > lower)) <= FEW_INPUTS


def _rows(
    disjuncts: Sequence[Disjunct], group: BoxGroup
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64]]:
    parts = [disjuncts[position].constraints for position in group.positions]
    inputs = np.concatenate([p.inputs for p in parts]) if any(p.mentions_inputs for p in parts) else None
    return np.concatenate([p.outputs for p in parts]), inputs, np.concatenate([p.bounds for p in parts])


def _tensor(network: Network, array: NDArray[np.float64]) -> Tensor:
    return torch.as_tensor(array).to(network.device, network.dtype)
