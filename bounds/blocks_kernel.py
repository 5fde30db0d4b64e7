"""The compiled loops of sparse backward passes: coefficients [neurons, columns], one neuron after the other.

``live`` marks the neurons that have coefficients at all; those of the others are zero and never read, so that what a
receptive field leaves out and what an inactive neuron stops costs nothing.  Sums may be reassociated and contracted:
the error bounds of these passes hold for any order of summation.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


@njit(**_OPTIONS)
def multiply(rows, row_start, columns, column_start, values, value_start, x, live, wanted, y, live_y):
    """y = M x in the rows of M that are wanted; live_y says which of them have anything."""
    count = x.shape[1]
    most = 0
    for b in range(len(row_start) - 1):
        most = max(most, column_start[b + 1] - column_start[b])
    kept = np.empty(most, dtype=np.int64)
    chosen = np.empty(len(rows), dtype=np.int64)
    live_y[:] = False
    for b in range(len(row_start) - 1):
        first, width = column_start[b], column_start[b + 1] - column_start[b]
        n = 0
        for q in range(width):
            if live[columns[first + q]]:
                kept[n] = q
                n += 1
        if n == 0:
            continue
        m = 0
        for s in range(row_start[b], row_start[b + 1]):
            if wanted[rows[s]]:
                chosen[m] = s
                live_y[rows[s]] = True
                m += 1
        s = 0
        while s + 4 <= m:
            _four_rows(
                rows, columns, values, value_start[b], row_start[b], first, width, chosen[s : s + 4], kept, n, x, y
            )
            s += 4
        while s < m:
            out = y[rows[chosen[s]]]
            base = value_start[b] + (chosen[s] - row_start[b]) * width
            for r in range(count):
                out[r] = 0.0
            for j in range(n):
                w = values[base + kept[j]]
                v = x[columns[first + kept[j]]]
                for r in range(count):
                    out[r] += w * v[r]
            s += 1


@njit(**_OPTIONS)
def _four_rows(rows, columns, values, base, top, first, width, chosen, kept, n, x, y):
    """Four rows of one block, four columns at a time: sixteen products for four loads."""
    count = x.shape[1]
    a, b, c, d = y[rows[chosen[0]]], y[rows[chosen[1]]], y[rows[chosen[2]]], y[rows[chosen[3]]]
    for r in range(count):
        a[r] = 0.0
        b[r] = 0.0
        c[r] = 0.0
        d[r] = 0.0
    pa = base + (chosen[0] - top) * width
    pb = base + (chosen[1] - top) * width
    pc = base + (chosen[2] - top) * width
    pd = base + (chosen[3] - top) * width
    j = 0
    while j + 4 <= n:
        k0, k1, k2, k3 = kept[j], kept[j + 1], kept[j + 2], kept[j + 3]
        x0, x1, x2, x3 = x[columns[first + k0]], x[columns[first + k1]], x[columns[first + k2]], x[columns[first + k3]]
        a0, a1, a2, a3 = values[pa + k0], values[pa + k1], values[pa + k2], values[pa + k3]
        b0, b1, b2, b3 = values[pb + k0], values[pb + k1], values[pb + k2], values[pb + k3]
        c0, c1, c2, c3 = values[pc + k0], values[pc + k1], values[pc + k2], values[pc + k3]
        d0, d1, d2, d3 = values[pd + k0], values[pd + k1], values[pd + k2], values[pd + k3]
        for r in range(count):
            v0, v1, v2, v3 = x0[r], x1[r], x2[r], x3[r]
            a[r] += a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
            b[r] += b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3
            c[r] += c0 * v0 + c1 * v1 + c2 * v2 + c3 * v3
            d[r] += d0 * v0 + d1 * v1 + d2 * v2 + d3 * v3
        j += 4
    while j < n:
        k0 = kept[j]
        x0 = x[columns[first + k0]]
        a0, b0, c0, d0 = values[pa + k0], values[pb + k0], values[pc + k0], values[pd + k0]
        for r in range(count):
            v0 = x0[r]
            a[r] += a0 * v0
            b[r] += b0 * v0
            c[r] += c0 * v0
            d[r] += d0 * v0
        j += 1


@njit(**_OPTIONS)
def replace_relus(x, live, slot, lower_slope, upper_slope, intercept, multiplier, size, rho, constants, error):
    """Coefficients on values of ReLUs become those on their inputs, in place, by the lines that bound from below.

    slot: where a neuron's lines stand, one per column; -1 for the identity.
    """
    count = x.shape[1]
    for j in range(len(live)):
        v = slot[j]
        if v < 0:
            if live[j]:
                row, unit = x[j], rho[j]
                for r in range(count):
                    error[r] += abs(row[r]) * unit
            continue
        row = x[j]
        if not live[j]:
            live[j] = True
            for r in range(count):
                row[r] = 0.0
        low, high, shift, weight, unit, rounding = (
            lower_slope[v],
            upper_slope[v],
            intercept[v],
            multiplier[v],
            rho[j],
            2.0**-51 * size[j],
        )
        for r in range(count):
            value = row[r]
            negative = min(value, 0.0)
            constants[r] += negative * shift[r]
            part = max(value, 0.0) * low[r] + negative * high[r]
            error[r] += abs(value) * unit + rounding * (abs(part) + abs(weight[r]))
            row[r] = part - weight[r]


@njit(**_OPTIONS)
def account(x, live, offset, rho, constants, error):
    """What a node adds to the constants and to the error."""
    count = x.shape[1]
    for j in range(len(live)):
        if live[j]:
            row = x[j]
            shift, size = offset[j], rho[j]
            for r in range(count):
                constants[r] += row[r] * shift
                error[r] += abs(row[r]) * size


@njit(**_OPTIONS)
def add(x, live, part, live_part, size, error):
    """x += part, with the rounding of these sums: size bounds the value of each neuron."""
    count = x.shape[1]
    for j in range(len(live)):
        if not live_part[j]:
            continue
        row, more = x[j], part[j]
        if not live[j]:
            live[j] = True
            for r in range(count):
                row[r] = more[r]
            continue
        unit = 2.0**-51 * size[j]
        for r in range(count):
            error[r] += unit * (abs(row[r]) + abs(more[r]))
            row[r] += more[r]


@njit(**_OPTIONS)
def least_over_box(x, live, lower, upper, constants):
    """constants plus the least values of the columns over the box."""
    count = x.shape[1]
    for j in range(len(live)):
        if live[j]:
            row = x[j]
            low, high = lower[j], upper[j]
            for r in range(count):
                v = row[r]
                constants[r] += max(v, 0.0) * low + min(v, 0.0) * high


@njit(**_OPTIONS)
def transpose(x, live, out):
    """out[r, j] = x[j, r] where j is live; eight neurons at a time, so that lines of memory are written whole."""
    for first in range(0, len(live), 8):
        last = min(first + 8, len(live))
        for r in range(x.shape[1]):
            for j in range(first, last):
                if live[j]:
                    out[r, j] = x[j, r]
