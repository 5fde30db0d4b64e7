"""The least value of a linear function over a box cut by halfspaces: Lagrangian dual, coordinate ascent, compiled.

A region of branch and bound fixes the signs of some neurons.  The linear upper bound of a split neuron's  sign * z
turns  sign * z >= 0  into a halfspace  H x + h >= 0  of inputs that contains the region.  For any multipliers beta >= 0

    c x + d  >=  min over the box of (c - beta H) x  +  d - beta h        for every x of the region,

which is tighter than the box alone wherever a halfspace cuts off the corner that minimises c x.  For one multiplier
the right-hand side is concave and piecewise linear; bisection on its slope finds the best, one halfspace after the
other (Zhou et al., Clip-and-Verify, NeurIPS 2025, clip input boxes and intermediate bounds so).

Invariant: the ascent may round as it likes, any beta >= 0 is valid; the value returned is evaluated once at the end
with all rounding errors subtracted (Higham, 2002, ch. 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from verifier.bounds.crown import LinearBound
from verifier.bounds.rounding import gamma

ROUNDS = 2
"""Passes over the halfspaces; a third gains nothing that can be measured."""
EXPANSIONS, BISECTIONS = 12, 10


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
        """Add one halfspace to each of the named regions, in place; ``region`` may repeat.  Raises IndexError when full."""
        for i, owner in enumerate(region.tolist()):
            at = int(self.counts[owner])
            self.coefficients[owner, at] = coefficients[i]
            self.constants[owner, at] = constants[i]
            self.slack[owner, at] = slack[i]
            self.counts[owner] += 1


def over_cut_box(bound: LinearBound, lower: Tensor, upper: Tensor, cuts: Halfspaces) -> Tensor:
    """Rigorous least values [B, R] of linear bounds over one box, lower, upper: [1, n_inputs], cut by halfspaces."""
    plain = bound.over_box(lower, upper)
    if not bool((cuts.counts > 0).any()):
        return plain
    batch, rows = plain.shape
    coefficients = bound.coefficients.expand(batch, rows, -1)
    constants, error = (part.expand(batch, rows) for part in (bound.constants, bound.error))
    found = np.full((batch, rows), -np.inf)
    relative = 2 * gamma(coefficients.shape[2] + 3 * cuts.constants.shape[1] + 16)
    _minima(
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
    )
    return torch.maximum(plain, torch.from_numpy(np.nan_to_num(found, nan=-np.inf, posinf=-np.inf)))


_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


@njit(**_OPTIONS)
def _slope(c, a, beta, radius, offset):
    """Slope of the dual function at beta: what one unit of this multiplier still gains."""
    total = -offset
    for i in range(len(c)):
        move = radius[i] * a[i]
        total += move if c[i] - beta * a[i] > 0 else -move
    return total


@njit(**_OPTIONS)
def _best(c, a, radius, offset):
    """The multiplier of one halfspace where the dual function's slope changes sign, from below; 0 where it never rises."""
    if _slope(c, a, 0.0, radius, offset) <= 0:
        return 0.0
    size, scale = 0.0, 1e-300
    for i in range(len(c)):
        size += abs(c[i]) * radius[i]
        scale += abs(a[i]) * radius[i]
    low, high = 0.0, size / scale
    for _ in range(EXPANSIONS):
        if _slope(c, a, high, radius, offset) <= 0:
            break
        low, high = high, 4.0 * high
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if _slope(c, a, middle, radius, offset) > 0:
            low = middle
        else:
            high = middle
    return low


@njit(**_OPTIONS)
def _minima(C, d, error, plain, H, h, slack, counts, lower, upper, relative, found):
    n = len(lower)
    radius, largest, middle = np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        radius[i] = 0.5 * (upper[i] - lower[i])
        middle[i] = 0.5 * (upper[i] + lower[i])
        largest[i] = max(abs(lower[i]), abs(upper[i]))
    c, offsets, betas = np.empty(n), np.empty(H.shape[1]), np.empty(H.shape[1])
    for b in range(C.shape[0]):
        count = counts[b]
        for k in range(count):
            offsets[k] = h[b, k]
            for i in range(n):
                offsets[k] += H[b, k, i] * middle[i]
        for r in range(C.shape[1]):
            if plain[b, r] > 0:
                continue  # a row that the box alone makes positive has decided its sign
            for i in range(n):
                c[i] = C[b, r, i]
            moved = False
            for k in range(count):
                betas[k] = 0.0
            for _ in range(ROUNDS):
                risen = False
                for k in range(count):
                    beta = _best(c, H[b, k], radius, offsets[k])
                    if beta > 0:
                        risen = True
                        betas[k] += beta
                        for i in range(n):
                            c[i] -= beta * H[b, k, i]
                moved = moved or risen
                if not risen:
                    break
            if moved:
                found[b, r] = _value(C[b, r], d[b, r], error[b, r], H[b], h[b], slack[b], betas, count, lower, upper,
                                     largest, relative)  # fmt: skip


@njit(**_OPTIONS)
def _value(C, d, error, H, h, slack, betas, count, lower, upper, largest, relative):
    """The dual function at ``betas``, every rounding error subtracted."""
    total, size, constant, room = 0.0, 0.0, d, abs(d)
    for k in range(count):
        constant -= betas[k] * (h[k] + slack[k])
        room += betas[k] * (abs(h[k]) + slack[k])
    for i in range(len(C)):
        c, absolute = C[i], abs(C[i])
        for k in range(count):
            c -= betas[k] * H[k, i]
            absolute += betas[k] * abs(H[k, i])
        total += c * lower[i] if c > 0 else c * upper[i]
        size += absolute * largest[i]
    return total + constant - 1.001 * error - relative * (size + room) - 1e-290
