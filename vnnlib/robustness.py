"""The commonest property: near this input, another class wins.

The box contains the whole ball.  ``x - epsilon`` and ``x + epsilon`` are rounded outward where float64 does
not hold them, by at most one unit in the last place, so that a proof for the box is a proof for the ball.
"""

from __future__ import annotations

import numpy as np

from verifier.errors import OptionError
from verifier.vnnlib.spec import Array, Disjunct, LinearConstraints, Spec


def robustness(
    x: Array,
    epsilon: float | Array,
    label: int,
    n_outputs: int,
    bounds: tuple[float | Array, float | Array] | None = (0.0, 1.0),
) -> Spec:
    """Inputs within ``epsilon`` of ``x`` and in ``bounds``, where another class ties or wins.

    x: any shape; taken in C order.  epsilon: a number, or one per input in the shape of ``x``.
    label: the class that should win.  bounds: lowest and highest valid input, each a number or in the shape
    of ``x``; None for no bounds.
    Returns n_outputs - 1 disjuncts ``Y_other >= Y_label`` that share one box.
    Raises OptionError for a label, radius, point or bounds that make no sense.
    """
    centre = np.asarray(x, np.float64)
    radius = _like(centre, epsilon, "radius")
    if not centre.size or not np.isfinite(centre).all():
        raise OptionError("the input must consist of finite numbers, at least one")
    if not (np.isfinite(radius).all() and (radius >= 0).all()):
        raise OptionError(f"the radius must be finite and not negative, not {epsilon}")
    if n_outputs < 2 or not 0 <= label < n_outputs:
        raise OptionError(f"the label must be one of 0 to {n_outputs - 1} and there must be another class, not {label}")
    lower, upper = -_sum_rounded_up(-centre, radius), _sum_rounded_up(centre, radius)
    if bounds is not None:
        lower = np.maximum(lower, _like(centre, bounds[0], "lower bound"))
        upper = np.minimum(upper, _like(centre, bounds[1], "upper bound"))
    if not (lower <= upper).all():
        raise OptionError("the input lies outside the bounds by more than the radius; is it scaled like them?")
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise OptionError("the ball reaches beyond the range of float64; choose a smaller radius")
    return Spec(centre.size, n_outputs, _other_classes(lower.ravel() + 0.0, upper.ravel() + 0.0, label, n_outputs))


def _like(centre: Array, value: float | Array, name: str) -> Array:
    """``value`` in the shape of the input.  Raises OptionError where it has another."""
    values = np.asarray(value, np.float64)
    if values.shape not in ((), centre.shape):
        raise OptionError(f"the values of the {name} do not have the shape of the input, {centre.shape}")
    return np.broadcast_to(values, centre.shape)


def _other_classes(lower: Array, upper: Array, label: int, n_outputs: int) -> tuple[Disjunct, ...]:
    """One disjunct per class other than ``label``."""
    no_inputs = np.broadcast_to(0.0, (1, len(lower)))
    zero, not_strict = np.zeros(1), np.zeros(1, np.bool_)
    disjuncts = []
    for other in range(n_outputs):
        if other != label:
            outputs = np.zeros((1, n_outputs))
            outputs[0, label], outputs[0, other] = 1.0, -1.0
            constraints = LinearConstraints(no_inputs, outputs, zero, not_strict)
            disjuncts.append(Disjunct(lower, upper, constraints))
    return tuple(disjuncts)


def _sum_rounded_up(a: Array, b: Array) -> Array:
    """The smallest float64 not below ``a + b``, or one above it at most; entry by entry.

    Knuth's TwoSum gives the rounding error of the sum exactly; where it is positive the sum was rounded down.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = a + b
        part = total - a
        error = (a - (total - part)) + (b - part)
    return np.where(error > 0, np.nextafter(total, np.inf), total)
