"""The last stretch: a few points close to a counterexample, moved in float64 with shrinking steps.

The batched search ends with steps of about a hundredth of the width, in float32.  Where the smallest margin is near
zero that is too coarse, so the best few points go on: a sign step from the best point so far, kept when the margin
fell, halved when it did not.  The goal lies BEYOND zero: onnxruntime's float32 sums may differ from ours by a few
units in the last place, and a point that is only just below zero here need not be below zero there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.deadline import Deadline
from verifier.falsify.loss import Targets, margins
from verifier.falsify.pgd import evaluate
from verifier.falsify.starts import Boxes
from verifier.model.network import Network

STEPS = 24
FIRST_STEP = 0.02
"""In widths."""
BEYOND = 1e-6
"""How far below zero, relative to the size of the rows' terms, a margin has to be before its point may rest."""


def polish(
    network: Network, targets: Targets, boxes: Boxes, points: Tensor, deadline: Deadline
) -> tuple[Tensor, Tensor]:
    """Better points (D, 1, n_inputs) and their margins (D, 1), from points (D, 1, n_inputs); all float64 on the CPU."""
    best, best_margins = points, torch.full(points.shape[:2], torch.inf, dtype=points.dtype)
    x, step = points, torch.full((len(points), 1, 1), FIRST_STEP, dtype=points.dtype)
    direction = torch.zeros_like(points)
    for _ in range(STEPS):
        if deadline.expired:
            break
        x = x.detach().requires_grad_(True)
        rows, outputs = evaluate(network, targets, x)
        found = margins(rows)
        (gradient,) = torch.autograd.grad(found.sum(), x)
        improved = (found.detach() < best_margins).unsqueeze(-1)
        best = torch.where(improved, x.detach(), best)
        best_margins = torch.where(improved.squeeze(-1), found.detach(), best_margins)
        direction = torch.where(improved, gradient.sign(), direction)
        step = torch.where(improved, step, step / 2)
        if (best_margins <= -BEYOND * outputs.detach().abs().amax()).all():
            break
        x = boxes.clip(best - step * boxes.width * direction)
    return best, best_margins
