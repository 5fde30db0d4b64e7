"""The triangle relaxation of ReLU with a chosen lower slope (Zhang et al., CROWN, 2018, section 3.3).

For l < 0 < u:   alpha z  <=  max(z, 0)  <=  s z + t,   s = u / (u - l),   t = -s l,   any alpha in [0, 1].

The lines hold for the floating-point numbers returned, not only in exact arithmetic: any slope in [0, 1] is a valid
lower line, and t is computed from the rounded s and rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounds.level import Bounds
from verifier.bounds.rounding import TINY, UNIT


@dataclass(frozen=True, eq=False)
class Relaxation:
    """lower_slope z <= relu(z) <= upper_slope z + upper_intercept; each broadcasts to [B, R, *shape]."""

    lower_slope: Tensor
    upper_slope: Tensor
    upper_intercept: Tensor


def triangle(pre: Bounds, lower_slope: Tensor | None = None) -> Relaxation:
    """The relaxation over pre-activation bounds [B, *shape].

    lower_slope: slopes in [0, 1] for unstable neurons, broadcastable to [B, R, *shape]; by default the adaptive
    choice of CROWN, 1 where u > -l and else 0, which minimises the area of the triangle.
    """
    lower, upper = pre.lower.unsqueeze(1), pre.upper.unsqueeze(1)
    active, inactive = lower >= 0, upper <= 0
    slope = torch.nan_to_num(upper / (upper - lower), nan=1.0).clamp(0, 1)
    slope = torch.where(active, torch.ones_like(slope), torch.where(inactive, torch.zeros_like(slope), slope))
    # The line must pass above (l, 0) and (u, u) for the slope as rounded.
    intercept = torch.maximum(-slope * lower, (1 - slope) * upper) * (1 + 8 * UNIT) + TINY
    intercept = torch.where(active | inactive, torch.zeros_like(intercept), intercept)
    if lower_slope is None:
        lower_slope = (upper > -lower).to(lower.dtype)
    chosen = torch.where(active, torch.ones_like(lower), torch.where(inactive, torch.zeros_like(lower), lower_slope))
    return Relaxation(chosen, slope, intercept)
