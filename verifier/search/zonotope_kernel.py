"""Compiled bounds of one box of input splitting: a sparse zonotope forward, one linear bound back.

Works on a ``triangular.System``.

- Zonotope with one error column per unstable ReLU (DeepZ, Singh et al. 2018, section 4): centre c and generators G; a
  ReLU over [l, u] becomes lambda z + mu +- mu with lambda = u / (u - l), mu = -lambda l / 2.
- One backward pass per row over the zonotope's pre-activation bounds (CROWN, Zhang et al. 2018, adaptive lower
  slopes).  The splitting score of an input: for every unstable neuron with a negative coefficient the loss
  |coefficient| t, shared out by the part of the neuron's radius that comes from each input (in the spirit of DEEPSPLIT,
  Henriksen and Lomuscio, 2021), plus a share of |A_i| radius_i.

Rigour: pre-activation bounds are widened by ``system.widen``; a row's bound may be too high by ``system.row_error``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from verifier.search.compiled import OPTIONS

SLOPE_SHARE = 0.5
"""Weight of |A_i| radius_i in the score; between 0.2 and 1 all is well, 0 loses instances (ENGINES.md)."""


class Scratch(NamedTuple):
    """Room for the work on one box, for N inputs and neurons: see ``new_scratch``."""

    zonotope: Any
    active: Any
    ends: Any
    half: Any
    radius: Any
    low: Any
    high: Any
    share: Any
    coefficients: Any
    slope: Any
    score: Any


@njit(**OPTIONS)
def new_scratch(D, n, layers):
    return Scratch(
        np.empty((D + n + 1, n)), np.empty(n, np.int64), np.zeros(layers, np.int64), np.empty(n), np.empty(n),
        np.empty(n), np.empty(n), np.empty((n, D)), np.empty(D + n), np.empty(D), np.empty(D),
    )  # fmt: skip


@njit(**OPTIONS)
def _hand_on(zonotope, columns, active, begin, end, low, half, transposed, D, start, stop):
    """Active neurons begin .. end of the list add to the neurons start .. stop; returns the number of columns."""
    whole = begin + (end - begin) // 4 * 4
    # Four neurons at a time: a sum is loaded and stored a quarter as often.
    for a in range(begin, whole, 4):
        i0, i1, i2, i3 = active[a], active[a + 1], active[a + 2], active[a + 3]
        w0, w1, w2, w3 = transposed[D + i0], transposed[D + i1], transposed[D + i2], transposed[D + i3]
        for k in range(columns + 1):
            out = zonotope[k]
            g0, g1, g2, g3 = out[i0], out[i1], out[i2], out[i3]
            for j in range(start, stop):
                out[j] += g0 * w0[j] + g1 * w1[j] + g2 * w2[j] + g3 * w3[j]
    for a in range(whole, end):
        w = transposed[D + active[a]]
        for k in range(columns + 1):
            out = zonotope[k]
            g0 = out[active[a]]
            for j in range(start, stop):
                out[j] += g0 * w[j]
    # Every unstable neuron gets a column of its own.
    for a in range(begin, end):
        if low[active[a]] < 0.0:
            columns += 1
            w = transposed[D + active[a]]
            g0 = half[active[a]]
            out = zonotope[columns]
            for j in range(start, stop):
                out[j] = g0 * w[j]
            for j in range(stop, w.shape[0]):
                out[j] = 0.0
    return columns


@njit(**OPTIONS)
def propagate(lo, hi, system, scratch):
    """Zonotope over the box [lo, hi] (D,) through all neurons; returns how many of them are unstable.

    Fills of scratch: low, high (n,), rigorous pre-activation bounds; active, the neurons not inactive, those of
    layer h ending at ends[h]; share (n, D), the part of an unstable neuron's radius that comes from each input.
    """
    D = lo.shape[0]
    n = system.constants.shape[0]
    zonotope, low, high, radius, half = scratch.zonotope, scratch.low, scratch.high, scratch.radius, scratch.half
    columns = D
    centre = zonotope[0]
    for j in range(n):
        centre[j] = system.constants[j]
    for i in range(D):
        w = system.transposed[i]
        middle, reach = 0.5 * (lo[i] + hi[i]), 0.5 * (hi[i] - lo[i])
        out = zonotope[i + 1]
        for j in range(n):
            centre[j] += middle * w[j]
            out[j] = reach * w[j]
    count = 0
    for h in range(system.starts.shape[0] - 1):
        start, stop = system.starts[h], system.starts[h + 1]
        for j in range(start, stop):
            radius[j] = 0.0
        for k in range(1, columns + 1):
            out = zonotope[k]
            for j in range(start, stop):
                radius[j] += abs(out[j])
        begin = count
        for j in range(start, stop):
            lower = centre[j] - radius[j] - system.widen[j]
            upper = centre[j] + radius[j] + system.widen[j]
            low[j] = lower
            high[j] = upper
            if upper <= 0.0:
                continue
            scratch.active[count] = j
            count += 1
            if lower < 0.0:
                slope = upper / (upper - lower)
                half[j] = -0.5 * slope * lower
                for k in range(D):
                    scratch.share[j, k] = abs(zonotope[k + 1, j]) / radius[j] if radius[j] > 0.0 else 0.0
                for k in range(columns + 1):
                    zonotope[k, j] *= slope
                centre[j] += half[j]
        scratch.ends[h] = count
        if system.reach[h] > stop:
            columns = _hand_on(
                zonotope, columns, scratch.active, begin, count, low, half, system.transposed, D, stop, system.reach[h]
            )
    unstable = 0
    for a in range(count):
        unstable += low[scratch.active[a]] < 0.0
    return unstable


@njit(**OPTIONS)
def row_bound(lo, hi, system, r, scratch):
    """Lower bound of row r over the box that ``propagate`` saw last, its rounding not yet accounted for.

    Fills of scratch: slope (D,), the coefficients of the linear bound, and score (D,), the splitting score.
    """
    D = lo.shape[0]
    A, score, low, high = scratch.coefficients, scratch.score, scratch.low, scratch.high
    A[: system.rows.shape[1]] = system.rows[r]
    score[:] = 0.0
    bound = system.row_constants[r]
    for h in range(system.starts.shape[0] - 2, -1, -1):
        begin = scratch.ends[h - 1] if h > 0 else 0
        for position in range(begin, scratch.ends[h]):
            j = scratch.active[position]
            a = A[D + j]
            if a == 0.0:
                continue
            lower, upper = low[j], high[j]
            if lower < 0.0:
                if a > 0.0:
                    if upper <= -lower:
                        continue
                else:
                    slope = upper / (upper - lower)
                    loss = a * slope * lower  # how far the upper line lies above, times |a|
                    bound -= loss
                    for i in range(D):
                        score[i] += loss * scratch.share[j, i]
                    a *= slope
            bound += a * system.constants[j]
            w = system.weights[j]
            for i in range(D):
                A[i] += a * w[i]
            for i in range(D + system.first[h], D + system.starts[h]):
                A[i] += a * w[i]
    for i in range(D):
        s = A[i]
        scratch.slope[i] = s
        bound += s * lo[i] if s > 0.0 else s * hi[i]
        score[i] += SLOPE_SHARE * abs(s) * 0.5 * (hi[i] - lo[i])
    return bound


@njit(**OPTIONS)
def satisfied(x, system, first_row, live, threshold, A):
    """The first live disjunct whose rows are all <= threshold at x (D,), or -1; A (D + n,) is workspace."""
    D = x.shape[0]
    n = system.constants.shape[0]
    for j in range(n):
        A[D + j] = system.constants[j]
    for i in range(D):
        A[i] = x[i]
        w = system.transposed[i]
        for j in range(n):
            A[D + j] += x[i] * w[j]
    for h in range(system.starts.shape[0] - 1):
        stop = system.starts[h + 1]
        for u in range(system.starts[h], stop):
            y = max(A[D + u], 0.0)
            A[D + u] = y
            if y > 0.0:
                w = system.transposed[D + u]
                for j in range(stop, system.reach[h]):
                    A[D + j] += y * w[j]
    for d in range(live.shape[0]):
        if not live[d]:
            continue
        holds = True
        for r in range(first_row[d], first_row[d + 1]):
            value = system.row_constants[r]
            for i in range(D + n):
                value += system.rows[r, i] * A[i]
            if value > threshold:
                holds = False
                break
        if holds:
            return d
    return -1
