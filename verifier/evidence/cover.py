"""Do partial sign assignments cover all of {-1, +1}^m?  The leaves of a complete tree of splits do.

Some neuron is split in every leaf, at least the tree's first; by its sign the leaves fall into two sets, each again the
leaves of a tree.  A set with a leaf that has no splits left is covered; an empty set is a region that no leaf covers.
Nothing is taken from the file but the leaves: neither the order of the splits nor what was a parent of what.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int32]


def gaps(counts: NDArray[np.int32], codes: Codes) -> Iterator[list[int]]:
    """Regions that no leaf covers, each as the codes +-(neuron + 1) of its splits.

    counts: splits per leaf; codes: those of all leaves, one leaf after the other.  A set of leaves that no tree of
    splits has is treated as covering nothing.
    """
    neurons, column = np.unique(np.abs(codes), return_inverse=True)
    signs = np.zeros((len(counts), len(neurons)), np.int8)
    signs[np.repeat(np.arange(len(counts)), counts), column] = np.sign(codes)
    waiting: list[tuple[NDArray[np.int64], list[int]]] = [(np.arange(len(counts)), [])]
    while waiting:
        rows, path = waiting.pop()
        free = np.setdiff1d(np.arange(len(neurons)), [abs(step) - 1 for step in path])
        part = signs[np.ix_(rows, free)]
        if len(rows) and not part.any(axis=1).all():
            continue
        splits = (part != 0).all(axis=0) if len(rows) else np.zeros(0, bool)
        if not splits.any():
            yield [int(np.sign(step)) * int(neurons[abs(step) - 1]) for step in path]
            continue
        place = int(np.argmax(splits))
        for sign in (1, -1):
            waiting.append((rows[part[:, place] == sign], [*path, sign * (int(free[place]) + 1)]))
