"""How few inputs (or groups of them) have to change: branch and bound on which ones may.

For a budget t, a node holds groups that may change freely, groups that may not, and the others, of which the rest of
the budget may be spent on any.  Its bounds are CROWN bounds over that ball of l0 (``bounds.ball``: the largest gains
that the rest of the budget buys, in every layer); where they leave a counterexample possible, the group with the
largest gain is freed in one child and fixed in the other.  When the budget is used up, what is left is a box of few
inputs, which branch and bound on ReLU phases decides.  Budgets rise one by one, so the bounds are over the smallest
ball that matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.ball import Ball, Norm
from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.ball_objective import Lowest
from verifier.bounds.beta_crown import AscentOptions, Root, bound_regions
from verifier.deadline import Deadline
from verifier.radius.question import Question
from verifier.radius.record import Record
from verifier.search.regions import RegionSearch

Array = NDArray[np.float64]

ASCENT = AscentOptions(iterations=8)
ROUNDING, SLACK = 1e-12, 1e-9
"""Of a budget: what is left of it is larger by the first, as sums of costs are rounded; a budget below the nearest
counterexample keeps the second away from it.
"""


def count(question: Question, record: Record, deadline: Deadline, within: float = math.inf) -> None:
    """Raise what is certified until it meets the nearest counterexample or the deadline passes."""
    weights = question.ball.weights
    total = float(weights.sum())
    while not deadline.expired and record.certified < within and not record.adversarial <= within < math.inf:
        if question.counts:
            budget = record.certified + 1
            if budget >= record.adversarial:
                return
        else:
            step = max(float(weights.min()), (min(record.adversarial, total) - record.certified) / 4)
            budget = min(record.certified + step, record.adversarial * (1 - SLACK))
            if budget <= record.certified:
                return
        budget = min(budget, total)
        search = GroupSearch(question, record.incumbent.offer, lambda: 0.0, deadline)

        def found(budget: float = budget) -> bool:
            record.see("groups")
            return record.adversarial <= budget

        if search.excludes(budget, found):
            if budget >= total:
                record.raise_to(math.inf, "groups")
                return
            record.raise_to(budget, "groups")
        elif not deadline.expired and record.adversarial > budget:
            return  # nothing more can be decided: thinner than rounding


class GroupSearch:
    """Whether the margin stays above a cutoff wherever groups of a total cost may change.

    offer: told points (K, n_inputs) with small margins.  cutoff: of the margin; asked again for every node.
    """

    def __init__(
        self,
        question: Question,
        offer: Callable[[Array], object],
        cutoff: Callable[[], float],
        deadline: Deadline,
    ) -> None:
        self._question, self._offer, self._cutoff, self._deadline = question, offer, cutoff, deadline

    def excludes(self, budget: float, stop: Callable[[], bool]) -> bool:
        """Whether that is proved; False when it is not so, where ``stop`` said so, or when the time is over."""
        whole = self._question.ball
        none = torch.zeros(len(whole.weights), dtype=torch.bool)
        stack = [(none, none)]
        clean = True
        while stack:
            if self._deadline.expired or stop():
                return False
            free, fixed = stack.pop()
            rest = max(budget - float(whole.weights[free].sum()), 0.0) + ROUNDING * budget
            fixed = fixed | (~free & (whole.weights > rest))
            ball = _part(whole, free, fixed, rest)
            if bool((free | fixed).all()):
                clean &= self._decided(ball)
                continue
            group = self._branch(ball, free | fixed)
            if group is not None:
                without, with_it = fixed.clone(), free.clone()
                without[group], with_it[group] = True, True
                stack += [(free, without), (with_it, fixed)]
        return clean and not stop()

    def _branch(self, ball: Ball, settled: Tensor) -> int | None:
        """The group to decide on next, None where the margin stays above the cutoff."""
        question = self._question
        network, rows = question.model.network, question.rows
        nodes = ball_bounds(network, ball, self._deadline)
        lower, upper = ball.box()
        root = Root(network, lower[None], upper[None], nodes, Lowest(ball, self._cutoff()))
        splits = root.undivided().pick(torch.zeros(len(rows.bounds), dtype=torch.long))
        found = bound_regions(root, rows, splits, ASCENT, deadline=self._deadline)
        still = torch.nonzero(found.lower <= 0).squeeze(1)
        if not len(still):
            return None
        self._offer(found.points[still].numpy())
        worst = int(still[found.lower[still].argmin()])
        assert ball.groups is not None
        gains = torch.zeros(len(ball.weights), dtype=torch.float64)
        gains.index_add_(0, ball.groups, _gains(question, found.points[worst], rows.outputs[worst]))
        return int(torch.where(settled, torch.tensor(-1.0, dtype=torch.float64), gains).argmax())

    def _decided(self, ball: Ball) -> bool:
        """A box of the free inputs: whether the margin stays above the cutoff, by branching on ReLU phases."""
        box = replace(ball, norm=Norm.LINF, weights=torch.ones_like(ball.centre), groups=None)
        box = replace(box, radius=float(torch.maximum(box.below, box.above).max()))
        network = self._question.model.network
        nodes = ball_bounds(network, box, self._deadline)
        search = RegionSearch(network, nodes, self._question.rows, Lowest(box, self._cutoff()))

        def attempt(points: Tensor, owner: Tensor) -> float:
            self._offer(points.numpy())
            return self._cutoff()

        search.work(self._deadline, attempt)
        return search.exhausted and search.lower >= self._cutoff()


def _part(ball: Ball, free: Tensor, fixed: Tensor, rest: float) -> Ball:
    """Free groups cost nothing, fixed ones do not move."""
    assert ball.groups is not None
    frozen = fixed[ball.groups]
    zero = torch.zeros_like(ball.below)
    return replace(
        ball,
        below=torch.where(frozen, zero, ball.below),
        above=torch.where(frozen, zero, ball.above),
        weights=torch.where(free, torch.zeros_like(ball.weights), ball.weights),
        radius=rest,
    )


def _gains(question: Question, point: Tensor, row: Tensor) -> Tensor:
    """What each input's move to the point changes, by the gradient of the worst row between centre and point."""
    network, centre = question.model.network, question.ball.centre
    middle = torch.stack([centre, point, (centre + point) / 2]).requires_grad_(True)
    values = (network.forward(middle) @ row.T).max(1).values
    (gradient,) = torch.autograd.grad(values.sum(), middle)
    reach = torch.maximum(question.ball.below, question.ball.above)
    return gradient.abs().mean(0) * reach
