"""The compiled loops of ``hull_ascent``: a backward pass over a program's columns, and the ascent of its multipliers.

Nothing here needs care with rounding: what the ascent ends with is evaluated again (``encodings.milp.hull_planes``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from verifier.search.compiled import OPTIONS

FIRST_DECAY, SECOND_DECAY, SMALL = 0.9, 0.999, 1e-12
"""Of Adam (Kingma and Ba, ICLR 2015)."""


class Layout(NamedTuple):
    """A program of n inputs and m neurons as flat arrays; neuron j has the column n + j.

    Neuron j reads the terms ``terms[j]`` to ``terms[j + 1]``, and term t the entries ``entries[t]`` to
    ``entries[t + 1]``: columns and their weights.  least, width: of each term.  most: (m,), the sum of all terms'
    greatest values and the constant.  slope, lift: (m,), of the triangle.  hull: (m,) bool, whether the upper plane has
    a slope per term.  own, weight: (m,), the input of a neuron that reads one only, else -1.
    """

    n: int
    terms: np.ndarray
    entries: np.ndarray
    columns: np.ndarray
    weights: np.ndarray
    least: np.ndarray
    width: np.ndarray
    constant: np.ndarray
    most: np.ndarray
    slope: np.ndarray
    lift: np.ndarray
    hull: np.ndarray
    own: np.ndarray
    weight: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@njit(**OPTIONS)
def plane_lift(layout, share, j):
    """The constant of neuron j's plane with these shares, as its terms' ranges have it."""
    lift, rest = layout.most[j], 0.0
    for t in range(layout.terms[j], layout.terms[j + 1]):
        lift -= share[t] * layout.width[t]
        rest += share[t] * layout.least[t]
    return max(0.0, lift) - rest


@njit(**OPTIONS)
def plane_lifts(layout, share, neurons):
    """The same of several neurons, (k,)."""
    found = np.empty(len(neurons))
    for k in range(len(neurons)):
        found[k] = plane_lift(layout, share, neurons[k])
    return found


@njit(**OPTIONS)
def backward(layout, signs, alpha, beta, share, extra, row, lines, lifts):
    """Push ``row``, (n + m,), from the neurons to the inputs; what the constants come to.

    extra: (m,), what the planes' constants have to be larger.  row is left with the coefficients that each column had
    when its turn came.  lines, lifts: (m,) out, the multiple of its input and what is added that stand for a neuron;
    lines is NaN where the plane has a slope per term.
    """
    n, value = layout.n, 0.0
    for j in range(len(layout.constant) - 1, -1, -1):
        a = row[n + j]
        first, last = layout.terms[j], layout.terms[j + 1]
        lifts[j] = 0.0
        if signs[j] < 0:
            lines[j] = 0.0
            pushed = beta[j]
        elif signs[j] > 0:
            lines[j] = 1.0
            pushed = a - beta[j]
        elif a >= 0:
            slope = alpha[j]
            if layout.own[j] >= 0 and a > 0:
                # The best line at the minimiser of a function of one input.
                slope = min(1.0, max(0.0, -row[layout.own[j]] / (a * layout.weight[j])))
            lines[j] = slope
            pushed = a * slope
        elif layout.hull[j]:
            lines[j] = np.nan
            lift = plane_lift(layout, share, j) + extra[j]
            lifts[j] = lift
            value += a * lift
            for t in range(first, last):
                part = a * share[t]
                if part != 0.0:
                    for e in range(layout.entries[t], layout.entries[t + 1]):
                        row[layout.columns[e]] += part * layout.weights[e]
            continue
        else:
            lines[j], lifts[j] = layout.slope[j], layout.lift[j]
            pushed = a * layout.slope[j]
            value += a * layout.lift[j]
        if pushed != 0.0:
            value += pushed * layout.constant[j]
            for e in range(layout.entries[first], layout.entries[last]):
                row[layout.columns[e]] += pushed * layout.weights[e]
    return value


@njit(**OPTIONS)
def box_least(layout, row, point):
    """The least value over the box, and where."""
    value = 0.0
    for i in range(layout.n):
        point[i] = layout.lower[i] if row[i] > 0 else layout.upper[i]
        value += row[i] * point[i]
    return value


@njit(**OPTIONS)
def forward(layout, signs, beta, share, row, lines, lifts, point, pre, to_alpha, to_beta, to_share):
    """From the minimising inputs in ``point`` to the columns' values on the lines in use, and the gradients."""
    n = layout.n
    for j in range(len(layout.constant)):
        a, own = row[n + j], layout.own[j]
        if signs[j] == 0 and own >= 0 and a > 0 and 0.0 < lines[j] < 1.0:
            kink = -layout.constant[j] / layout.weight[j]
            point[own] = min(layout.upper[own], max(layout.lower[own], kink))
    for j in range(len(layout.constant)):
        a, z, plane = row[n + j], layout.constant[j], lifts[j]
        curved = np.isnan(lines[j])
        steep = curved and lifts_positive(layout, share, j)
        for t in range(layout.terms[j], layout.terms[j + 1]):
            part = 0.0
            for e in range(layout.entries[t], layout.entries[t + 1]):
                part += layout.weights[e] * point[layout.columns[e]]
            z += part
            if curved:
                plane += share[t] * part
                to_share[t] = a * (part - layout.least[t] - (layout.width[t] if steep else 0.0))
            else:
                to_share[t] = 0.0
        pre[j] = z
        to_alpha[j], to_beta[j] = 0.0, 0.0
        if curved:
            point[n + j] = plane
        else:
            point[n + j] = lines[j] * z + lifts[j]
            if signs[j] != 0:
                to_beta[j] = z if signs[j] < 0 else -z
            elif a >= 0:
                to_alpha[j] = a * z


