"""Backward linear bounds: CROWN (Zhang et al., NeurIPS 2018, theorem 3.2), batched over rows and regions.

A row vector A over the values of one node is carried back to the input.  Every affine node z = M x + b turns
A z into (A M) x + A b; a ReLU replaces its value by its lower line where A is positive and by its upper line
where A is negative, so that the result is a lower bound throughout.  Upper bounds are lower bounds of -A.

In float64 on the CPU the total rounding error of the pass is bounded along with it (see ``rounding``) and
subtracted: the bound then holds in exact arithmetic.  Convolutions stay convolutions; nothing is made dense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from verifier.bounds.interval import input_bounds, step
from verifier.bounds.level import Bounds, Level
from verifier.bounds.relaxation import Relaxation, triangle
from verifier.bounds.rounding import MOVES, TINY, magnitude, sensitivity
from verifier.bounds.sparse_backward import Matrices, by_place, sparse_backward, sparse_least
from verifier.deadline import Deadline
from verifier.model.network import Network
from verifier.model.operators import Input, Relu

CHUNK_BYTES = 2**22
"""For one tensor of backward coefficients; rows are taken in chunks that fit.  Small enough to stay in cache and to be
served from memory already mapped: at 2**27 half the time went into page faults."""
SPARSE_ROWS = 1024
"""Between two looks at the clock, where a pass is made on sparse matrices."""


@dataclass(frozen=True, eq=False)
class LinearBound:
    """For every x in its box:  value >= coefficients . x + constants - error.

    coefficients: [B, R, n_inputs]; constants, error: [B, R].
    """

    coefficients: Tensor
    constants: Tensor
    error: Tensor

    def over_box(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The least value over boxes lower, upper: [B, n_inputs]; [B, R]."""
        lowest = (self.coefficients.clamp(min=0) @ lower.unsqueeze(2)).squeeze(2)
        lowest = lowest + (self.coefficients.clamp(max=0) @ upper.unsqueeze(2)).squeeze(2)
        # The factor covers the rounding of the error's own evaluation.
        total = lowest + self.constants - 1.001 * self.error
        return torch.nan_to_num(total, nan=-torch.inf, neginf=-torch.inf, posinf=-torch.inf)


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A network with all that one backward pass needs, for a batch of boxes.

    bounds: per node, [B, *shape], filled at least up to the node that passes start from.
    relaxations: per ReLU node.  sensitivities: rho per node (None: exact), empty when nothing is rounded outward.
    multipliers: per ReLU node, broadcastable to [B, R, *shape], what is subtracted from the coefficients of its input:
    sign times a nonnegative Lagrange multiplier of the split constraint sign * input >= 0 (Wang et al., beta-CROWN,
    2021, eq. 8).  Whatever their size, the bound holds where the split constraints do.
    matrices: of the network, for rigorous passes over regions of one box that shall be made on them.
    """

    network: Network
    bounds: Sequence[Bounds]
    relaxations: Mapping[int, Relaxation]
    sensitivities: Mapping[int, Tensor | None]
    multipliers: Mapping[int, Tensor] = field(default_factory=dict)
    matrices: Matrices | None = None


def relax(network: Network, bounds: Sequence[Bounds], slopes: Mapping[int, Tensor] | None = None) -> Relaxed:
    """Relaxations and sensitivities of a whole network from bounds on all its nodes.

    slopes: lower slopes per ReLU node, broadcastable to [B, R, *shape]; the adaptive ones where missing.
    """
    slopes = slopes or {}
    relaxations = {k: triangle(bounds[network.nodes[k].inputs[0]], slopes.get(k)) for k in network.relus}
    rigorous = bounds[0].level is Level.RIGOROUS
    sensitivities = {k: sensitivity(network, k, tuple(bounds)) for k in range(len(network.nodes)) if rigorous}
    return Relaxed(network, bounds, relaxations, sensitivities)


def backward(
    relaxed: Relaxed,
    start: int,
    rows: Tensor,
    input_rows: Tensor | None = None,
    visit: Callable[[int, Tensor], None] | None = None,
) -> LinearBound:
    """Lower bounds of ``rows . value(start) + input_rows . x`` as linear functions of the input.

    rows: [B or 1, R, *shape of start]; input_rows: [B or 1, R, n_inputs].
    visit: shown the coefficients [B or 1, R, *shape] on the value of every ReLU node, last node first.
    """
    network, rigorous = relaxed.network, bool(relaxed.sensitivities)
    if rigorous and relaxed.matrices is not None:
        return LinearBound(*sparse_backward(relaxed.matrices, relaxed, start, rows, input_rows, visit))
    pending: dict[int, Tensor] = {start: rows}
    constants = torch.zeros(1, 1, dtype=rows.dtype, device=rows.device)
    error = constants + TINY

    def arrive(index: int, part: Tensor) -> None:
        nonlocal error
        if index in pending:
            if rigorous:
                size = magnitude(relaxed.bounds[index])
                error = error + 2.0**-51 * _inner(pending[index].abs() + part.abs(), size) + TINY
            part = pending[index] + part
        pending[index] = part

    for index in range(start, 0, -1):
        coefficients = pending.pop(index, None)
        if coefficients is None:
            continue
        node = network.nodes[index]
        rho = relaxed.sensitivities.get(index)
        if rho is not None:
            error = error + _inner(coefficients.abs(), rho)
        if isinstance(node.operator, Relu):
            if visit is not None:
                visit(index, coefficients)
            line = relaxed.relaxations[index]
            negative = coefficients.clamp(max=0)
            constants = constants + (negative * line.upper_intercept).flatten(2).sum(2)
            positive = coefficients.clamp(min=0)
            part = positive * line.lower_slope + negative * line.upper_slope
            multiplier = relaxed.multipliers.get(index)
            if multiplier is not None:
                if rigorous:
                    size = magnitude(relaxed.bounds[node.inputs[0]])
                    error = error + 2.0**-51 * _inner(part.abs() + multiplier.abs(), size) + TINY
                part = part - multiplier
            arrive(node.inputs[0], part)
            continue
        assert not isinstance(node.operator, Input)
        offset = node.operator.offset(node.shape)
        if offset is not None:
            constants = constants + _inner(coefficients, offset.unsqueeze(0))
        parts = node.operator.adjoint(coefficients, network.input_shapes(index))
        for source, part in zip(node.inputs, parts, strict=True):
            arrive(source, part)

    shape = (1, rows.shape[1], *network.input_shape)
    if input_rows is not None:
        arrive(0, input_rows.reshape(*input_rows.shape[:2], *network.input_shape))
    coefficients = pending.pop(0, torch.zeros(shape, dtype=rows.dtype, device=rows.device))
    rho = relaxed.sensitivities.get(0)
    if rho is not None:
        error = error + _inner(coefficients.abs(), rho)
    return LinearBound(coefficients.flatten(2), constants, error)


def _inner(coefficients: Tensor, vector: Tensor) -> Tensor:
    """Inner products of [B or 1, R, *shape] with [B or 1, *shape]: [B, R]."""
    return (coefficients.flatten(2) @ vector.flatten(1).unsqueeze(2)).squeeze(2)


def intermediate_bounds(
    network: Network,
    lower: Tensor,
    upper: Tensor,
    deadline: Deadline | None = None,
) -> tuple[Bounds, ...]:
    """Bounds on every node over boxes: intervals, and CROWN where a ReLU is still undecided.

    lower, upper: [B, n_inputs].  Returns one ``Bounds`` per node, [B, *shape].  When the deadline passes, the
    remaining nodes keep their interval bounds, which are as sound and only looser.
    """
    deadline = deadline or Deadline.never()
    rigorous = input_bounds(network, lower, upper).level is Level.RIGOROUS
    preactivations = {network.nodes[k].inputs[0] for k in network.relus}
    found: list[Bounds] = []
    relaxations: dict[int, Relaxation] = {}
    sensitivities: dict[int, Tensor | None] = {}
    depth = _affine_depth(network)
    matrices = Matrices(network) if rigorous and lower.shape[0] == 1 else None
    for index, node in enumerate(network.nodes):
        found.append(step(network, index, found) if index else input_bounds(network, lower, upper))
        if rigorous:
            sensitivities[index] = sensitivity(network, index, found)
        if isinstance(node.operator, Relu):
            relaxations[index] = triangle(found[node.inputs[0]])
        # Through one affine operator the interval is already exact.
        if index in preactivations and depth[index] > 1 and not deadline.expired:
            relaxed = Relaxed(network, found, relaxations, sensitivities, matrices=matrices)
            found[index] = _tighten(relaxed, index, lower, upper, deadline)
    return tuple(found)


def _affine_depth(network: Network) -> list[int]:
    """Rounds of interval arithmetic that lose precision before each node: affine operators passed, and ReLUs."""
    depth = [0]
    for node in network.nodes[1:]:
        loses = 0 if isinstance(node.operator, MOVES) else 1
        depth.append(max(depth[source] for source in node.inputs) + loses)
    return depth


def _tighten(relaxed: Relaxed, index: int, lower: Tensor, upper: Tensor, deadline: Deadline) -> Bounds:
    """CROWN bounds of the undecided entries of one node, intersected with what was known.

    First the side that is more likely to decide the sign; the other side only where that left it open, since a ReLU
    whose sign is known needs no relaxation.
    """
    known = relaxed.bounds[index]
    low, high = known.lower.flatten(1).clone(), known.upper.flatten(1).clone()
    likely_active = (low + high).sum(0) > 0
    at_once = _rows_at_once(relaxed.network, index, lower.shape[0])
    extremes: Callable[[Tensor, float], Tensor] = partial(_extremes, relaxed, index, lower, upper)
    matrices = relaxed.matrices
    if matrices is not None and matrices.pay_off(index, int(((low < 0) & (high > 0)).sum())):
        at_once, extremes = SPARSE_ROWS, partial(sparse_least, matrices, relaxed, index)
    for side in (likely_active, ~likely_active):
        undecided = ((low < 0) & (high > 0)).any(0)
        for from_below in (True, False):
            places = by_place(torch.nonzero(undecided & (side == from_below)).squeeze(1), known.lower.shape[1:])
            for part in places.split(at_once):
                if deadline.expired or not len(part):
                    break
                bound = extremes(part, 1.0 if from_below else -1.0)
                if from_below:
                    low[:, part] = torch.maximum(low[:, part], bound)
                else:
                    high[:, part] = torch.minimum(high[:, part], -bound)
    return Bounds(low.reshape(known.lower.shape), high.reshape(known.upper.shape), known.level)


def _rows_at_once(network: Network, index: int, batch: int) -> int:
    largest = max(node.size for node in network.nodes[: index + 1])
    return max(1, CHUNK_BYTES // (8 * largest * batch))


def _extremes(relaxed: Relaxed, index: int, lower: Tensor, upper: Tensor, places: Tensor, sign: float) -> Tensor:
    """Lower bounds of ``sign * value`` at some flat places of a node: [B, len(places)]."""
    node = relaxed.network.nodes[index]
    rows = torch.zeros(1, len(places), node.size, dtype=lower.dtype, device=lower.device)
    rows[0, torch.arange(len(places), device=lower.device), places] = sign
    dense = replace(relaxed, matrices=None)
    return backward(dense, index, rows.reshape(1, len(places), *node.shape)).over_box(lower, upper)
