"""Weighted largest change: every input moves at the speed 1 / weight until its side of the box stops it.

Moving for the length r gains at most  G(r) = sum |a_i| min(r / w_i, reach_i).  For every set S of inputs

    G(r)  <=  sum over S of |a_i| r / w_i  +  sum over the rest of |a_i| reach_i,

so whoever needs a gain of m needs  r >= (m - rest) / slope(S).  The best S, those that nothing has stopped yet, comes
from Newton's method on the concave G, from r = 0 upward; every round gives a valid bound.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.rounding import TINY, gamma

ROUNDS = 6
SMALL = 1e-29


def most(gains: Tensor, reach: Tensor) -> Tensor:
    """An upper bound on the gain where ``reach`` holds the radius already: [...]."""
    return (gains * reach).sum(-1) * (1 + 4 * gamma(gains.shape[-1] + 8)) + TINY


def distance(gains: Tensor, reach: Tensor, weights: Tensor, need: Tensor) -> Tensor:
    """The least r, bounded from below; see ``ball.Ball.distance``."""
    slack = 4 * gamma(gains.shape[-1] + 8)
    full, speed = gains * reach, gains / weights
    moving = _moving(gains, reach, weights, need)
    rest = torch.where(moving, torch.zeros_like(full), full).sum(-1)
    slope = torch.where(moving, speed, torch.zeros_like(speed)).sum(-1)
    # Counting a stopped input as moving only weakens the bound, so a vanishing slope is a matter of division alone.
    left = need - rest * (1 + slack)
    bound = left / (slope * (1 + slack) + SMALL)
    unreachable = need > full.sum(-1) * (1 + slack) + TINY
    plain = need / (speed.sum(-1) + SMALL)
    bound = torch.where(need > 0, bound * (1 - 1e-15), plain)
    return torch.where(unreachable, torch.full_like(bound, torch.inf), bound)


def moves(gains: Tensor, reach: Tensor, weights: Tensor, need: Tensor) -> Tensor:
    """How far each input goes: [..., n]."""
    r = distance(gains, reach, weights, need).clamp(min=0).unsqueeze(-1)
    return torch.minimum(r / weights, reach) * (gains > 0)


def _moving(gains: Tensor, reach: Tensor, weights: Tensor, need: Tensor) -> Tensor:
    """Which inputs still move when the need is met, bool [..., n]."""
    with torch.no_grad():
        stops = reach * weights
        r = torch.zeros_like(need).unsqueeze(-1)
        moving = stops > r
        for _ in range(ROUNDS):
            rest = torch.where(moving, 0.0, gains * reach).sum(-1, keepdim=True)
            slope = torch.where(moving, gains / weights, 0.0).sum(-1, keepdim=True)
            r = torch.maximum(r, (need.unsqueeze(-1) - rest) / (slope + SMALL))
            following = stops > r
            # Somebody has to move, or the last one that did.
            following = torch.where(following.any(-1, keepdim=True), following, moving)
            if bool((following == moving).all()):
                break
            moving = following
        return moving
