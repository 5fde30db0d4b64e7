"""Projected gradient ascent on what a family of bounds may choose freely: Adam (Kingma and Ba, 2015) and a projection.

Bounds of several rows or regions ascend side by side, each keeping the best choice it has seen.  Any choice within its
range gives a valid bound, so nothing here needs care with rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MOMENTUM, SQUARES = 0.9, 0.99


@dataclass(frozen=True)
class Choice:
    """One tensor to ascend: its start, its step at first, and the projection onto its range."""

    start: Tensor
    step: float
    project: Callable[[Tensor], Tensor]


def ascend(
    choices: list[Choice],
    bound: Callable[[list[Tensor]], Tensor],
    keep: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
    decay: float,
) -> list[Tensor]:
    """The choices with the best bound seen, per entry of the bound.

    bound: from one tensor per choice to a vector of bounds, differentiable.  keep: makes a bool vector like the bound
    broadcast against a choice.  decay: of the steps, per iteration.  Ends early once every bound is positive.
    """
    values = [choice.project(choice.start.clone()) for choice in choices]
    kept = [value.clone() for value in values]
    first = [torch.zeros_like(value) for value in values]
    second = [torch.zeros_like(value) for value in values]
    best: Tensor | None = None
    for iteration in range(1, iterations + 1):
        leaves = [value.detach().requires_grad_(True) for value in values]
        found = bound(leaves)
        seen = found.detach()
        better = seen > best if best is not None else torch.ones_like(seen, dtype=torch.bool)
        best = torch.where(better, seen, best) if best is not None else seen
        kept = [torch.where(keep(better, k), v.detach(), k) for k, v in zip(kept, leaves, strict=True)]
        # Rows of zeros depend on no choice.
        if iteration == iterations or not found.requires_grad or bool((best > 0).all()):
            break
        gradients = torch.autograd.grad(found.sum(), leaves, allow_unused=True)
        for i, (choice, leaf, gradient) in enumerate(zip(choices, leaves, gradients, strict=True)):
            g = torch.zeros_like(leaf) if gradient is None else torch.nan_to_num(gradient)
            first[i] = MOMENTUM * first[i] + (1 - MOMENTUM) * g
            second[i] = SQUARES * second[i] + (1 - SQUARES) * g * g
            move = first[i] / (1 - MOMENTUM**iteration)
            size = (second[i] / (1 - SQUARES**iteration)).sqrt() + 1e-12
            values[i] = choice.project(leaf.detach() + choice.step * decay ** (iteration - 1) * move / size)
    return kept
