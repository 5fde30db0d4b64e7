"""Bounds on all nodes over balls: CROWN whose linear bounds are evaluated over the ball, not over a box.

The input's own bounds are the smallest box around the ball, which the rounding analysis needs and linf is; for the
other norms nearly all of a bound comes from the dual norm (Weng et al., Fast-Lin, ICML 2018, theorem 3.5), already at
the first layer, so every undecided neuron gets a backward pass, the first ones included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.ball import Ball, Norm
from verifier.bounds.crown import CHUNK_BYTES, LinearBound, Relaxed, backward, intermediate_bounds
from verifier.bounds.interval import input_bounds, step
from verifier.bounds.level import Bounds
from verifier.bounds.relaxation import Relaxation, triangle
from verifier.bounds.rounding import gamma, sensitivity
from verifier.deadline import Deadline
from verifier.model.network import Network
from verifier.model.operators import Relu


def needs(bound: LinearBound, centre: Tensor) -> Tensor:
    """What the input's moves have to gain before the bound can be 0: its value at the centre, rounded down; [B, R]."""
    slack = 4 * gamma(bound.coefficients.shape[-1] + 16)
    size = bound.coefficients.abs() @ centre.abs()
    value = bound.coefficients @ centre + bound.constants
    return value - 1.001 * bound.error - slack * (size + bound.constants.abs())


def least(bound: LinearBound, ball: Ball) -> Tensor:
    """The least value of a linear bound over the ball, [B, R]; -inf where it is no number."""
    need, gain = needs(bound, ball.centre), ball.least(bound.coefficients)
    value = need + gain
    value = value - 2.0**-51 * (need.abs() + gain.abs())
    return torch.nan_to_num(value, nan=-torch.inf, neginf=-torch.inf, posinf=-torch.inf)


def ball_bounds(network: Network, ball: Ball, deadline: Deadline | None = None) -> tuple[Bounds, ...]:
    """Bounds on every node over one ball, [1, *shape]; what the deadline leaves undone keeps its intervals."""
    deadline = deadline or Deadline.never()
    lower, upper = (side.unsqueeze(0) for side in ball.box())
    if ball.norm is Norm.LINF:
        return intermediate_bounds(network, lower, upper, deadline)
    preactivations = {network.nodes[k].inputs[0] for k in network.relus}
    found: list[Bounds] = [input_bounds(network, lower, upper)]
    relaxations: dict[int, Relaxation] = {}
    sensitivities: dict[int, Tensor | None] = {0: sensitivity(network, 0, found)}
    for index in range(1, len(network.nodes)):
        found.append(step(network, index, found))
        sensitivities[index] = sensitivity(network, index, found)
        if isinstance(network.nodes[index].operator, Relu):
            relaxations[index] = triangle(found[network.nodes[index].inputs[0]])
        if index in preactivations and not deadline.expired:
            found[index] = _tighten(Relaxed(network, found, relaxations, sensitivities), index, ball, deadline)
    return tuple(found)


def _tighten(relaxed: Relaxed, index: int, ball: Ball, deadline: Deadline) -> Bounds:
    """Both sides of every undecided neuron."""
    network, known = relaxed.network, relaxed.bounds[index]
    low, high = known.lower.flatten().clone(), known.upper.flatten().clone()
    shape = network.nodes[index].shape
    largest = max(node.size for node in network.nodes[: index + 1])
    places = torch.nonzero((low < 0) & (high > 0)).squeeze(1)
    for part in places.split(max(1, CHUNK_BYTES // (8 * largest))):
        for sign in (1.0, -1.0):
            if deadline.expired:
                break
            rows = torch.zeros(1, len(part), low.numel(), dtype=low.dtype)
            rows[0, torch.arange(len(part)), part] = sign
            bound = least(backward(relaxed, index, rows.reshape(1, len(part), *shape)), ball)[0]
            if sign > 0:
                low[part] = torch.maximum(low[part], bound)
            else:
                high[part] = torch.minimum(high[part], -bound)
    return Bounds(low.reshape(known.lower.shape), high.reshape(known.upper.shape), known.level)
