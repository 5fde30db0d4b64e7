"""Rigorous bounds of rows over hull planes: the compiled half of ``hull_ascent`` in which rounding errors are covered.

Weak duality, written out for a triangle program.  A row is pushed from the neurons back to the inputs by the multiplier
p of one constraint per neuron: of  y >= z  where its coefficient is positive, else of its triangle or its plane.  Any
multipliers prove something, so they may come from float32 arithmetic: p, the slopes of the triangles, the shares and
the weights count as the exact numbers that they are as floating-point numbers, and what is left is the error of
evaluating sums of products (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1):

    columns     2 gamma times the sum of all |products| that met there, times the column's size
    constants   2 gamma times the sum of all |constants| that were added
    expressions |p| times how far a neuron's input may be from its expression

as in ``solve.lp_certificate``, which needs the program as a matrix.  The factors are worth two orders of magnitude more
than the few roundings that are not written out.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from verifier.bounds.rounding import TINY
from verifier.search.compiled import OPTIONS

UNIT = 1.02 * 2.0**-53
"""Times the number of terms: the relative error of a sum of products, rounded up."""


@njit(**OPTIONS)
def upper_plane(layout, i, c, below):
    """Which plane above neuron i of one input serves a coefficient c < 0 better: the one that is exact at the end where
    both it and the input, whose coefficient is ``below``, are least together.
    """
    return 0 if below * layout.span[i] + c * layout.height[i] < 0 else 1


@njit(**OPTIONS)
def range_lift(layout, share, j):
    """The constant of neuron j's plane with these shares, as the ranges of its terms have it."""
    lift, rest = layout.most[j], 0.0
    for t in range(layout.terms[j], layout.terms[j + 1]):
        lift -= share[t] * layout.width[t]
        rest += share[t] * layout.least[t]
    return max(0.0, lift) - rest


@njit(**OPTIONS)
def plane_side(layout, share, j, size, read, doubt, most, row):
    """What the plane of neuron j with these shares needs as its constant.

    The plane's slopes are share times weight, and the constant is the larger one of  max of -(slopes @ columns)  and
    constant + max of (weights - slopes) @ columns  over the box.  Columns of neurons that read one input are replaced
    by their lines down to the inputs, all others by their ranges.

    size: (n + m,), of the columns.  read: (m,), the sizes of all that a neuron sums up.  doubt: (m,), how far the input
    of a neuron may be from its expression.  most: (n + m,), the columns' greatest values.  row: (n,), scratch.  Also
    the sizes of all that is summed up, and what the doubts come to.
    """
    n = layout.n
    side, sizes, doubts = -np.inf, 0.0, 0.0
    for active in range(2):
        # The least value of a row, by parts: its negative is what the constant has to make up for.
        value = -layout.constant[j] if active else 0.0
        total, unsure = abs(value), 0.0
        for k in range(layout.starts[j], layout.starts[j + 1]):
            row[layout.reach[k]] = 0.0
        for t in range(layout.terms[j], layout.terms[j + 1]):
            s = share[t] - 1.0 if active else share[t]
            for e in range(layout.entries[t], layout.entries[t + 1]):
                if layout.columns[e] < n:
                    row[layout.columns[e]] += s * layout.weights[e]
                    total += abs(layout.weights[e]) * size[layout.columns[e]]
        for t in range(layout.terms[j], layout.terms[j + 1]):
            s = share[t] - 1.0 if active else share[t]
            for e in range(layout.entries[t], layout.entries[t + 1]):
                if layout.columns[e] < n:
                    continue
                i = np.int64(layout.columns[e]) - n
                c = s * layout.weights[e]
                total += abs(layout.weights[e]) * size[n + i]
                if layout.own[i] < 0:
                    value += min(0.0, c * most[n + i])
                    continue
                if c > 0:
                    line = min(1.0, max(0.0, -row[layout.own[i]] / (c * layout.weight[i])))
                elif c < 0:
                    k = upper_plane(layout, i, c, row[layout.own[i]])
                    line = layout.lines[k, i]
                    value += c * layout.lifts[k, i]
                    row[layout.own[i]] += c * layout.slants[k, i]
                    total += abs(c) * (abs(layout.lifts[k, i]) + abs(layout.slants[k, i]) * size[layout.own[i]])
                else:
                    continue
                pushed = c * line
                value += pushed * layout.constant[i]
                total += abs(pushed) * read[i]
                unsure += abs(c) * doubt[i]
                for f in range(layout.entries[layout.terms[i]], layout.entries[layout.terms[i + 1]]):
                    row[layout.columns[f]] += pushed * layout.weights[f]
        for k in range(layout.starts[j], layout.starts[j + 1]):
            i = layout.reach[k]
            value += min(row[i] * layout.lower[i], row[i] * layout.upper[i])
        side, sizes, doubts = max(side, -value), max(sizes, total), max(doubts, unsure)
    return side, sizes, doubts


