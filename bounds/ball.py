"""Balls around a point, in four norms, cut by a box: what a linear inequality costs there.

The ball holds the points ``centre + d`` with ``-below <= d <= above`` and ``norm(weights * d) <= radius``.  Two
questions about a row vector a are all that bounds over it need, and both have closed forms up to one number:

    least(a)          a lower bound on  a . d  over the ball          (Hoelder: -radius ||a||_dual where no side cuts)
    distance(a, m)    a lower bound on  norm(weights * d)  where  a . d <= -m

Only d_i against the sign of a_i pays, so both are knapsacks in |d_i| with the capacity that the box leaves on that
side. That one number is a Lagrange multiplier (or an active set), found in a few rounds; *whatever* it is, weak duality
makes the value a valid bound, and rounding is subtracted: see the files of the single norms.

    linf   every input moves at the same speed 1 / weight                      ``ball_linf``
    l2     every input moves at the speed |a| / weight^2                       ``ball_l2``
    l1     the inputs with the largest |a| / weight go first                   ``knapsack``
    l0     the groups with the largest gain go first; the weight is their cost ``knapsack``
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from verifier.bounds import ball_l2, ball_linf, knapsack


class Norm(StrEnum):
    """How far a point is from the centre: the largest change, the sum, the root of the squares, or how many changed."""

    LINF = "linf"
    L1 = "l1"
    L2 = "l2"
    L0 = "l0"


@dataclass(frozen=True, eq=False)
class Ball:
    """centre, below, above, weights: (n,); below, above >= 0 and finite, rounded up; weights > 0.

    groups: for l0, (n,) int64, inputs of one group (0 to the number of groups - 1) change together at the cost of one;
    the weights are then one per group.  None elsewhere.
    """

    norm: Norm
    centre: Tensor
    below: Tensor
    above: Tensor
    weights: Tensor
    radius: float
    groups: Tensor | None = None

    def shrunk(self, radius: float) -> Ball:
        """The same around the same centre with a radius that is not larger."""
        if self.norm is Norm.L0:
            return replace(self, radius=radius)
        # Rounded up: the box must hold the ball.
        most = torch.nextafter(radius / self.weights, torch.full_like(self.weights, torch.inf))
        return replace(
            self, radius=radius, below=torch.minimum(self.below, most), above=torch.minimum(self.above, most)
        )

    def to(self, dtype: torch.dtype) -> Ball:
        """For a search in another precision; its bounds are estimates then."""
        parts = {name: getattr(self, name).to(dtype) for name in ("centre", "below", "above", "weights")}
        return replace(self, **parts)

    def box(self) -> tuple[Tensor, Tensor]:
        """The smallest float box around the ball, lower and upper (n,)."""
        infinity = torch.full_like(self.centre, torch.inf)
        lower, upper = self.centre - self.below, self.centre + self.above
        lower = torch.where(self.below > 0, torch.nextafter(lower, -infinity), lower)
        return lower, torch.where(self.above > 0, torch.nextafter(upper, infinity), upper)

    def least(self, rows: Tensor) -> Tensor:
        """A lower bound on ``rows . d`` over the ball; rows: [..., n], the result [...]."""
        gains, reach = rows.abs(), self._reach(rows)
        match self.norm:
            case Norm.LINF:
                return -ball_linf.most(gains, reach)
            case Norm.L2:
                return -ball_l2.most(gains, reach, self.weights, self.radius)
            case Norm.L1:
                return -knapsack.most(gains * reach, self.weights * reach, self.radius)
            case Norm.L0:
                return -knapsack.most(self._grouped(gains * reach), self.weights, self.radius)

    def distance(self, rows: Tensor, need: Tensor) -> Tensor:
        """A lower bound on the norm of every d in the box with ``rows . d <= -need``.

        rows: [..., n], need: [...].  Infinite where the box has no such point; negative (and of no meaning beyond that
        more is better) where ``need`` is.  Differentiable.
        """
        gains, reach = rows.abs(), self._reach(rows)
        match self.norm:
            case Norm.LINF:
                return ball_linf.distance(gains, reach, self.weights, need)
            case Norm.L2:
                return ball_l2.distance(gains, reach, self.weights, need)
            case Norm.L1:
                return knapsack.cost(gains * reach, self.weights * reach, need)
            case Norm.L0:
                return knapsack.cost(self._grouped(gains * reach), self.weights.expand(self._sizes(rows)), need)

    def step(self, rows: Tensor, need: Tensor) -> Tensor:
        """The d that ``distance`` speaks of, up to rounding: [..., n]; the furthest one where there is none."""
        gains, reach = rows.abs(), self._reach(rows)
        match self.norm:
            case Norm.LINF:
                moved = ball_linf.moves(gains, reach, self.weights, need)
            case Norm.L2:
                moved = ball_l2.moves(gains, reach, self.weights, need)
            case Norm.L1:
                moved = reach * knapsack.taken(gains * reach, self.weights * reach, need)
            case Norm.L0:
                assert self.groups is not None
                parts = knapsack.taken(self._grouped(gains * reach), self.weights.expand(self._sizes(rows)), need)
                moved = reach * (parts > 0)[..., self.groups]
        return -rows.sign() * moved

    def furthest(self, rows: Tensor) -> Tensor:
        """The d in the ball where ``rows . d`` is least, up to rounding: [..., n]."""
        gains, reach = rows.abs(), self._reach(rows)
        match self.norm:
            case Norm.LINF:
                moved = reach
            case Norm.L2:
                moved = ball_l2.furthest(gains, reach, self.weights, self.radius)
            case Norm.L1:
                moved = reach * knapsack.bought(gains * reach, self.weights * reach, self.radius)
            case Norm.L0:
                assert self.groups is not None
                costs = self.weights.expand(self._sizes(rows))
                parts = knapsack.bought(self._grouped(gains * reach), costs, self.radius)
                moved = reach * (parts >= 1)[..., self.groups]
        return -rows.sign() * moved

    def length(self, d: Tensor) -> Tensor:
        """The norm of d: [..., n], up to rounding."""
        if self.norm is Norm.L0:
            changed = self._grouped((d != 0).to(d.dtype)) > 0
            return (changed * self.weights).sum(-1)
        scaled = (self.weights * d).abs()
        match self.norm:
            case Norm.LINF:
                return scaled.amax(-1)
            case Norm.L1:
                return scaled.sum(-1)
            case _:
                return scaled.square().sum(-1).sqrt()

    def _reach(self, rows: Tensor) -> Tensor:
        """How far each input can go against the sign of its coefficient."""
        return torch.where(rows > 0, self.below, self.above)

    def _sizes(self, rows: Tensor) -> tuple[int, ...]:
        return (*rows.shape[:-1], len(self.weights))

    def _grouped(self, values: Tensor) -> Tensor:
        """Sums over the groups: [..., groups]."""
        assert self.groups is not None
        total = torch.zeros(self._sizes(values), dtype=values.dtype, device=values.device)
        return total.index_add(-1, self.groups, values)
