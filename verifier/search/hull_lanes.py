"""The compiled ascent of ``hull_ascent``: the multipliers of several regions at once, one per lane of a vector register.

All arrays are float32 with the lanes last, so that every entry of a sparse row is one vector operation and one look at
its column.  Nothing here needs care with rounding: what an ascent ends with is proved in float64 (``hull_proof``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from verifier.search.compiled import OPTIONS
from verifier.search.lanes import DECAY, LANES, add_scaled, ascent_step, multiply_add

ONE, NONE = np.float32(1), np.float32(0)
MOST_BETA = np.float32(1e6)
ROW = np.uint64(0)
"""Of arrays of one row."""


class Lanes(NamedTuple):
    """Regions under ascent, one per lane; float32 arrays but for signs (m, LANES) int8.

    cost: (n + m, LANES).  offset, scale, goal: (LANES,).  alpha, beta, extra: (m, LANES).  share: (terms, LANES).
    """

    signs: np.ndarray
    cost: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    goal: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    extra: np.ndarray
    share: np.ndarray


class _Pass(NamedTuple):
    """What a backward pass leaves for the forward pass: (columns, LANES) or (m, LANES) each.

    row: the coefficients that each column had when its turn came.  pushed: what goes on to a neuron's input, or to its
    plane where curved is 1.  lines, lifts: that stand for a neuron.  steep: 1 where the plane touches the active side.
    """

    row: np.ndarray
    pushed: np.ndarray
    curved: np.ndarray
    lines: np.ndarray
    lifts: np.ndarray
    steep: np.ndarray


@njit(**OPTIONS)
def _one():
    return np.zeros((1, LANES), np.float32)


@njit(**OPTIONS)
def _backward(layout, lanes, left, value):
    """Push the cost from the neurons to the inputs; ``value`` gets what the constants come to."""
    n, m = layout.n, len(layout.constant)
    row, share = left.row, lanes.share
    part, reach, rest = _one(), _one(), _one()
    straight, bent = _one(), _one()
    row[:] = lanes.cost
    value[:] = lanes.offset
    for j in range(m - 1, -1, -1):
        hull, own, c0 = layout.hull[j], layout.own[j], layout.constant[j]
        curves, moves = False, False
        for b in range(LANES):
            a, sign = row[n + j, b], lanes.signs[j, b]
            curved, line, lift = NONE, NONE, NONE
            if sign < 0:
                pushed = lanes.beta[j, b] * lanes.scale[b]
            elif sign > 0:
                line = ONE
                pushed = a - lanes.beta[j, b] * lanes.scale[b]
            elif a >= NONE:
                line = lanes.alpha[j, b]
                if own >= 0 and a > NONE:
                    # The best line at the minimiser of a function of one input.
                    line = min(ONE, max(NONE, -row[own, b] / (a * layout.weight[j])))
                pushed = a * line
            elif hull:
                curved = ONE
                curves = True
                pushed = a
            else:
                line, lift = layout.slope[j], layout.lift[j]
                pushed = a * line
                value[b] += a * lift
            if pushed != NONE:
                moves = True
            straight[0, b], bent[0, b] = pushed * (ONE - curved), pushed * curved
            left.pushed[j, b], left.curved[j, b], left.lines[j, b], left.lifts[j, b] = pushed, curved, line, lift
        if not moves:
            continue
        first, last = layout.terms[j], layout.terms[j + 1]
        if curves:
            reach[:], rest[:] = NONE, NONE
            for t in range(first, last):
                add_scaled(reach, ROW, share, t, layout.width[t])
                add_scaled(rest, ROW, share, t, layout.least[t])
                multiply_add(part, ROW, bent, ROW, share, t, straight, ROW)
                for e in range(layout.entries[t], layout.entries[t + 1]):
                    add_scaled(row, layout.columns[e], part, ROW, layout.weights[e])
            most = layout.most[j]
            for b in range(LANES):
                above = most - reach[0, b]
                left.steep[j, b] = ONE if above > NONE else NONE
                if left.curved[j, b] > NONE:
                    left.lifts[j, b] = max(NONE, above) - rest[0, b] + lanes.extra[j, b]
                    value[b] += bent[0, b] * left.lifts[j, b]
                else:
                    value[b] += straight[0, b] * c0
        else:
            for b in range(LANES):
                value[b] += straight[0, b] * c0
            for e in range(layout.entries[first], layout.entries[last]):
                add_scaled(row, layout.columns[e], straight, ROW, layout.weights[e])


@njit(**OPTIONS)
def _minimisers(layout, left, point, value):
    """The inputs of least value over the box, and that value."""
    for i in range(layout.n):
        lower, upper = layout.lower[i], layout.upper[i]
        for b in range(LANES):
            c = left.row[i, b]
            x = lower if c > NONE else upper
            point[i, b] = x
            value[b] += c * x


@njit(**OPTIONS)
def _kinks(layout, lanes, left, point):
    """Where a line has been fitted to a neuron of one input the minimiser is at its kink."""
    for j in range(len(layout.constant)):
        own = layout.own[j]
        if own >= 0:
            kink = min(layout.upper[own], max(layout.lower[own], -layout.constant[j] / layout.weight[j]))
            for b in range(LANES):
                line = left.lines[j, b]
                if lanes.signs[j, b] == 0 and left.row[layout.n + j, b] > NONE and NONE < line < ONE:
                    point[own, b] = kink


@njit(**OPTIONS)
def _forward(layout, lanes, left, squares, point, pre, step, correction):
    """From the minimising inputs in ``point`` to the columns' values on the lines in use, and a step of all multipliers.

    squares: the means of alpha's, beta's and share's gradients.  correction: of their bias.
    """
    n, m = layout.n, len(layout.constant)
    part, plane, z, slope = _one(), _one(), _one(), _one()
    bent, steep, nothing = _one(), _one(), _one()
    to_alpha, to_beta = _one(), _one()
    for j in range(m):
        first, last = layout.terms[j], layout.terms[j + 1]
        curves = False
        for b in range(LANES):
            z[0, b], plane[0, b] = layout.constant[j], NONE
            bent[0, b] = left.pushed[j, b] * left.curved[j, b]
            steep[0, b] = bent[0, b] * left.steep[j, b]
            if left.curved[j, b] > NONE:
                curves = True
        if curves:
            for t in range(first, last):
                part[:] = NONE
                for e in range(layout.entries[t], layout.entries[t + 1]):
                    add_scaled(part, ROW, point, layout.columns[e], layout.weights[e])
                add_scaled(z, ROW, part, ROW, ONE)
                multiply_add(plane, ROW, lanes.share, t, part, ROW, plane, ROW)
                multiply_add(slope, ROW, bent, ROW, part, ROW, nothing, ROW)
                add_scaled(slope, ROW, bent, ROW, -layout.least[t])
                add_scaled(slope, ROW, steep, ROW, -layout.width[t])
                ascent_step(lanes.share, t, slope, ROW, squares[2], step, correction, ONE)
        else:
            for e in range(layout.entries[first], layout.entries[last]):
                add_scaled(z, ROW, point, layout.columns[e], layout.weights[e])
        for b in range(LANES):
            pre[j, b] = z[0, b]
            sign, a = lanes.signs[j, b], left.row[n + j, b]
            to_alpha[0, b], to_beta[0, b] = NONE, NONE
            if left.curved[j, b] > NONE:
                point[n + j, b] = plane[0, b] + left.lifts[j, b]
            else:
                point[n + j, b] = left.lines[j, b] * z[0, b] + left.lifts[j, b]
                if sign != 0:
                    to_beta[0, b] = (z[0, b] if sign < 0 else -z[0, b]) * lanes.scale[b]
                elif a >= NONE:
                    to_alpha[0, b] = a * z[0, b]
        ascent_step(lanes.alpha, j, to_alpha, ROW, squares[0], step, correction, ONE)
        ascent_step(lanes.beta, j, to_beta, ROW, squares[1], step, correction, MOST_BETA)


@njit(**OPTIONS)
def ascend(layout, lanes, iterations, step, last_step):
    """Raise all bounds; the multipliers are replaced.

    A lane whose bound exceeds its goal stays as it is.  Returns the bounds (LANES,), the means over the second half of
    the iterations of the columns' values (n + m, LANES) and of the neurons' inputs (m, LANES), and the coefficients
    that the neurons had in the last pass (m, LANES).
    """
    n, m = layout.n, len(layout.constant)
    shape, terms = (m, LANES), lanes.share.shape
    left = _Pass(
        np.zeros((n + m, LANES), np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32),
        np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32),
    )  # fmt: skip
    squares = [np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(terms, np.float32)]
    value, length = np.zeros(LANES, np.float32), np.zeros((1, LANES), np.float32)
    point, pre = np.zeros((n + m, LANES), np.float32), np.zeros(shape, np.float32)
    columns, inputs, counted = np.zeros((n + m, LANES), np.float32), np.zeros(shape, np.float32), 0
    for turn in range(iterations + 1):
        _backward(layout, lanes, left, value)
        _minimisers(layout, left, point, value)
        going = False
        pace = np.float32(step * (last_step / step) ** (turn / max(1, iterations - 1)))
        for b in range(LANES):
            length[0, b] = NONE
            if value[b] <= lanes.goal[b]:
                length[0, b] = pace
                going = True
        if turn == iterations or not going:
            break
        _kinks(layout, lanes, left, point)
        correction = np.float32(1 / (1 - DECAY ** (turn + 1)))
        _forward(layout, lanes, left, squares, point, pre, length, correction)
        if 2 * turn >= iterations:
            columns += point
            inputs += pre
            counted += 1
    if counted:
        columns /= np.float32(counted)
        inputs /= np.float32(counted)
    return value, columns, inputs, left.row[n:]