@njit(**OPTIONS)
def plane_error(layout, j, sizes, doubts, doubt):
    """How far the plane may be from true: the neuron's own doubt, those of its side and the side's rounding."""
    longest = layout.entries[layout.terms[j + 1]] - layout.entries[layout.terms[j]]
    return 1.01 * doubts + doubt[j] + 8 * UNIT * (layout.n + longest * longest + 64) * sizes + TINY


@njit(**OPTIONS)
def lower_bound(layout, size, read, doubt, most, cost, offset, unsure, signs, alpha, beta, share, extra):
    """No point of the box where the neurons have these signs has ``cost @ columns + offset``, give or take ``unsure``,
    below this; -inf where nothing is proved.

    alpha, beta: (m,), beta in units of the row.  share: (terms,), in [0, 1].  extra: (m,) out, by how
    much the constants of the planes in use exceed what the terms' ranges say.  The rest is as in ``plane_side``.
    """
    n, m = layout.n, len(layout.constant)
    row, met, scratch = cost.copy(), np.abs(cost), np.zeros(n)
    value, summed, slack = offset, abs(offset), unsure
    for j in range(m - 1, -1, -1):
        a, sign = row[n + j], signs[j]
        first, last = layout.entries[layout.terms[j]], layout.entries[layout.terms[j + 1]]
        if sign == 0 and a < 0 and layout.hull[j]:
            multiplier = a
            side, sizes, doubts = plane_side(layout, share, j, size, read, doubt, most, scratch)
            extra[j] = side - range_lift(layout, share, j)
            value += a * side
            summed += abs(a * side)
            slack += abs(a) * plane_error(layout, j, sizes, doubts, doubt)
            for t in range(layout.terms[j], layout.terms[j + 1]):
                part = a * share[t]
                if part != 0.0:
                    for e in range(layout.entries[t], layout.entries[t + 1]):
                        push = part * layout.weights[e]
                        row[layout.columns[e]] += push
                        met[layout.columns[e]] += abs(push)
        else:
            if sign < 0:
                multiplier = beta[j]
                pushed = multiplier
            elif sign > 0:
                multiplier = a - beta[j]
                pushed = multiplier
            elif a >= 0:
                line = alpha[j]
                if layout.own[j] >= 0 and a > 0:
                    # The best line at the minimiser of a function of one input.
                    line = -row[layout.own[j]] / (a * layout.weight[j])
                multiplier = a * min(1.0, max(0.0, line))
                pushed = multiplier
            elif layout.own[j] >= 0:
                multiplier, own = a, layout.own[j]
                k = upper_plane(layout, j, a, row[own])
                pushed = a * layout.lines[k, j]
                value += a * layout.lifts[k, j]
                summed += abs(a * layout.lifts[k, j])
                row[own] += a * layout.slants[k, j]
                met[own] += abs(a * layout.slants[k, j])
            else:
                multiplier = a
                pushed = a * layout.slope[j]
                value += a * layout.lift[j]
                summed += abs(a * layout.lift[j])
            slack += abs(multiplier) * doubt[j]
            if pushed != 0.0:
                value += pushed * layout.constant[j]
                summed += abs(pushed * layout.constant[j])
                for e in range(first, last):
                    push = pushed * layout.weights[e]
                    row[layout.columns[e]] += push
                    met[layout.columns[e]] += abs(push)
        # What the constraint leaves of the neuron's own column, between 0 and its greatest value.
        met[n + j] += abs(multiplier)
        if sign >= 0:
            left = min(0.0, (a - multiplier) * most[n + j])
            value += left
            summed += abs(left)
    for i in range(n):
        part = min(row[i] * layout.lower[i], row[i] * layout.upper[i])
        value += part
        summed += abs(part)
    for i in range(n + m):
        slack += 2 * UNIT * (m + 64) * met[i] * size[i]
    slack += 2 * UNIT * (n + 4 * m + 64) * summed + TINY * (n + m)
    safe = value - (1 + 1e-6) * slack
    return safe if np.isfinite(safe) else -np.inf
