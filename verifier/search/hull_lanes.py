"""The compiled ascent of ``hull_ascent``: the multipliers of several regions at once, one region per lane.

All arrays are float32 with the lanes last (``lanes``), so that every entry of a sparse row is one vector operation and
one look at its column.  Nothing here needs care with rounding: what an ascent ends with is proved in float64
(``hull_proof``).

Every multiplier moves by its gradient over the root of the gradient's mean square, as in Adam (Kingma and Ba, ICLR
2015), whose other mean, of the gradients themselves, does no good here: after 50 steps from the multipliers of the
region before, bounds on mnist_wk17a fall short of the best ones by 0.034 without it, by 0.050 with its usual weight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from verifier.search import lanes as lanes_module
from verifier.search.compiled import OPTIONS, stamp
from verifier.search.lanes import LANES, any_below, larger, load, root, smaller, spread, store, where_negative

ONE, NONE = np.float32(1), np.float32(0)
DECAY, REST, TINY = np.float32(0.99), np.float32(1 - 0.99), np.float32(1e-12)
SMALLEST = np.float32(1e-30)
"""Coefficients below this are divided by as if they were this."""
MOST_BETA = np.float32(1e6)
INNER = {**OPTIONS, "cache": False}
"""What only the ascent calls is compiled into it: a cache of its own would not notice a change of ``lanes``."""


class Lanes(NamedTuple):
    """Regions under ascent, one per lane; float32 arrays but for signs (m, LANES) int8.

    split: (m,) bool, whether some region has a sign for the neuron.  cost: (n + m, LANES).  offset, scale, goal:
    (LANES,).  alpha, beta, extra: (m, LANES).  share: (terms, LANES).
    """

    signs: np.ndarray
    split: np.ndarray
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

    row: the coefficients that each column had when its turn came.  straight: what goes on to a neuron's input, bent:
    what goes on to its plane, which is negative or nothing.  lines, slants, lifts: line z + slant x + lift stands for a
    neuron, x being the one input it reads; the lift is also its plane's.  steep: 1 where the plane touches the active
    side.
    """

    row: np.ndarray
    straight: np.ndarray
    bent: np.ndarray
    lines: np.ndarray
    slants: np.ndarray
    lifts: np.ndarray
    steep: np.ndarray


@njit(**INNER)
def _choose(layout, lanes, left, j):
    """The line or the plane that stands for neuron j, by its coefficients."""
    a, zero = load(left.row, layout.n + j), spread(NONE)
    above, below = larger(a, zero), smaller(a, zero)
    line = load(lanes.alpha, j)
    own = layout.own[j]
    if layout.hull[j]:
        store(left.bent, j, below)
        store(left.straight, j, above * line)
        store(left.lines, j, line)
        store(left.lifts, j, zero)
        return
    over, lift = spread(layout.slope[j]), spread(layout.lift[j])
    if own >= 0:
        # The best line and the best plane at the minimiser of a function of one input.
        q = load(left.row, own)
        size = larger(a, spread(SMALLEST)) * spread(layout.weight[j])
        line = smaller(spread(ONE), larger(zero, (zero - q) / size))
        end = q * spread(layout.span[j]) + a * spread(layout.height[j])
        over = where_negative(end, spread(layout.lines[0, j]), spread(layout.lines[1, j]))
        lift = where_negative(end, spread(layout.lifts[0, j]), spread(layout.lifts[1, j]))
        slant = where_negative(end, spread(layout.slants[0, j]), spread(layout.slants[1, j]))
        store(left.slants, j, where_negative(a, slant, zero))
    store(left.bent, j, zero)
    store(left.straight, j, above * line + below * over)
    store(left.lines, j, where_negative(a, over, line))
    store(left.lifts, j, where_negative(a, lift, zero))


