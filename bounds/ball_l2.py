"""Weighted Euclidean length: every input moves at the speed |a| / weight^2 until its side of the box stops it.

Weak duality with one multiplier t >= 0 (Boyd and Vandenberghe, Convex Optimization, 2004, section 5.2).  With
d_i = min(t |a_i| / (2 w_i^2), reach_i), which maximises t |a_i| d - w_i^2 d^2 over 0 <= d <= reach_i,

    a gain of m costs      sum w_i^2 d^2  >=  t m  -  sum (t |a_i| d_i - w_i^2 d_i^2),
    the length r gains     sum |a_i| d    <=  (r^2 + sum (t |a_i| d_i - w_i^2 d_i^2)) / t.

The best t solves a concave piecewise linear equation: Newton's method from the left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.rounding import TINY, gamma

ROUNDS = 6
SMALL = 1e-29


def most(gains: Tensor, reach: Tensor, weights: Tensor, radius: float) -> Tensor:
    """An upper bound on the gain over the ball: [...]."""
    slack = 8 * gamma(gains.shape[-1] + 16)
    speed, square = gains / weights**2, weights**2
    t = _longest(gains, reach, weights, radius)
    d = torch.minimum(t / 2 * speed, reach)
    value, size = _inner(gains, d, square, t)
    lagrangian = (radius**2 * (1 + slack) + value + slack * size) / t.squeeze(-1)
    # The whole box is a bound too.
    return torch.minimum(lagrangian * (1 + slack), (gains * reach).sum(-1) * (1 + slack)) + TINY


def distance(gains: Tensor, reach: Tensor, weights: Tensor, need: Tensor) -> Tensor:
    """The least length, bounded from below; see ``ball.Ball.distance``."""
    slack = 8 * gamma(gains.shape[-1] + 16)
    square = weights**2
    t = _multiplier(gains, reach, weights, need)
    d = torch.minimum(t * gains / (2 * square), reach)
    value, size = _inner(gains, d, square, t)
    squared = t.squeeze(-1) * need - value - slack * (size + (t.squeeze(-1) * need).abs())
    bound = squared.clamp(min=SMALL).sqrt() * (1 - 1e-15)
    plain = need / ((gains / weights).square().sum(-1).sqrt() + SMALL)
    # A multiplier that was never good enough (underflow) proves nothing.
    bound = torch.where(need > 0, torch.where(squared > SMALL, bound, torch.zeros_like(bound)), plain)
    unreachable = need > (gains * reach).sum(-1) * (1 + slack) + TINY
    return torch.where(unreachable, torch.full_like(bound, torch.inf), bound)


def moves(gains: Tensor, reach: Tensor, weights: Tensor, need: Tensor) -> Tensor:
    """How far each input goes: [..., n]."""
    return torch.minimum(_multiplier(gains, reach, weights, need) * gains / (2 * weights**2), reach)


def furthest(gains: Tensor, reach: Tensor, weights: Tensor, radius: float) -> Tensor:
    """How far each input goes for the largest gain over the ball: [..., n]."""
    return torch.minimum(_longest(gains, reach, weights, radius) / 2 * gains / weights**2, reach)


def _longest(gains: Tensor, reach: Tensor, weights: Tensor, radius: float) -> Tensor:
    """t where the moves have the length of the radius: [..., 1]."""
    with torch.no_grad():
        speed, square = gains / weights**2, weights**2
        # In s = t / 2 the length squared is  s^2 sum over moving of a^2 / w^2  +  sum over stopped of w^2 reach^2.
        moving = reach > 0
        s = torch.zeros_like(gains[..., :1])
        for _ in range(ROUNDS):
            rest = torch.where(moving, 0.0, square * reach**2).sum(-1, keepdim=True)
            slope = torch.where(moving, gains * speed, 0.0).sum(-1, keepdim=True)
            s = torch.maximum(s, ((radius**2 - rest).clamp(min=0) / (slope + SMALL)).sqrt())
            following = s * speed < reach
            if bool((following == moving).all()):
                break
            moving = following
        return 2 * s + SMALL


def _multiplier(gains: Tensor, reach: Tensor, weights: Tensor, need: Tensor) -> Tensor:
    """t where the gain of the moves is the need: [..., 1]."""
    with torch.no_grad():
        speed = gains / (2 * weights**2)
        moving = reach > 0
        t = torch.zeros_like(gains[..., :1])
        for _ in range(ROUNDS):
            rest = torch.where(moving, 0.0, gains * reach).sum(-1, keepdim=True)
            slope = torch.where(moving, gains * speed, 0.0).sum(-1, keepdim=True)
            t = torch.maximum(t, (need.unsqueeze(-1) - rest).clamp(min=0) / (slope + SMALL))
            following = t * speed < reach
            following = torch.where((following & (gains > 0)).any(-1, keepdim=True), following, moving)
            if bool((following == moving).all()):
                break
            moving = following
        return t


def _inner(gains: Tensor, d: Tensor, square: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """``sum (t |a| d - w^2 d^2)`` and the sum of the magnitudes."""
    plus, minus = (t * gains * d).sum(-1), (square * d * d).sum(-1)
    return plus - minus, plus + minus
