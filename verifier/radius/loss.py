"""The largest margin loss in a ball, from both sides: how wrong the network can be made within a distance.

The margin loss of a point is the best target's score less the label's; it is positive exactly where the point is
misclassified.  From above: best-first branch and bound on ReLU phases, rigorous.  From below: points that onnxruntime
evaluated, found by the Frank-Wolfe method (Naval Research Logistics Quarterly 3, 1956) with full steps, which need
nothing of a ball but its furthest point in a direction, so all norms are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.ball import Ball, Norm
from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.ball_objective import Lowest
from verifier.deadline import Deadline
from verifier.radius.l0 import GroupSearch
from verifier.radius.question import Question
from verifier.search.regions import RegionSearch, sharper
from verifier.verdict import EvidenceLevel

Array = NDArray[np.float64]

STEPS, RESTARTS = 24, 6
FIRST_TURN = 0.5


@dataclass(frozen=True, eq=False)
class Loss:
    """How large the margin loss can become in a ball.

    certified: it is nowhere larger; rigorous.  attained: it is this large at ``witness`` by onnxruntime.
    witness: in the shape of the input, inside the ball and the box.  label: the class that should win.
    reason: why the two are further apart than the tolerance, "" where they are not.
    """

    certified: float
    attained: float
    witness: Array
    label: int
    norm: str
    epsilon: float
    level: EvidenceLevel
    reason: str
    history: tuple[tuple[float, float], ...]

    @property
    def gap(self) -> float:
        return self.certified - self.attained


class _Best:
    """The point with the least margin so far; the two sides only move towards each other."""

    def __init__(self, question: Question, epsilon: float) -> None:
        self._question, self._epsilon = question, epsilon
        self.margin, self.x = math.inf, question.centre
        self.lower = -math.inf
        self.history: list[tuple[float, float]] = []
        self.offer(question.centre[None])

    def offer(self, points: Array) -> None:
        """Replay the best of the points (K, n_inputs) that are in the ball once rounded."""
        question = self._question
        replay = question.model.replay
        sides = (np.tile(side, len(points)) for side in (question.lower, question.upper))
        rounded = replay.representable(points.ravel(), *sides).reshape(points.shape)
        with torch.no_grad():
            margins = question.margin(question.model.network.forward(torch.from_numpy(rounded)).numpy())
        for i in np.argsort(margins)[:4]:
            if margins[i] >= self.margin:
                return
            x = self._inside(points[i], rounded[i])
            if x is None:
                continue
            margin = float(question.margin(replay.run(x)))
            if margin < self.margin:
                self.margin, self.x = margin, x
                self.history.append((-self.lower, -self.margin))

    def raise_to(self, lower: float) -> None:
        if lower > self.lower:
            self.lower = lower
            self.history.append((-self.lower, -self.margin))

    def _inside(self, x: Array, rounded: Array) -> Array | None:
        """Rounding may have left the ball by a hair: draw the point in."""
        question = self._question
        for scale in (1.0, 1 - 1e-7, 1 - 1e-6, 1 - 1e-5):
            if question.distance(rounded) <= self._epsilon:
                return rounded
            drawn = question.centre + scale * (x - question.centre)
            rounded = question.model.replay.representable(drawn, question.lower, question.upper)
        return rounded if question.distance(rounded) <= self._epsilon else None


def largest_loss(question: Question, epsilon: float, tolerance: float, deadline: Deadline, seed: int = 0) -> Loss:
    """Both sides of the largest margin loss within ``epsilon``; Ctrl-C ends it with what is known."""
    network = question.model.network
    ball = question.ball.shrunk(min(epsilon, question.ball.radius))
    best = _Best(question, epsilon)
    interrupted = False
    try:
        _search(question, ball, best, tolerance, deadline, torch.Generator().manual_seed(seed))
    except KeyboardInterrupt:
        interrupted = True
    gap = best.margin - best.lower
    reason = ""
    if gap > tolerance:
        why = "interrupted" if interrupted else "the time ran out" if deadline.expired else "no engine gets further"
        reason = f"{why}; the gap is {gap:.3g}"
    assert network.n_inputs == len(best.x)
    return Loss(
        -best.lower + 0.0,
        -best.margin + 0.0,
        best.x,
        question.label,
        str(ball.norm),
        epsilon,
        EvidenceLevel.RIGOROUS,
        reason,
        tuple(best.history),
    )


def _search(
    question: Question, ball: Ball, best: _Best, tolerance: float, deadline: Deadline, generator: torch.Generator
) -> None:
    network = question.model.network
    best.offer(frank_wolfe(question, ball, generator, deadline))
    nodes = ball_bounds(network, ball, deadline)
    search = RegionSearch(network, nodes, question.rows, Lowest(ball, best.margin - 0.9 * tolerance))
    search.work(Deadline.after(0), lambda points, owner: best.margin - 0.9 * tolerance)
    best.raise_to(min(search.lower, best.margin))

    def attempt(points: Tensor, owner: Tensor) -> float:
        best.offer(points.numpy())
        best.raise_to(min(search.lower, best.margin))
        return best.margin - 0.9 * tolerance

    if ball.norm is Norm.L0:
        _count(question, ball, best, tolerance, deadline)
        return
    turn = FIRST_TURN
    while True:
        search.work(deadline.within(turn), attempt)
        best.raise_to(min(search.lower, best.margin))
        if search.exhausted or deadline.expired or best.margin - best.lower <= tolerance:
            return
        best.offer(frank_wolfe(question, ball, generator, deadline.within(turn / 4)))
        if turn == FIRST_TURN and ball.norm is Norm.LINF:
            objective = Lowest(ball, best.margin - 0.9 * tolerance)
            search.focus(sharper(network, nodes, objective, deadline.share(0.25)), objective)
        turn *= 2


def _count(question: Question, ball: Ball, best: _Best, tolerance: float, deadline: Deadline) -> None:
    """The same for l0, whose relaxation only branching on the groups makes exact."""
    search = GroupSearch(question, best.offer, lambda: best.margin - 0.9 * tolerance, deadline)
    if search.excludes(ball.radius, lambda: False):
        best.raise_to(best.margin - 0.9 * tolerance)


def frank_wolfe(question: Question, ball: Ball, generator: torch.Generator, deadline: Deadline) -> Array:
    """Points of the ball with small margins, (K, n_inputs): every step goes to the furthest point downhill."""
    network = question.model.network
    targets = torch.tensor(question.targets).repeat_interleave(RESTARTS)
    directions = torch.randn(len(targets), ball.centre.numel(), generator=generator, dtype=torch.float64)
    x = ball.centre + ball.furthest(directions) * torch.rand(len(targets), 1, generator=generator, dtype=torch.float64)
    x[::RESTARTS] = ball.centre
    least, best = torch.full((len(x),), torch.inf, dtype=torch.float64), x.clone()
    for step in range(STEPS):
        point = x.detach().requires_grad_(True)
        outputs = network.forward(point)
        own = outputs.gather(1, targets[:, None]).squeeze(1)
        rivals = outputs[:, question.label]
        if question.joint:
            rivals = outputs.scatter(1, targets[:, None], -torch.inf).max(1).values
        margin = rivals - own
        (gradient,) = torch.autograd.grad(margin.sum(), point)
        better = margin.detach() < least
        least = torch.where(better, margin.detach(), least)
        best = torch.where(better[:, None], x, best)
        if deadline.expired:
            break
        share = 1.0 if step < STEPS // 2 else 2 / (step - STEPS // 2 + 2)
        x = (1 - share) * x + share * (ball.centre + ball.furthest(gradient))
    return best.numpy()
