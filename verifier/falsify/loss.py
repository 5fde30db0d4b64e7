"""The margins of many disjuncts at many points, and what is descended to make them negative.

A disjunct's margin is the largest of its rows ``inputs @ x + outputs @ y - bounds`` (``verifier.verdict``); it holds
where that is <= 0.  The rows of D disjuncts are stacked into one tensor, padded with rows that hold everywhere, so that
one batched product serves all of them.

Descending the margin itself moves one row at a time and zigzags where several meet.  The sum of the positive rows
(the hinge loss of Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017, section IV.A,
row by row) pulls on all violated rows at once, but lets a small gain on one pay for a loss on another.  Neither wins
everywhere, so every restart uses one of the two; on a single row they are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.vnnlib.spec import Disjunct


@dataclass(frozen=True, eq=False)
class Targets:
    """The rows of D disjuncts, R each.

    outputs: (D, R, n_outputs).  inputs: (D, R, n_inputs), None where no row mentions an input.
    bounds: (D, R), infinite on padding rows, whose coefficients are zero.
    """

    outputs: Tensor
    inputs: Tensor | None
    bounds: Tensor

    @classmethod
    def of(cls, disjuncts: Sequence[Disjunct], dtype: torch.dtype, device: str | torch.device = "cpu") -> Targets:
        """The rows of at least one disjunct, all over the same inputs and outputs."""
        constraints = [disjunct.constraints for disjunct in disjuncts]
        most = max(1, *(len(rows) for rows in constraints))
        outputs = np.zeros((len(constraints), most, constraints[0].outputs.shape[1]))
        bounds = np.full((len(constraints), most), np.inf)
        inputs = None
        if any(rows.mentions_inputs for rows in constraints):
            inputs = np.zeros((len(constraints), most, len(disjuncts[0].lower)))
        for i, rows in enumerate(constraints):
            outputs[i, : len(rows)] = rows.outputs
            bounds[i, : len(rows)] = rows.bounds
            if inputs is not None:
                inputs[i, : len(rows)] = rows.inputs

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device, dtype)

        return cls(tensor(outputs), None if inputs is None else tensor(inputs), tensor(bounds))

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        """Every row's margin, (D, K, R), at points x: (D, K, n_inputs) with outputs y: (D, K, n_outputs)."""
        rows = torch.matmul(y, self.outputs.transpose(1, 2)) - self.bounds.unsqueeze(1)
        if self.inputs is not None:
            rows = rows + torch.matmul(x, self.inputs.transpose(1, 2))
        return rows


def margins(rows: Tensor) -> Tensor:
    """The margins of the disjuncts, (D, K), from their rows (D, K, R)."""
    return rows.amax(dim=-1)


def objective(rows: Tensor, summed: Tensor) -> Tensor:
    """What each point descends, (D, K).  summed: (D, K) bool, the sum of its positive rows in place of the largest."""
    if rows.shape[-1] == 1:
        return rows.squeeze(-1)
    return torch.where(summed, rows.clamp(min=0).sum(dim=-1), margins(rows))
