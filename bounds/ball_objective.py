"""What a search over regions asks of their linear bounds: how near a counterexample can be, or how bad a point.

Both are differentiable, so slopes and multipliers ascend them directly (``beta_crown``): the search for the nearest
counterexample needs no bisection over radii.  ``cutoff`` is what a region has to exceed to be closed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounds.ball import Ball
from verifier.bounds.ball_bounds import least, needs
from verifier.bounds.crown import LinearBound

IMPOSSIBLE = 1e30
"""In place of infinity, which cannot be subtracted."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """How far from the centre the rows can first be kept, within the ball: value + cutoff is the distance."""

    ball: Ball
    cutoff: float

    def values(self, bound: LinearBound, sides: Tensor) -> Tensor:
        need = needs(bound, self.ball.centre) - sides
        need = need - 2.0**-51 * sides.abs()
        found = torch.nan_to_num(self.ball.distance(bound.coefficients, need), nan=-torch.inf)
        return (found.clamp(max=IMPOSSIBLE) - self.cutoff).clamp(min=-IMPOSSIBLE)

    def points(self, bound: LinearBound, sides: Tensor) -> Tensor:
        need = needs(bound, self.ball.centre) - sides
        return (self.ball.centre + self.ball.step(bound.coefficients, need)).squeeze(1)

    def float(self) -> Nearest:
        return replace(self, ball=self.ball.to(torch.float32))


@dataclass(frozen=True, eq=False)
class Lowest:
    """The least value of a row over the ball: value + cutoff is it."""

    ball: Ball
    cutoff: float

    def values(self, bound: LinearBound, sides: Tensor) -> Tensor:
        value = least(bound, self.ball) - sides
        return (value - 2.0**-51 * sides.abs() - self.cutoff).clamp(min=-IMPOSSIBLE, max=IMPOSSIBLE)

    def points(self, bound: LinearBound, sides: Tensor) -> Tensor:
        return (self.ball.centre + self.ball.furthest(bound.coefficients)).squeeze(1)

    def float(self) -> Lowest:
        return replace(self, ball=self.ball.to(torch.float32))
