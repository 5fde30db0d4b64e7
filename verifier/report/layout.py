"""Which inputs are pictures, and how their values lie in memory.

The ONNX shape alone decides: (1, 1, H, W), (1, 3, H, W), (1, H, W, 1), (1, H, W, 3), each with or without
its leading ones, and flat vectors whose length is a square (one channel: 784, 64) or three times a square
(three channels, channel first as CIFAR-10 is flattened: 3072).  What is smaller than the limits below is
taken for measurements: the (1, 1, 1, 5) of ACAS Xu is no picture, nor are 16 numbers in a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COLOURS = 3
SMALLEST_SIDE = 4
SMALLEST_SIDE_OF_A_VECTOR = 8
"""A vector says less about what it is than a shape does, so it has to be larger to pass."""


@dataclass(frozen=True)
class ImageLayout:
    """height, width in pixels; channels 1 or 3; channels_last: whether the channel varies fastest."""

    height: int
    width: int
    channels: int
    channels_last: bool = False

    def pixels(self, values: Array) -> Array:
        """(height, width, channels) from the (n,) flattened input."""
        if self.channels_last:
            return values.reshape(self.height, self.width, self.channels)
        return np.moveaxis(values.reshape(self.channels, self.height, self.width), 0, -1)

    def channel_of(self) -> NDArray[np.int64]:
        """(n,): the channel every flattened input belongs to."""
        pixels = self.height * self.width
        if self.channels_last:
            return np.tile(np.arange(self.channels), pixels)
        return np.repeat(np.arange(self.channels), pixels)


def image_layout(shape: tuple[int, ...]) -> ImageLayout | None:
    """The layout of an input of this shape (one sample, leading ones or not); None for no picture."""
    if sum(side != 1 for side in shape) == 1:
        found, smallest = _flattened(math.prod(shape)), SMALLEST_SIDE_OF_A_VECTOR
    else:
        found, smallest = _planes(shape), SMALLEST_SIDE
    return found if found and min(found.height, found.width) >= smallest else None


def _planes(shape: tuple[int, ...]) -> ImageLayout | None:
    """(..., H, W), (..., C, H, W) or (..., H, W, C) behind leading ones."""
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 2:
        return ImageLayout(shape[0], shape[1], 1)
    if len(shape) != 3:
        return None
    first, middle, last = shape
    if first in (1, COLOURS) and (last not in (1, COLOURS) or middle in (1, COLOURS)):
        return ImageLayout(middle, last, first)
    if last in (1, COLOURS):
        return ImageLayout(first, middle, last, channels_last=True)
    return None


def _flattened(length: int) -> ImageLayout | None:
    for channels in (1, COLOURS):
        side = math.isqrt(length // channels)
        if channels * side * side == length:
            return ImageLayout(side, side, channels)
    return None
