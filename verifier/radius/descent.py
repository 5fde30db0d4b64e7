"""Nearer counterexamples in linf: long descents on the margin, in balls a little smaller than the nearest one's.

Sign steps with momentum (Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018) whose length decays
geometrically to a fraction of a hundredth of the ball.  What counts is how far *below* zero a margin falls: the deeper
point, drawn towards the centre, is the nearer counterexample.  So nothing stops at the first hit, unlike in
``falsify.attack``, which decides and is done.

A scouting round over all targets says which of them matter; the next rounds go to those few, from random corners and
from the counterexample that is known, until one is in vain.  Then all targets are scouted again, in what is a smaller
ball now: which class is nearest there is often another one than in the ball that the search began with (mnist_wk17a,
image 66: 0.1478 after 12 s, without it 0.1618).  Rounds in vain are followed by longer ones.

A quarter of the descents follows true gradients, a quarter those that see through the first flat ReLUs, and half those
that see through all (``chords``), at first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.deadline import Deadline
from verifier.falsify import work
from verifier.model.network import Network
from verifier.radius.chords import ChordGradients
from verifier.radius.fab import margins
from verifier.radius.incumbent import Incumbent
from verifier.radius.question import Question

Array = NDArray[np.float64]

MOMENTUM = 0.75
KNOWN = 4
"""One descent in this many starts near the known counterexample."""
OFFERED = 6
THROUGH_FIRST = (0.0, 1.0, 1.0, 1.0)
THROUGH_LATER = (0.0, 0.0, 0.5, 0.5)
"""Shares of chords in the slopes of every four descents, at their beginning."""
LATER_FADES = 1.3
"""How much faster the chords of later ReLUs give way to true slopes."""


@dataclass(frozen=True)
class DescentOptions:
    """steps: of every descent.  first_step, last_step: in half widths of the ball.

    work: of one round, in the units of ``falsify.work``: 1e9 are about 45 ms; doubled after each without success, up to
    so many doublings.  targets: how many are looked at after a scouting round.  inside: the ball's radius against the
    nearest counterexample's.  patience: rounds without success after which it ends.
    """

    steps: int = 80
    first_step: float = 0.6
    last_step: float = 0.01
    work: float = 5e9
    doublings: int = 2
    targets: int = 2
    inside: float = 0.998
    patience: int = 4


def descend(
    question: Question,
    incumbent: Incumbent,
    deadline: Deadline,
    generator: torch.Generator,
    options: DescentOptions,
    seen: Callable[[], object],
    starts: Array | None = None,
    targets: Sequence[int] | None = None,
) -> None:
    """Rounds until the patience or the time is over; ``seen`` is called after each in which the incumbent got better.

    starts: (K, n_inputs), where up to half of the descents begin, K > 0.  targets: of the question's, all by default.

    It needs a counterexample to begin with: without one there is no ball to look in.
    """
    failures, order = 0, list(question.targets if targets is None else targets)
    if not np.isfinite(incumbent.distance) or not order:
        return
    network = question.model.network.to(torch.float32)
    scouting = len(order) > options.targets
    while failures < options.patience and not deadline.expired:
        chosen = order if scouting else order[: options.targets]
        radius = incumbent.distance * (0.99 if scouting else options.inside)
        effort = replace(options, work=options.work * 2 ** min(failures, options.doublings))
        points, values = _round(question, network, incumbent, radius, chosen, effort, generator, deadline, starts)
        best = values.min(1).values
        order = [chosen[i] for i in torch.argsort(best, stable=True).tolist()] if scouting else order
        nearest = torch.argsort(values.flatten(), stable=True)[:OFFERED]
        better = incumbent.offer(points.flatten(0, 1)[nearest].double().numpy())
        if better:
            seen()
        failures = 0 if better else failures + 1
        # What looked best in a larger ball need not be what is left in a smaller one.
        scouting = len(order) > options.targets and not (better or scouting)


def _round(
    question: Question,
    network: Network,
    incumbent: Incumbent,
    radius: float,
    targets: list[int],
    options: DescentOptions,
    generator: torch.Generator,
    deadline: Deadline,
    starts: Array | None,
) -> tuple[Tensor, Tensor]:
    """The best point of every descent and its margin: [T, K, n_inputs] and [T, K]."""
    lower, upper = (side.float() for side in question.ball.shrunk(radius).box())
    lower = torch.maximum(lower, torch.from_numpy(question.lower).float())
    upper = torch.minimum(upper, torch.from_numpy(question.upper).float())
    count = max(2, work.restarts(network, len(targets), options.steps, options.work))
    n = len(lower)
    corners = torch.rand(len(targets), count, n, generator=generator)
    x = lower + (upper - lower) * corners
    if incumbent.x is not None:
        known = torch.from_numpy(incumbent.x).float()
        near = max(1, count // KNOWN)
        blend = torch.linspace(0, 0.5, near)[:, None]
        x[:, :near] = (1 - blend) * known + blend * x[:, :near]
    if starts is not None and len(starts):
        some = torch.randperm(len(starts), generator=generator)[: count // 2]
        x[:, count - len(some) :] = torch.from_numpy(starts).float()[some]
    x = torch.minimum(torch.maximum(x.flatten(0, 1), lower), upper)
    chosen = torch.tensor(targets).repeat_interleave(count)
    half = (upper - lower) / 2
    chords = ChordGradients(network, lower, upper)
    first, later = (torch.tensor(shares).repeat(len(x) // 4 + 1)[: len(x)] for shares in (THROUGH_FIRST, THROUGH_LATER))
    best, least, pace = x, torch.full((len(x),), torch.inf), torch.zeros_like(x)
    for step in range(options.steps):
        point = x.detach().requires_grad_(True)
        done = step / max(options.steps - 1, 1)
        outputs = chords.forward(point, first * (1 - done), later * max(0.0, 1 - LATER_FADES * done))
        value = margins(question, outputs, chosen)
        (gradient,) = torch.autograd.grad(value.sum(), point)
        better = value.detach() < least
        least = torch.where(better, value.detach(), least)
        best = torch.where(better[:, None], x, best)
        if deadline.expired:
            break
        pace = MOMENTUM * pace + gradient / gradient.abs().mean(1, keepdim=True).clamp(min=1e-12)
        length = options.first_step * (options.last_step / options.first_step) ** done
        x = torch.minimum(torch.maximum(x - length * half * pace.sign(), lower), upper)
    return best.reshape(len(targets), count, n), least.reshape(len(targets), count)
