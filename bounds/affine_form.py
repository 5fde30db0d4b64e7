"""Forward linear bounds: affine arithmetic with the inputs as its only symbols (Messine, "Extensions of affine
arithmetic", 2002, form AF1).

Over a box every node's value is an affine function of the inputs plus or minus one error,

    z(x) = centre + sum_i slopes_i t_i +- error,        x_i = middle_i + radius_i t_i,   |t_i| <= 1,

and an undecided ReLU adds half its intercept to centre and error (DeepZ, Singh et al., NeurIPS 2018, section 4; there
each neuron keeps an error of its own, here they are added up).  One pass costs as much as evaluating the network at
n + 2 points, however many neurons are undecided: the bounds of choice where inputs are few and layers wide.

Invariant: holds in exact arithmetic for the exact network; every rounding is added to ``error`` (Higham, 2002, ch. 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounds.level import Bounds, Level
from verifier.bounds.relaxation import Relaxation
from verifier.bounds.rounding import MOVES, TINY, UNIT, gamma
from verifier.model.network import Network
from verifier.model.operators import Input, Relu


@dataclass(frozen=True, eq=False)
class AffineForm:
    """centre, error: [B, *shape]; slopes: [B, n, *shape], one for each of n inputs, times its radius."""

    centre: Tensor
    slopes: Tensor
    error: Tensor

    @property
    def reach(self) -> Tensor:
        """The largest sum of the slopes' terms, rounded up: [B, *shape]."""
        return self.slopes.abs().sum(1) * (1 + 2 * gamma(self.slopes.shape[1] + 2)) + TINY

    def bounds(self, level: Level) -> Bounds:
        radius = (self.reach + self.error) * (1 + 4 * UNIT)
        slack = 4 * UNIT * (self.centre.abs() + radius) + TINY
        low, high = self.centre - radius - slack, self.centre + radius + slack
        low = torch.nan_to_num(low, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        high = torch.nan_to_num(high, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        return Bounds(low, high, level)


def input_form(network: Network, lower: Tensor, upper: Tensor, varying: Tensor) -> AffineForm:
    """Of node 0 over boxes lower, upper: [B, n_inputs].  varying: [n], the inputs that are not points in some box."""
    middle = (lower + upper) / 2
    radius = torch.maximum(upper - middle, middle - lower) * (1 + 4 * UNIT)
    slopes = torch.zeros(len(lower), len(varying), network.n_inputs, dtype=lower.dtype)
    slopes[:, torch.arange(len(varying)), varying] = radius[:, varying]
    shape = network.input_shape
    return AffineForm(
        middle.reshape(-1, *shape),
        slopes.reshape(*slopes.shape[:2], *shape),
        torch.zeros_like(middle).reshape(-1, *shape),
    )


def step_form(network: Network, index: int, found: Mapping[int, AffineForm], line: Relaxation | None) -> AffineForm:
    """The form of one node from the forms of what it reads.  line: of a ReLU, for bounds that hold on its input."""
    node = network.nodes[index]
    sources = [found[source] for source in node.inputs]
    operator = node.operator
    if isinstance(operator, Relu):
        assert line is not None
        return _relu(sources[0], line)
    assert not isinstance(operator, Input)
    batch, count = sources[0].slopes.shape[:2]
    centre = operator.forward(*(source.centre for source in sources))
    flat = (source.slopes.reshape(batch * count, *source.slopes.shape[2:]) for source in sources)
    moved = operator.forward(*flat).reshape(batch, count, *node.shape)
    # One product for both: the absolute values of a wide layer's weights take longer than the product.
    largest = (source.centre.abs() + source.reach + source.error for source in sources)
    pairs = (torch.cat([source.error, size]) for source, size in zip(sources, largest, strict=True))
    error, total = operator.absolute(*pairs).split(batch)
    if isinstance(operator, MOVES):
        return AffineForm(centre, moved, error)
    offset = operator.offset(node.shape)
    if offset is not None:
        moved = moved - offset
        total = total + (2 * count + 2) * offset.abs()
    terms = operator.terms(network.input_shapes(index)) + operator.ulps + count + 8
    # Centre, slopes and error each err by gamma times their part of ``total``; the rest is for the sums here.
    error = error + (4 * gamma(terms) * total + TINY)
    if operator.offset_error is not None:
        error = error + 1.001 * operator.offset_error
    return AffineForm(centre, moved, error)


def _relu(source: AffineForm, line: Relaxation) -> AffineForm:
    """Between  s z  and  s z + t,  which holds for any s in [0, 1] with t as ``relaxation.triangle`` makes it."""
    slope, half = line.upper_slope.squeeze(1), line.upper_intercept.squeeze(1) / 2
    centre, error = slope * source.centre + half, slope * source.error + half
    rounding = 8 * UNIT * (centre.abs() + slope * source.reach + error) + TINY
    return AffineForm(centre, slope.unsqueeze(1) * source.slopes, torch.where(slope + half > 0, error + rounding, 0.0))
