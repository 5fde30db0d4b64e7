"""The exhaustive part of a sign-pattern proof: every pattern of first-layer bits is in conflict or fails.

The check walks a tree over the bits in the order that the proof names.  A node ends when a conflict forbids it or when
intervals of the later layers rule the asserted rows out; the patterns below the last levels are evaluated one by one.
All numbers are integers below 2**53 in float64 and therefore exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.encodings.sat.program import Program
from verifier.proofs.conflict import Conflict

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK = 14
LARGEST = 2**53


def all_fail(program: Program, order: Sequence[int], conflicts: Sequence[Conflict], deadline: Deadline) -> str:
    """ "" when every pattern is in conflict or fails the asserted rows, otherwise why that is not shown.

    order: every gate of the first layer once.  The conflicts must have been checked.
    """
    count = len(program.layers[0])
    if sorted(order) != list(range(count)):
        return "the order does not name every gate of the first layer once"
    later = [*program.layers[1:], program.asserted]
    if any(abs(layer.weights).sum(axis=1).max(initial=0) >= LARGEST for layer in later):
        return "numbers too large"
    place = {gate: i for i, gate in enumerate(order)}
    # Masks over the places in the order: the first are the head, the last are tabulated.
    forbidden = [
        (
            sum(1 << place[int(gate)] for gate in conflict.gates),
            sum(1 << place[int(gate)] for gate, bit in zip(conflict.gates, conflict.bits, strict=True) if bit),
        )
        for conflict in conflicts
    ]
    layers = [(layer.weights.toarray().astype(np.float64), layer.thresholds.astype(np.float64)) for layer in later]
    layers[0] = (layers[0][0][:, list(order)], layers[0][1])
    head = max(0, count - BLOCK)
    tail = np.arange(2 ** (count - head), dtype=np.int64)
    tail_bits = ((tail[:, None] >> np.arange(count - head)) & 1).astype(np.float64)
    waiting = [(0, 0)]
    while waiting:
        if deadline.expired:
            return "the time is over"
        depth, pattern = waiting.pop()
        known = (1 << depth) - 1
        if any(mask & ~known == 0 and pattern & mask == value for mask, value in forbidden):
            continue
        if not _possible(layers, depth, pattern, count):
            continue
        if depth < head:
            waiting += [(depth + 1, pattern), (depth + 1, pattern | 1 << depth)]
            continue
        alive = np.ones(len(tail), bool)
        for mask, value in forbidden:
            if pattern & mask & known == value & known:
                alive &= (tail & (mask >> head)) != value >> head
        fixed = np.array([pattern >> i & 1 for i in range(head)], np.float64)
        if _any_holds(layers, fixed, tail_bits[alive]):
            return "a pattern that no conflict forbids satisfies the asserted rows"
    return ""


def _possible(layers: list[tuple[Floats, Floats]], depth: int, pattern: int, count: int) -> bool:
    low, high = np.zeros(count), np.ones(count)
    for i in range(depth):
        low[i] = high[i] = pattern >> i & 1
    for weights, thresholds in layers:
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        smallest, largest = positive @ low + negative @ high, positive @ high + negative @ low
        low, high = (smallest >= thresholds).astype(np.float64), (largest >= thresholds).astype(np.float64)
    return bool(np.all(high > 0))


def _any_holds(layers: list[tuple[Floats, Floats]], fixed: Floats, tails: Floats) -> bool:
    for begin in range(0, len(tails), 4096):
        rows = tails[begin : begin + 4096]
        before = np.hstack([np.broadcast_to(fixed, (len(rows), len(fixed))), rows])
        for weights, thresholds in layers:
            before = (before @ weights.T >= thresholds).astype(np.float64)
        if np.any(before.all(axis=1)):
            return True
    return False
