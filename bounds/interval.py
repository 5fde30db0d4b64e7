"""Interval bound propagation (Gowal et al. 2018, eq. 6-8) with outward rounding.

An affine node takes its centre and radius: M c + b plus or minus |M| r; a ReLU takes both ends.  In float64 on
the CPU every result is widened by its rounding error, so the bounds hold in exact arithmetic; otherwise they are
estimates and not widened.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.level import Bounds, Level
from verifier.bounds.rounding import MOVES, TINY, UNIT, attainable_level, gamma
from verifier.model.network import Network
from verifier.model.operators import Input, Relu


def interval_bounds(network: Network, lower: Tensor, upper: Tensor) -> tuple[Bounds, ...]:
    """Bounds on every node's value over boxes.

    lower, upper: [B, n_inputs], of the network's dtype and device.  Returns one ``Bounds`` per node, tensors
    [B, *shape].
    """
    found: list[Bounds] = [input_bounds(network, lower, upper)]
    for index in range(1, len(network.nodes)):
        found.append(step(network, index, found))
    return tuple(found)


def input_bounds(network: Network, lower: Tensor, upper: Tensor) -> Bounds:
    """The boxes themselves as bounds of node 0."""
    shape = (lower.shape[0], *network.input_shape)
    return Bounds(lower.reshape(shape), upper.reshape(shape), attainable_level(lower.dtype, lower.device))


def step(network: Network, index: int, found: list[Bounds] | tuple[Bounds, ...]) -> Bounds:
    """Bounds of one node from the bounds of what it reads."""
    node = network.nodes[index]
    operator = node.operator
    sources = [found[source] for source in node.inputs]
    level = min(source.level for source in sources)
    if isinstance(operator, Relu):
        return Bounds(sources[0].lower.clamp(min=0), sources[0].upper.clamp(min=0), level)
    assert not isinstance(operator, Input)
    if isinstance(operator, MOVES):
        return Bounds(
            operator.forward(*(source.lower for source in sources)),
            operator.forward(*(source.upper for source in sources)),
            level,
        )
    centres = [(source.lower + source.upper) / 2 for source in sources]
    radii = [
        torch.maximum(source.upper - centre, centre - source.lower) * (1 + 4 * UNIT)
        for source, centre in zip(sources, centres, strict=True)
    ]
    centre = operator.forward(*centres)
    radius = operator.absolute(*radii)
    if level is Level.ESTIMATE:
        return Bounds(centre - radius, centre + radius, level)
    total = operator.absolute(*(c.abs() + r for c, r in zip(centres, radii, strict=True)))
    offset = operator.offset(node.shape)
    if offset is not None:
        total = total + offset.abs()
    terms = operator.terms(network.input_shapes(index)) + operator.ulps + 8
    # Four times: the rounding of the centre, of the radius, of ``total`` itself and of the two sums below.
    radius = radius + (4 * gamma(terms) * total + TINY)
    if operator.offset_error is not None:
        radius = radius + 1.001 * operator.offset_error
    return Bounds(_down(centre - radius), _up(centre + radius), level)


def _down(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _up(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