@njit(**OPTIONS)
def lifts_positive(layout, share, j):
    """Whether the plane of neuron j touches the active side."""
    lift = layout.most[j]
    for t in range(layout.terms[j], layout.terms[j + 1]):
        lift -= share[t] * layout.width[t]
    return lift > 0


@njit(**OPTIONS)
def _adam(values, gradient, first, second, turn, step, most):
    """One projected step into [0, most]."""
    one, two = 1 - FIRST_DECAY**turn, 1 - SECOND_DECAY**turn
    for i in range(len(values)):
        g = gradient[i]
        if g == 0.0 and first[i] == 0.0:
            continue
        first[i] = FIRST_DECAY * first[i] + (1 - FIRST_DECAY) * g
        second[i] = SECOND_DECAY * second[i] + (1 - SECOND_DECAY) * g * g
        moved = values[i] + step * (first[i] / one) / (np.sqrt(second[i] / two) + SMALL)
        values[i] = min(most, max(0.0, moved))


@njit(**OPTIONS)
def ascend(layout, cost, offset, signs, alpha, beta, share, extra, scale, iterations, step, last_step, goal):
    """Raise the bound; alpha, beta (m,) and share (terms,) are replaced by the best found.

    beta counts in units of ``scale``.  goal: a bound that is enough.  Returns the best bound, the mean over the second
    half of the iterations of the columns' values (n + m,) and of the neurons' inputs (m,), and the coefficients that
    the neurons had at the best one.
    """
    n, m = layout.n, len(layout.constant)
    row, point, pre = np.empty(n + m), np.empty(n + m), np.empty(m)
    lines, lifts = np.empty(m), np.empty(m)
    to_alpha, to_beta, to_share = np.zeros(m), np.zeros(m), np.zeros(len(share))
    moments = [np.zeros(m), np.zeros(m), np.zeros(m), np.zeros(m), np.zeros(len(share)), np.zeros(len(share))]
    best_alpha, best_beta, best_share, coefficients = alpha.copy(), beta.copy(), share.copy(), np.zeros(m)
    columns, inputs, best, counted = np.zeros(n + m), np.zeros(m), -np.inf, 0
    scaled = np.empty(m)
    for turn in range(iterations):
        row[:] = cost
        for j in range(m):
            scaled[j] = beta[j] * scale
        value = offset + backward(layout, signs, alpha, scaled, share, extra, row, lines, lifts)
        value += box_least(layout, row, point)
        if value > best:
            best = value
            best_alpha[:], best_beta[:], best_share[:], coefficients[:] = alpha, beta, share, row[n:]
            if best > goal:
                break
        forward(layout, signs, scaled, share, row, lines, lifts, point, pre, to_alpha, to_beta, to_share)
        if 2 * turn >= iterations:
            columns += point
            inputs += pre
            counted += 1
        length = step * (last_step / step) ** (turn / max(1, iterations - 1))
        for j in range(m):
            to_beta[j] *= scale
        _adam(alpha, to_alpha, moments[0], moments[1], turn + 1, length, 1.0)
        _adam(beta, to_beta, moments[2], moments[3], turn + 1, length, 1e6)
        _adam(share, to_share, moments[4], moments[5], turn + 1, length, 1.0)
    alpha[:], beta[:], share[:] = best_alpha, best_beta, best_share
    if counted:
        columns /= counted
        inputs /= counted
    return best, columns, inputs, coefficients


