"""The compiled loops of ``halfspaces``: multipliers by coordinate ascent, one row of one region after the other."""

from __future__ import annotations

import numpy as np
from numba import njit

ROUNDS = 2
"""Passes over the halfspaces; a third gains nothing that can be measured."""
EXPANSIONS, INTERPOLATIONS = 12, 12
PRECISION = np.float32(0.2)
"""Relative width of the bracket at which a multiplier is good enough."""
NEAREST = np.float32(0.1)
"""A point tried lies at least this share of the bracket away from its ends."""

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


@njit(**_OPTIONS)
def _slope(c, a, moves, beta, offset):
    """Slope of the dual function at beta: what one unit of this multiplier still gains."""
    total = np.float32(0.0)
    for i in range(len(c)):
        total += moves[i] if c[i] > beta * a[i] else -moves[i]
    return total - offset


@njit(**_OPTIONS)
def _best(c, a, moves, radius, reach, offset):
    """The multiplier of one halfspace where the dual function's slope changes sign, from below; 0 where it never rises.

    moves: a times the box's radius; reach: the sum of its absolute values.
    """
    zero = np.float32(0.0)
    rising = _slope(c, a, moves, zero, offset)
    if rising <= 0:
        return zero
    size = np.float32(0.0)
    for i in range(len(c)):
        size += abs(c[i]) * radius[i]
    low, high = zero, size / reach
    falling = _slope(c, a, moves, high, offset)
    for _ in range(EXPANSIONS):
        if falling <= 0:
            break
        low, high, rising = high, np.float32(4.0) * high, falling
        falling = _slope(c, a, moves, high, offset)
    for _ in range(INTERPOLATIONS):
        if high - low < PRECISION * high:
            break
        share = min(max(rising / (rising - falling), NEAREST), np.float32(1.0) - NEAREST)
        middle = low + share * (high - low)
        slope = _slope(c, a, moves, middle, offset)
        if slope > 0:
            low, rising = middle, slope
        else:
            high, falling = middle, slope
    return low


@njit(**_OPTIONS)
def minima(C, d, error, plain, H, h, slack, counts, lower, upper, relative, found, used):
    n, most = len(lower), H.shape[1]
    radius, largest = np.empty(n, np.float32), np.empty(n)
    for i in range(n):
        radius[i] = 0.5 * (upper[i] - lower[i])
        largest[i] = max(abs(lower[i]), abs(upper[i]))
    c, betas = np.empty(n, np.float32), np.empty(most)
    exact, absolute = np.empty(n), np.empty(n)
    a, moves = np.empty((most, n), np.float32), np.empty((most, n), np.float32)
    offsets, reaches = np.empty(most, np.float32), np.empty(most, np.float32)
    for b in range(C.shape[0]):
        count = counts[b]
        for k in range(count):
            at_centre, reach = h[b, k], 1e-30
            for i in range(n):
                at_centre += H[b, k, i] * 0.5 * (lower[i] + upper[i])
                a[k, i] = H[b, k, i]
                moves[k, i] = a[k, i] * radius[i]
                reach += abs(moves[k, i])
            offsets[k], reaches[k] = at_centre, reach
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
                    beta = _best(c, a[k], moves[k], radius, reaches[k], offsets[k])
                    if beta > 0:
                        risen = True
                        betas[k] += beta
                        for i in range(n):
                            c[i] -= beta * a[k, i]
                moved = moved or risen
                if not risen:
                    break
            if moved:
                found[b, r] = _value(C[b, r], d[b, r], error[b, r], H[b], h[b], slack[b], betas, count, lower, upper,
                                     largest, relative, exact, absolute)  # fmt: skip
                if used.shape[0] > 0:
                    for k in range(count):
                        used[b, r, k] = betas[k]


@njit(**_OPTIONS)
def _value(C, d, error, H, h, slack, betas, count, lower, upper, largest, relative, c, absolute):
    """The dual function at ``betas``, every rounding error subtracted."""
    total, size, constant, room = 0.0, 0.0, d, abs(d)
    n = len(C)
    for i in range(n):
        c[i], absolute[i] = C[i], abs(C[i])
    for k in range(count):
        beta = betas[k]
        if beta > 0:
            constant -= beta * (h[k] + slack[k])
            room += beta * (abs(h[k]) + slack[k])
            for i in range(n):
                c[i] -= beta * H[k, i]
                absolute[i] += beta * abs(H[k, i])
    for i in range(n):
        total += c[i] * lower[i] if c[i] > 0 else c[i] * upper[i]
        size += absolute[i] * largest[i]
    return total + constant - 1.001 * error - relative * (size + room) - 1e-290
