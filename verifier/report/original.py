"""The point a robustness box was drawn around, recovered from the box alone.

A property "every image within epsilon of this one" is written as a box clipped to the range of the pixels,
so its centre is not the image: near black the lower side is cut off, near white the upper one.  Epsilon is
half the largest width; where a side is narrower than that and ends at the common minimum (or maximum) of
the box, it was clipped there and the image lies epsilon away from the other end.  Channels normalised by
means and deviations of their own have ranges and epsilons of their own, so every channel is looked at by
itself.

The answer is a guess meant for pictures, never used in a verdict.  It always lies inside the box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verifier.report.layout import image_layout

Array = NDArray[np.float64]

RELATIVE_SLACK = 1e-5
"""Decimal literals in property files carry float32 noise; widths this close count as equal."""


def recover_original(lower: Array, upper: Array, shape: tuple[int, ...] = ()) -> Array:
    """The likely original (n_inputs,) of the box lower, upper (n_inputs,).

    shape: the input's, to tell channels apart; an input that is no picture is taken as one channel.
    """
    layout = image_layout(shape) if shape else None
    if layout is None or layout.channels == 1:
        return _recover(lower, upper)
    original = np.empty_like(lower)
    channel_of = layout.channel_of()
    for channel in range(layout.channels):
        chosen = channel_of == channel
        original[chosen] = _recover(lower[chosen], upper[chosen])
    return original


def _recover(lower: Array, upper: Array) -> Array:
    width = upper - lower
    epsilon = width.max() / 2
    slack = RELATIVE_SLACK * width.max()
    # A box clipped by its range keeps at least epsilon: the original itself is inside.
    clipped = (width < 2 * epsilon - slack) & (width >= epsilon - slack)
    at_bottom = clipped & (lower <= lower.min() + slack)
    at_top = clipped & (upper >= upper.max() - slack)
    original = (lower + upper) / 2
    original = np.where(at_bottom & ~at_top, upper - epsilon, original)
    original = np.where(at_top & ~at_bottom, lower + epsilon, original)
    return np.clip(original, lower, upper)
