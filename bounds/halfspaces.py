"""The least value of a linear function over a box cut by halfspaces: Lagrangian dual, coordinate ascent, compiled.

A region of branch and bound fixes the signs of some neurons.  The linear upper bound of a split neuron's  sign * z
turns  sign * z >= 0  into a halfspace  H x + h >= 0  of inputs that contains the region.  For any multipliers beta >= 0

    c x + d  >=  min over the box of (c - beta H) x  +  d - beta h        for every x of the region,

which is tighter than the box alone wherever a halfspace cuts off the corner that minimises c x.  For one multiplier
the right-hand side is concave and piecewise linear; false position on its slope finds the best, one halfspace after
the other (Zhou et al., Clip-and-Verify, NeurIPS 2025, clip input boxes and intermediate bounds so).

Invariant: the ascent may round as it likes (it runs in float32), any beta >= 0 is valid; the value returned is
evaluated once at the end in float64 with all rounding errors subtracted (Higham, 2002, ch. 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.crown import LinearBound
from verifier.bounds.rounding import gamma


@dataclass(frozen=True, eq=False)
class Halfspaces:
    """Per region the inputs with  coefficients . x + constants + slack >= 0  for each of its halfspaces.

    coefficients: [B, K, n_inputs]; constants, slack (>= 0, covers rounding): [B, K]; counts: [B], how many of the K are
    in use.
    """

    coefficients: Tensor
    constants: Tensor
    slack: Tensor
    counts: Tensor

    @staticmethod
    def none(batch: int, most: int, n_inputs: int) -> Halfspaces:
        """Room for ``most`` halfspaces in each of ``batch`` regions."""
        shape = (batch, most)
        double = torch.float64
        return Halfspaces(
            torch.zeros(*shape, n_inputs, dtype=double),
            torch.zeros(shape, dtype=double),
            torch.zeros(shape, dtype=double),
            torch.zeros(batch, dtype=torch.long),
        )

    def append(self, region: Tensor, coefficients: Tensor, constants: Tensor, slack: Tensor) -> None:
        """Add halfspaces to the named regions, in place; a region may repeat.  Raises IndexError when full."""
        for i, owner in enumerate(region.tolist()):
            at = int(self.counts[owner])
            self.coefficients[owner, at] = coefficients[i]
            self.constants[owner, at] = constants[i]
            self.slack[owner, at] = slack[i]
            self.counts[owner] += 1


def over_cut_box(
    bound: LinearBound, lower: Tensor, upper: Tensor, cuts: Halfspaces, multipliers: Tensor | None = None
) -> Tensor:
    """Rigorous least values [B, R] of linear bounds over one box, lower, upper: [1, n_inputs], cut by halfspaces.

    multipliers: [B, R, K] zeros, overwritten by those of the halfspaces that gave the values.
    """
    plain = bound.over_box(lower, upper)
    if not bool((cuts.counts > 0).any()):
        return plain
    # Importing compiles the kernel, or loads it from numba's cache.
    from verifier.bounds.halfspaces_kernel import minima

    batch, rows = plain.shape
    coefficients = bound.coefficients.expand(batch, rows, -1)
    constants, error = (part.expand(batch, rows) for part in (bound.constants, bound.error))
    found = np.full((batch, rows), -np.inf)
    used = np.zeros((0, 0, 0)) if multipliers is None else multipliers.numpy()
    relative = 2 * gamma(coefficients.shape[2] + 3 * cuts.constants.shape[1] + 16)
    minima(
        coefficients.numpy(),
        constants.numpy(),
        error.numpy(),
        plain.numpy(),
        cuts.coefficients.numpy(),
        cuts.constants.numpy(),
        cuts.slack.numpy(),
        cuts.counts.numpy(),
        lower[0].numpy(),
        upper[0].numpy(),
        relative,
        found,
        used,
    )
    return torch.maximum(plain, torch.from_numpy(np.nan_to_num(found, nan=-np.inf, posinf=-np.inf)))
