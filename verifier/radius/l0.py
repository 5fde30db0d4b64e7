"""How few inputs (or groups of them) have to change: branch and bound on which ones may.

For a budget t, a node holds groups that may change freely, groups that may not, and the others, of which the rest of the
budget may be spent on any.  Its bounds are CROWN bounds over that ball of l0 (``bounds.ball``: the largest gains that the
rest of the budget buys, in every layer); where they leave a counterexample possible, the group with the largest gain is
freed in one child and fixed in the other.  When the budget is used up, what is left is a box of few inputs, which branch
and bound on ReLU phases decides.  Budgets rise one by one, so the bounds are over the smallest ball that matters.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from verifier.bounds.ball import Ball, Norm
from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.ball_objective import Lowest
from verifier.bounds.beta_crown import AscentOptions, Root, bound_regions
from verifier.deadline import Deadline
from verifier.radius.question import Question
from verifier.radius.record import Record
from verifier.search.regions import RegionSearch

ASCENT = AscentOptions(iterations=8)


def count(question: Question, record: Record, deadline: Deadline, within: float = math.inf) -> None:
    """Raise what is certified until it meets the nearest counterexample or the deadline passes."""
    weights = question.ball.weights
    total = float(weights.sum())
    whole = bool((weights == weights.round()).all())
    while not deadline.expired and record.certified < within and not record.adversarial <= within < math.inf:
        if whole:
            budget = record.certified + 1
            if budget >= record.adversarial:
                return
        else:
            step = max(float(weights.min()), (min(record.adversarial, total) - record.certified) / 4)
            budget = min(record.certified + step, math.nextafter(record.adversarial, 0))
            if budget <= record.certified:
                return
        budget = min(budget, total)
        if _excluded(question, record, budget, deadline):
            if budget >= total:
                record.raise_to(math.inf, "groups")
                return
            record.raise_to(budget, "groups")
        elif not deadline.expired and record.adversarial > budget:
            return  # nothing more can be decided: thinner than rounding


def _excluded(question: Question, record: Record, budget: float, deadline: Deadline) -> bool:
    """Whether no counterexample costs at most the budget; False too when one was found or the time is over."""
    size = len(question.ball.weights)
    stack = [(torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool))]
    clean = True
    while stack:
        if deadline.expired:
            return False
        free, fixed = stack.pop()
        spent = float(question.ball.weights[free].sum())
        rest = budget - spent
        fixed = fixed | (~free & (question.ball.weights > rest * (1 + 1e-12)))
        ball = _part(question.ball, free, fixed, max(rest, 0.0))
        if bool((free | fixed).all()):
            clean &= _decided(question, record, ball, deadline)
        else:
            group = _branch(question, record, ball, free | fixed, deadline)
            if group is not None:
                without, with_it = fixed.clone(), free.clone()
                without[group], with_it[group] = True, True
                stack += [(free, without), (with_it, fixed)]
        if record.adversarial <= budget:
            return False
    return clean


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


def _branch(question: Question, record: Record, ball: Ball, settled: Tensor, deadline: Deadline) -> int | None:
    """The group to decide on next, None where no counterexample is possible."""
    network, rows = question.model.network, question.rows
    nodes = ball_bounds(network, ball, deadline)
    lower, upper = ball.box()
    root = Root(network, lower[None], upper[None], nodes, Lowest(ball, 0.0))
    splits = root.undivided().pick(torch.zeros(len(rows.bounds), dtype=torch.long))
    found = bound_regions(root, rows, splits, ASCENT)
    still = torch.nonzero(found.lower <= 0).squeeze(1)
    if not len(still):
        return None
    _offer(question, record, found.points[still])
    worst = int(still[found.lower[still].argmin()])
    assert ball.groups is not None
    moved = torch.zeros(len(ball.weights), dtype=torch.float64)
    moved.index_add_(0, ball.groups, _gains(question, found.points[worst], rows.outputs[worst]))
    return int(torch.where(settled, torch.tensor(-1.0, dtype=torch.float64), moved).argmax())


def _gains(question: Question, point: Tensor, row: Tensor) -> Tensor:
    """What each input's move to the point changes, by the gradient of the worst row between centre and point."""
    network, centre = question.model.network, question.ball.centre
    middle = torch.stack([centre, point, (centre + point) / 2]).requires_grad_(True)
    values = (network.forward(middle) @ row.T).max(1).values
    (gradient,) = torch.autograd.grad(values.sum(), middle)
    reach = torch.maximum(question.ball.below, question.ball.above)
    return gradient.abs().mean(0) * reach


def _decided(question: Question, record: Record, ball: Ball, deadline: Deadline) -> bool:
    """A box of the free inputs: whether it holds no counterexample."""
    box = replace(ball, norm=Norm.LINF, weights=torch.ones_like(ball.centre), groups=None)
    reach = float(torch.maximum(box.below, box.above).max())
    box = replace(box, radius=reach)
    nodes = ball_bounds(question.model.network, box, deadline)
    search = RegionSearch(question.model.network, nodes, question.rows, Lowest(box, 0.0))

    def attempt(points: Tensor, owner: Tensor) -> float:
        _offer(question, record, points)
        return 0.0

    search.work(deadline, attempt)
    return search.exhausted and search.lower >= 0


def _offer(question: Question, record: Record, points: Tensor) -> None:
    record.incumbent.offer(points.numpy())
    record.see("groups")

