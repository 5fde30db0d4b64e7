"""Parameters that have to be computed, with an account of their rounding.

Everything is round-to-nearest IEEE float64, u = 2**-53.  A relative error is counted in ``ulps``, units of u:
after k roundings it is at most k u / (1 - k u), which is below (k + 1) u for the small k that occur, so one
more than the number of roundings is stated as soon as k exceeds 1.  Results too close to underflow or
overflow for that are not computed: the functions return None or raise ModelError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.errors import ModelError

UNIT = 2.0**-53
# Absolute errors are themselves computed in floating point; this factor covers their own rounding, for sums
# of up to 2**32 terms, and the terms that are quadratic in the number of ulps.
COVER = 1.0 + 2.0**-20
# Roundings below this magnitude may be absolute ones (subnormal numbers); far below any weight.
TINY = 2.0**-960
LARGE = 2.0**960


def _is_power_of_two(values: Tensor) -> bool:
    return bool((torch.frexp(values.abs()).mantissa == 0.5).all())


def _in_range(values: Tensor) -> bool:
    magnitude = values.abs()
    return bool(((magnitude == 0) | ((magnitude > TINY) & (magnitude < LARGE))).all())


def _short(values: Tensor) -> bool:
    """Whether 24 significant bits suffice, so that a product of two such values is exact."""
    return bool((values.float().double() == values).all())


def _is_one_for(factor: Tensor, other: Tensor) -> bool:
    """Whether the product is simply ``other``: all ones, and no broadcasting of ``other``."""
    broadcast = np.broadcast_shapes(tuple(factor.shape), tuple(other.shape))
    return broadcast == tuple(other.shape) and bool((factor == 1).all())


def reciprocal(divisor: Tensor) -> tuple[Tensor, int]:
    """1 / divisor and its ulps.  Raises ModelError near overflow or underflow."""
    if not _in_range(divisor):
        raise ModelError(f"a division by {float(divisor.abs().min()):g} overflows; check the model")
    return 1.0 / divisor, 0 if _is_power_of_two(divisor) else 1


def product(left: Tensor, left_ulps: int, right: Tensor, right_ulps: int) -> tuple[Tensor, int] | None:
    """The elementwise (broadcast) product and its ulps, or None where it could underflow or overflow."""
    if not left_ulps and _is_one_for(left, right):
        return right, right_ulps
    if not right_ulps and _is_one_for(right, left):
        return left, left_ulps
    result = left * right
    if not _in_range(result) or bool(((result == 0) & (left != 0) & (right != 0)).any()):
        return None
    ulps = left_ulps + right_ulps
    exact = bool(((left.abs() == 1) | (left == 0)).all()) or bool(((right.abs() == 1) | (right == 0)).all())
    if exact or (_short(left) and _short(right)) or _is_power_of_two(left) or _is_power_of_two(right):
        return result, ulps + 1 if left_ulps and right_ulps else ulps
    return result, ulps + 1 if not ulps else ulps + 2


def total(left: Tensor, right: Tensor) -> tuple[Tensor, int]:
    """The elementwise (broadcast) sum and its ulps: 0 where Knuth's TwoSum finds no rounding, else 1."""
    result = left + right
    virtual = result - left
    rounding = (left - (result - virtual)) + (right - virtual)
    return result, 1 if bool(rounding.any()) else 0


@dataclass(frozen=True, eq=False)
class Offset:
    """Stored offsets and an elementwise bound on their absolute errors (None: exact)."""

    value: Tensor
    error: Tensor | None

    def errors(self) -> Tensor:
        return torch.zeros_like(self.value) if self.error is None else self.error


def scaled_offset(inner: Offset, scale: Tensor, scale_ulps: int, outer: Offset) -> Offset:
    """``scale * inner + outer``, elementwise (broadcast)."""
    scaled = scale * inner.value
    value, sum_ulps = total(scaled, outer.value)
    untouched = bool((inner.value == 0).all())
    exact = product(scale, 0, inner.value, 0)
    exact_product = untouched or (exact is not None and exact[1] == 0)
    exact_scale = untouched or scale_ulps == 0
    if inner.error is None and outer.error is None and sum_ulps == 0 and exact_product and exact_scale:
        return Offset(value, None)
    roundings = (scale_ulps + 2) * UNIT * scaled.abs() + 2 * UNIT * value.abs()
    carried = scale.abs() * inner.errors() * (1 + scale_ulps * UNIT) + outer.errors()
    return Offset(value, (roundings + carried) * COVER + TINY)


def mapped_offset(matrix: Tensor, ulps: int, inputs: Offset, outer: Offset) -> Offset:
    """``sum over columns of matrix * inputs``, plus ``outer``: (rows,).

    matrix: (rows, columns) with its ulps; inputs: of the matrix's shape.  The sum may be taken in any order:
    its rounding is at most (columns + 1) u times the sum of the magnitudes.
    """
    value = (matrix * inputs.value).sum(1) + outer.value
    magnitude = (matrix.abs() * inputs.value.abs()).sum(1) + outer.value.abs()
    roundings = (matrix.shape[1] + ulps + 3) * UNIT * magnitude
    carried = (matrix.abs() * inputs.errors()).sum(1) * (1 + (ulps + 1) * UNIT) + outer.errors()
    return Offset(value, (roundings + carried) * COVER + TINY)
