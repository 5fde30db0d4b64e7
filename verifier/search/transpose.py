"""Arrays of single regions to rows of lanes and back: the regions' numbers side by side, as ``lanes`` wants them.

numpy's ``stack`` along the last axis and ``.T.copy()`` walk through memory in strides and hold the interpreter, which
threads wait for.  Tile by tile and compiled, both stay in the first cache and let other threads run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from verifier.search.compiled import OPTIONS

TILE = 32
"""Rows at a time."""


def interleave(parts: Sequence[NDArray[Any]], out: NDArray[Any]) -> None:
    """out[:, k] = parts[k], all (rows,) and of one type; out: (rows, len(parts)), of any type."""
    _interleave(tuple(parts), out)


def separate(values: NDArray[Any]) -> list[NDArray[Any]]:
    """The columns of ``values``, (rows, count), as arrays of their own."""
    parts = tuple(np.empty(len(values), values.dtype) for _ in range(values.shape[1]))
    _separate(values, parts)
    return list(parts)


@njit(**OPTIONS)
def _interleave(parts, out):
    for first in range(0, len(out), TILE):
        last = min(first + TILE, len(out))
        for k in range(len(parts)):
            part = parts[k]
            for i in range(first, last):
                out[i, k] = part[i]


@njit(**OPTIONS)
def _separate(values, parts):
    for first in range(0, len(values), TILE):
        last = min(first + TILE, len(values))
        for k in range(len(parts)):
            part = parts[k]
            for i in range(first, last):
                part[i] = values[i, k]