@njit(**INNER)
def _fix(layout, lanes, left, j):
    """The same in the lanes that have a sign for neuron j."""
    n = layout.n
    for b in range(LANES):
        sign, a = lanes.signs[j, b], left.row[n + j, b]
        if sign == 0:
            continue
        multiplier = lanes.beta[j, b] * lanes.scale[b]
        left.bent[j, b], left.lifts[j, b], left.slants[j, b] = NONE, NONE, NONE
        left.lines[j, b] = ONE if sign > 0 else NONE
        left.straight[j, b] = a - multiplier if sign > 0 else multiplier


@njit(**INNER)
def _backward(layout, lanes, left, value):
    """Push the cost from the neurons to the inputs; ``value``, (1, LANES), gets what the constants come to."""
    row, share = left.row, lanes.share
    zero = spread(NONE)
    row[:] = lanes.cost
    value[0] = lanes.offset
    for j in range(len(layout.constant) - 1, -1, -1):
        _choose(layout, lanes, left, j)
        if lanes.split[j]:
            _fix(layout, lanes, left, j)
        straight, bent, a = load(left.straight, j), load(left.bent, j), load(row, layout.n + j)
        constants = load(value, 0) + straight * spread(layout.constant[j]) + a * load(left.lifts, j)
        own = layout.own[j]
        if own >= 0:
            store(row, own, load(row, own) + a * load(left.slants, j))
        first, last = layout.terms[j], layout.terms[j + 1]
        if any_below(bent, zero):
            reach, rest = zero, zero
            for t in range(first, last):
                s = load(share, t)
                reach = reach + s * spread(layout.width[t])
                rest = rest + s * spread(layout.least[t])
                part = bent * s + straight
                for e in range(layout.entries[t], layout.entries[t + 1]):
                    i = layout.columns[e]
                    store(row, i, load(row, i) + part * spread(layout.weights[e]))
            above = spread(layout.most[j]) - reach
            lift = larger(above, zero) - rest + load(lanes.extra, j)
            store(left.steep, j, where_negative(zero - above, spread(ONE), zero))
            store(left.lifts, j, where_negative(bent, lift, load(left.lifts, j)))
            store(value, 0, constants + bent * lift)
        else:
            store(value, 0, constants)
            if any_below(straight, zero) or any_below(zero, straight):
                for e in range(layout.entries[first], layout.entries[last]):
                    i = layout.columns[e]
                    store(row, i, load(row, i) + straight * spread(layout.weights[e]))


@njit(**INNER)
def _minimisers(layout, left, point, value):
    """The inputs of least value over the box, and that value."""
    total = load(value, 0)
    for i in range(layout.n):
        c, lower, upper = load(left.row, i), spread(layout.lower[i]), spread(layout.upper[i])
        x = where_negative(c, upper, lower)
        store(point, i, x)
        total = total + c * x
    store(value, 0, total)


@njit(**INNER)
def _kinks(layout, lanes, left, point):
    """Where a line has been fitted to a neuron of one input the minimiser is at its kink."""
    for j in range(len(layout.constant)):
        own = layout.own[j]
        if own >= 0:
            kink = min(layout.upper[own], max(layout.lower[own], -layout.constant[j] / layout.weight[j]))
            for b in range(LANES):
                line = left.lines[j, b]
                if left.row[layout.n + j, b] > NONE and NONE < line < ONE and lanes.signs[j, b] == 0:
                    point[own, b] = kink


@njit(**INNER)
def _climb(values, j, gradient, squares, step, correction, most):
    """One step of values[j], projected into [0, most]."""
    mean = load(squares, j) * spread(DECAY) + gradient * gradient * spread(REST)
    store(squares, j, mean)
    size = root(mean * spread(correction)) + spread(TINY)
    moved = load(values, j) + gradient * step / size
    store(values, j, smaller(spread(most), larger(spread(NONE), moved)))


