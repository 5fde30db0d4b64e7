"""Fast adaptive boundary attack: the nearest counterexample by projections on linearised decision boundaries.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack" (ICML 2020); with one
class and no box it is DeepFool (Moosavi-Dezfooli et al., CVPR 2016).  In every step, for every point and target, the
margin is linearised and the nearest point to the *centre* on its zero set inside the box is taken (``Ball.step``), a
little beyond it; points that are counterexamples go part of the way back.  Any norm that ``Ball`` knows will do.

Departure from the paper: no mixture with the projection of the current point; the network is piecewise linear, and the
projection of the centre is where the optimum of the current piece lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.ball import Norm
from verifier.deadline import Deadline
from verifier.falsify import work
from verifier.radius.incumbent import Incumbent
from verifier.radius.question import Question

Array = NDArray[np.float64]

PIECE = 1e9
"""Units of ``falsify.work`` for one step of the points that go together: some 45 ms between looks at the clock."""


@dataclass(frozen=True)
class FabOptions:
    """steps; overshoot: of every projection; back: the part of the way that a counterexample keeps.

    restarts: random starts per target, beside the centre.
    """

    steps: int = 20
    overshoot: float = 0.05
    back: float = 0.9
    restarts: int = 4


def fab(
    question: Question,
    incumbent: Incumbent,
    deadline: Deadline,
    options: FabOptions,
    generator: torch.Generator,
    starts: Array | None = None,
) -> bool:
    """Look for nearer counterexamples from the centre and random points, or from ``starts`` (K, n_inputs).

    True if the incumbent got better.
    """
    network = question.model.network
    targets = torch.tensor(question.targets)
    if starts is None:
        x, chosen = _starts(question, incumbent, options, generator)
    else:
        x = torch.from_numpy(starts).repeat_interleave(len(targets), 0)
        chosen = targets.repeat(len(starts))
    size = max(1, int(PIECE / work.per_point(network)))
    parts: list[tuple[Tensor, Tensor]] = []
    for piece, goals in zip(x.split(size), chosen.split(size), strict=True):
        if parts and deadline.expired:
            break
        parts.append(_projected(question, piece, goals, deadline, options))
    best, nearest = (torch.cat(part) for part in zip(*parts, strict=True))
    order = torch.argsort(nearest)[:16]
    points = best[order][torch.isfinite(nearest[order])].numpy()
    return bool(len(points)) and incumbent.offer(points)


def _projected(
    question: Question, x: Tensor, chosen: Tensor, deadline: Deadline, options: FabOptions
) -> tuple[Tensor, Tensor]:
    """From points [K, n_inputs] towards the boundaries to ``chosen`` [K]: the nearest beyond, and how far it is."""
    network, ball = question.model.network, question.ball
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64)
    best = x.clone()
    lower, upper = torch.from_numpy(question.lower), torch.from_numpy(question.upper)
    for _ in range(options.steps):
        if deadline.expired:
            break
        point = x.detach().requires_grad_(True)
        outputs = network.forward(point)
        margin = margins(question, outputs, chosen)
        (gradient,) = torch.autograd.grad(margin.sum(), point)
        value = margin.detach()
        d = x - ball.centre
        hit = value <= 0
        length = ball.length(d)
        better = hit & (length < nearest)
        nearest = torch.where(better, length, nearest)
        best = torch.where(better[:, None], x, best)
        need = value - (gradient * d).sum(1)
        # Where the centre itself seems to be beyond the boundary the linearisation says nothing.
        size = (gradient.abs() * torch.maximum(ball.below, ball.above).clamp(max=1e6)).sum(1) + 1e-30
        need = torch.maximum(need, 1e-6 * size)
        step = ball.step(gradient, need * (1 + options.overshoot) if ball.norm is Norm.L0 else need)
        onward = ball.centre + (1 + options.overshoot) * step if ball.norm is not Norm.L0 else ball.centre + step
        keep = ball.centre + options.back * d if ball.norm is not Norm.L0 else onward
        nearer = ball.length(step) < length
        x = torch.where((hit & ~nearer)[:, None], keep, onward).clamp(lower, upper)
    return best, nearest


def margins(question: Question, outputs: Tensor, chosen: Tensor) -> Tensor:
    """How far each point is from its own target, [K]."""
    own = outputs.gather(1, chosen[:, None]).squeeze(1)
    if not question.joint:
        return outputs[:, question.label] - own
    rivals = outputs.scatter(1, chosen[:, None], -torch.inf).max(1).values
    return rivals - own


def _starts(
    question: Question, incumbent: Incumbent, options: FabOptions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The centre and random points around it for every target: [K, n_inputs] and [K]."""
    ball, targets = question.ball, torch.tensor(question.targets)
    count = options.restarts + 1
    reach = torch.maximum(ball.below, ball.above)
    if np.isfinite(incumbent.distance) and ball.norm is Norm.LINF:
        reach = torch.minimum(reach, incumbent.distance / ball.weights)
    reach = reach.clamp(max=1.0)
    noise = 2 * torch.rand(count, ball.centre.numel(), generator=generator, dtype=torch.float64) - 1
    noise[0] = 0
    scale = torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
    points = ball.centre + noise * scale * reach
    points = points.clamp(torch.from_numpy(question.lower), torch.from_numpy(question.upper))
    return points.repeat_interleave(len(targets), 0), targets.repeat(count)
