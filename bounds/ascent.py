"""Projected gradient ascent on what a family of bounds may choose freely: Adam (Kingma and Ba, 2015) and a projection.

Bounds of several rows or regions ascend side by side, each keeping the best choice it has seen.  Any choice within its
range gives a valid bound, so nothing here needs care with rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.deadline import Deadline

MOMENTUM, SQUARES = 0.9, 0.99


@dataclass(frozen=True)
class Choice:
    """One tensor to ascend: its start, its step at first, and the projection onto its range."""

    start: Tensor
    step: float
    project: Callable[[Tensor], Tensor]


Gradients = Callable[[], list[Tensor] | None]
"""The gradients of bounds that were just made, one tensor per choice; None where they depend on no choice."""

Bound = Callable[[list[Tensor]], tuple[Tensor, Gradients]]
"""From one tensor per choice to a vector of bounds, and their gradients when these are wanted."""


def by_autograd(bound: Callable[[list[Tensor]], Tensor]) -> Bound:
    """A differentiable function as a ``Bound``."""

    def both(values: list[Tensor]) -> tuple[Tensor, Gradients]:
        leaves = [value.detach().requires_grad_(True) for value in values]
        found = bound(leaves)

        def gradients() -> list[Tensor] | None:
            # Rows of zeros depend on no choice.
            if not found.requires_grad:
                return None
            parts = torch.autograd.grad(found.sum(), leaves, allow_unused=True)
            return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, parts, strict=True)]

        return found.detach(), gradients

    return both


def ascend(
    choices: list[Choice],
    bound: Bound,
    keep: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
    decay: float,
    deadline: Deadline | None = None,
) -> list[Tensor]:
    """The choices with the best bound seen, per entry of the bound.

    keep: makes a bool vector like the bound broadcast against a choice.  decay: of the steps, per iteration.  Ends
    early once every bound is positive or the deadline has passed.
    """
    values = [choice.project(choice.start.clone()) for choice in choices]
    kept = [value.clone() for value in values]
    first = [torch.zeros_like(value) for value in values]
    second = [torch.zeros_like(value) for value in values]
    best: Tensor | None = None
    for iteration in range(1, iterations + 1):
        seen, gradients = bound(values)
        better = seen > best if best is not None else torch.ones_like(seen, dtype=torch.bool)
        best = torch.where(better, seen, best) if best is not None else seen
        kept = [torch.where(keep(better, k), v, k) for k, v in zip(kept, values, strict=True)]
        late = deadline is not None and deadline.expired
        if iteration == iterations or late or bool((best > 0).all()):
            break
        found = gradients()
        if found is None:
            break
        for i, (choice, value, gradient) in enumerate(zip(choices, values, found, strict=True)):
            g = torch.nan_to_num(gradient)
            first[i] = MOMENTUM * first[i] + (1 - MOMENTUM) * g
            second[i] = SQUARES * second[i] + (1 - SQUARES) * g * g
            move = first[i] / (1 - MOMENTUM**iteration)
            size = (second[i] / (1 - SQUARES**iteration)).sqrt() + 1e-12
            values[i] = choice.project(value + choice.step * decay ** (iteration - 1) * move / size)
    return kept
