"""Projected gradient descent on the margins of many disjuncts, many restarts at once.

The step is taken along the sign of the gradient (Madry et al., "Towards deep learning models resistant to adversarial
attacks", 2018) with normalised momentum (Dong et al., "Boosting adversarial attacks with momentum", 2018, equations 6
and 7), and its length is a fraction of every input's own width, decaying geometrically.  A sign step ignores how the
inputs are scaled: boxes whose widths differ by orders of magnitude, and inputs that are fixed, need nothing else.

Some restarts first take DIVERSIFYING steps of a full width along a random direction of the outputs (output diversified
initialisation: Tashiro, Song and Ermon, "Diversity can be transferred: output diversification for white- and black-box
attacks", 2020, equation 2).  Measured on the three MNIST instances where margins are flat around the image (256x2
prop_9_0.05, 256x4 prop_1_0.05, 256x6 prop_3_0.05), the time to a counterexample fell from more than 3 s to 0.03 s.

Gradients come from autograd.  A backward pass through the operators' adjoints was measured against it: 10 to 40 %
faster on small dense networks, equal or slower on convolutions, and not worth a second path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.deadline import Deadline
from verifier.falsify.loss import Targets, margins, objective
from verifier.falsify.starts import Boxes, Starts
from verifier.model.network import Network

DIVERSIFYING = 2
MOMENTUM = 0.5
LAST_STEP = 0.2
"""The last step, as a part of the first."""

Accept = Callable[[Tensor, Tensor], bool]
"""Is shown points (D, K, n_inputs) and their margins (D, K) whenever one is <= 0; True ends the search."""


@dataclass(frozen=True, eq=False)
class Descent:
    """points: (D, K, n_inputs), the best of every restart.  margins: (D, K).  accepted: whether ``accept`` said so."""

    points: Tensor
    margins: Tensor
    accepted: bool


def evaluate(network: Network, targets: Targets, points: Tensor) -> tuple[Tensor, Tensor]:
    """Row margins (D, K, R) and outputs (D, K, n_outputs) at points (D, K, n_inputs)."""
    n_boxes, count, n_inputs = points.shape
    y = network.forward(points.reshape(n_boxes * count, n_inputs)).reshape(n_boxes, count, -1)
    return targets.rows(points, y), y


def descend(
    network: Network,
    targets: Targets,
    boxes: Boxes,
    starts: Starts,
    steps: int,
    deadline: Deadline,
    accept: Accept,
) -> Descent:
    """Take ``steps`` steps, and DIVERSIFYING before them; all tensors and the network in one type on one device."""
    x = starts.points
    momentum = torch.zeros_like(x)
    best = Descent(x, torch.full(x.shape[:2], torch.inf, dtype=x.dtype, device=x.device), False)
    for step in range(-DIVERSIFYING, steps + 1):
        last = step == steps or deadline.expired
        x = x.detach().requires_grad_(not last)
        rows, outputs = evaluate(network, targets, x)
        best = _better(best, x.detach(), margins(rows.detach()))
        if (best.margins <= 0).any() and accept(best.points, best.margins):
            return Descent(best.points, best.margins, True)
        if last:
            break
        goal = objective(rows, starts.summed)
        length = starts.steps * LAST_STEP ** (max(step, 0) / max(steps - 1, 1))
        if step < 0:
            thrown = (starts.directions * outputs).sum(dim=-1)
            goal = torch.where(starts.diversified, thrown, goal)
            length = torch.where(starts.diversified.unsqueeze(-1), torch.ones_like(length), length)
        (gradient,) = torch.autograd.grad(goal.sum(), x)
        # Where a float32 pass overflows the gradient is no number, and the point stays where it is.
        gradient = torch.nan_to_num(gradient * boxes.width, 0.0, 0.0, 0.0)
        scale = gradient.abs().sum(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        if step == 0:
            momentum = torch.zeros_like(x)
        momentum = MOMENTUM * momentum + gradient / scale
        x = boxes.clip(x.detach() - length * boxes.width * momentum.sign())
    return best


def _better(best: Descent, x: Tensor, found: Tensor) -> Descent:
    improved = found < best.margins
    points = torch.where(improved.unsqueeze(-1), x, best.points)
    return Descent(points, torch.where(improved, found, best.margins), False)