@njit(**INNER)
def _forward(layout, lanes, left, squares, point, pre, pace, correction):
    """From the minimising inputs in ``point`` to the columns' values on the lines in use; a step of all multipliers.

    squares: the means of alpha's, beta's and share's gradients.  pace: (1, LANES), of the step, 0 for a lane that
    stays.  correction: of the means' bias.
    """
    n, step, zero = layout.n, load(pace, 0), spread(NONE)
    gradient = np.empty((1, LANES), np.float32)
    for j in range(len(layout.constant)):
        first, last = layout.terms[j], layout.terms[j + 1]
        z, plane, bent = spread(layout.constant[j]), zero, load(left.bent, j)
        if any_below(bent, zero):
            steep = load(left.steep, j)
            for t in range(first, last):
                part = zero
                for e in range(layout.entries[t], layout.entries[t + 1]):
                    part = part + load(point, layout.columns[e]) * spread(layout.weights[e])
                z = z + part
                plane = plane + load(lanes.share, t) * part
                slope = bent * (part - spread(layout.least[t]) - spread(layout.width[t]) * steep)
                _climb(lanes.share, t, slope, squares[2], step, correction, ONE)
        else:
            for e in range(layout.entries[first], layout.entries[last]):
                z = z + load(point, layout.columns[e]) * spread(layout.weights[e])
        store(pre, j, z)
        value = where_negative(bent, plane, load(left.lines, j) * z) + load(left.lifts, j)
        if layout.own[j] >= 0:
            value = value + load(left.slants, j) * load(point, layout.own[j])
        store(point, n + j, value)
        a = load(left.row, n + j)
        if lanes.split[j]:
            for b in range(LANES):
                gradient[0, b] = -lanes.signs[j, b] * pre[j, b] * lanes.scale[b]
            _climb(lanes.beta, j, load(gradient, 0), squares[1], step, correction, MOST_BETA)
            for b in range(LANES):
                free = lanes.signs[j, b] == 0
                gradient[0, b] = max(NONE, left.row[n + j, b]) * pre[j, b] if free else NONE
            _climb(lanes.alpha, j, load(gradient, 0), squares[0], step, correction, ONE)
        elif layout.own[j] < 0:
            _climb(lanes.alpha, j, larger(a, zero) * z, squares[0], step, correction, ONE)


def _compiled(version: int):
    @njit(**OPTIONS)
    def ascend(layout, lanes, iterations, step, last_step):
        """Raise all bounds; the multipliers are replaced.

        A lane whose bound exceeds its goal stays as it is.  Returns the bounds (LANES,), the means over the second half
        of the iterations of the columns' values (n + m, LANES) and of the neurons' inputs (m, LANES), and the
        coefficients that the neurons had in the last pass (m, LANES).
        """
        n, m = layout.n, len(layout.constant)
        shape, terms = (m, LANES), lanes.share.shape
        left = _Pass(
            np.zeros((n + m, LANES), np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32),
            np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )  # fmt: skip
        squares = [np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(terms, np.float32)]
        value, pace = np.zeros((1, LANES), np.float32), np.zeros((1, LANES), np.float32)
        point, pre = np.zeros((n + m, LANES), np.float32), np.zeros(shape, np.float32)
        columns, inputs, counted = np.zeros((n + m, LANES), np.float32), np.zeros(shape, np.float32), min(0, version)
        for turn in range(iterations + 1):
            _backward(layout, lanes, left, value)
            _minimisers(layout, left, point, value)
            going = False
            length = np.float32(step * (last_step / step) ** (turn / max(1, iterations - 1)))
            for b in range(LANES):
                pace[0, b] = NONE
                if value[0, b] <= lanes.goal[b]:
                    pace[0, b] = length
                    going = True
            if turn == iterations or not going:
                break
            _kinks(layout, lanes, left, point)
            correction = np.float32(1 / (1 - 0.99 ** (turn + 1)))
            _forward(layout, lanes, left, squares, point, pre, pace, correction)
            if 2 * turn >= iterations:
                columns += point
                inputs += pre
                counted += 1
        if counted:
            columns /= np.float32(counted)
            inputs /= np.float32(counted)
        return value[0], columns, inputs, left.row[n:]

    return ascend


ascend = _compiled(stamp((lanes_module,)))