@njit(**OPTIONS)
def lifts_below(layout, neurons, slopes, size, doubt, most):
    """What the planes of ``neurons`` with these slopes, (entries,), need as constants, (k,).

    That is the larger one of  max of -(slopes @ columns)  and  constant + max of (weights - slopes) @ columns  over
    the box.  Columns of neurons that read one input are replaced by their lines, all others by their ranges.
    size: (n + m,), of the columns.  doubt: (m,), how far a neuron's input may be from its expression.  most: (n + m,),
    the columns' greatest values.  Also the sizes of all that is summed, and what the doubts come to, (k,) each.
    """
    n, count = layout.n, len(neurons)
    lifts, sizes, doubts = np.empty(count), np.empty(count), np.empty(count)
    row = np.zeros(n)
    for k in range(count):
        j = neurons[k]
        first, last = layout.entries[layout.terms[j]], layout.entries[layout.terms[j + 1]]
        lifts[k], sizes[k], doubts[k] = -np.inf, 0.0, 0.0
        for side in range(2):
            # The least value of a row, by parts: its negative is what the constant has to make up for.
            value = 0.0 if side == 0 else -layout.constant[j]
            total = abs(value)
            unsure = 0.0
            row[:] = 0.0
            for e in range(first, last):
                if layout.columns[e] < n:
                    row[layout.columns[e]] += slopes[e] if side == 0 else slopes[e] - layout.weights[e]
                    total += abs(layout.weights[e]) * size[layout.columns[e]]
            for e in range(first, last):
                i = layout.columns[e] - n
                if i < 0:
                    continue
                c = slopes[e] if side == 0 else slopes[e] - layout.weights[e]
                total += abs(layout.weights[e]) * size[n + i]
                if layout.own[i] < 0:
                    value += min(0.0, c * most[n + i])
                    continue
                if c >= 0:
                    line = 0.0
                    if c > 0:
                        line = min(1.0, max(0.0, -row[layout.own[i]] / (c * layout.weight[i])))
                else:
                    line = layout.slope[i]
                    value += c * layout.lift[i]
                pushed = c * line
                value += pushed * layout.constant[i]
                total += abs(c) * layout.lift[i] + abs(pushed * layout.constant[i])
                unsure += abs(c) * doubt[i]
                for f in range(layout.entries[layout.terms[i]], layout.entries[layout.terms[i + 1]]):
                    row[layout.columns[f]] += pushed * layout.weights[f]
                    total += abs(pushed * layout.weights[f]) * size[layout.columns[f]]
            for i in range(n):
                value += min(row[i] * layout.lower[i], row[i] * layout.upper[i])
            lifts[k] = max(lifts[k], -value)
            sizes[k] = max(sizes[k], total)
            doubts[k] = max(doubts[k], unsure)
    return lifts, sizes, doubts
