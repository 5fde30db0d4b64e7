"""Where a monotone function jumps, found by bisection: nothing is assumed of it but that it is monotone.

The functions are compositions of elementwise ONNX nodes, evaluated by onnxruntime.  Rounding is monotone, so a
composition of monotone operators is monotone in floating point as well, and the argument at which it jumps is found
exactly, as an integer or as a float32, whatever the rounding inside does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_STEPS = 64
"""A function with more values than this is not taken for a quantiser."""


class TooManyStepsError(Exception):
    """The function does not look like a step function."""


def steps(
    function: Callable[[Integers], Floats], low: Integers, high: Integers
) -> tuple[Floats, list[Integers], list[Floats]]:
    """Values and jumps of n functions on the integers low..high (n,), monotone each.

    function: all n at once, (n,) to (n,).
    Returns the values at ``low``, and for k = 1, 2, ... the place of every function's k-th jump (``high + 1`` where
    it has fewer) and the value from there on.  Raises TooManyStepsError.
    """
    first = value = function(low)
    last = function(high)
    place = low
    places: list[Integers] = []
    values: list[Floats] = []
    while np.any(value != last):
        if len(places) == MOST_STEPS:
            raise TooManyStepsError
        # Invariant: f(left) == value < f(right), or there is no further jump.
        left, right = place.copy(), high.copy()
        jumps = value != last
        while np.any(active := jumps & (right - left > 1)):
            middle = np.where(active, left + (right - left) // 2, left)
            same = function(middle) == value
            left = np.where(active & same, middle, left)
            right = np.where(active & ~same, middle, right)
        place = np.where(jumps, right, high)
        value = function(place)
        places.append(np.where(jumps, right, high + 1))
        values.append(value)
    return first, places, values


def ordinals(values: NDArray[np.float32]) -> Integers:
    """float32 numbers as integers in the same order, without gaps; -0.0 and 0.0 share one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def floats(ordinal: Integers) -> NDArray[np.float32]:
    """The inverse of ``ordinals``."""
    magnitude = np.abs(ordinal).astype(np.int32)
    return np.where(ordinal < 0, -magnitude.view(np.float32), magnitude.view(np.float32))
