"""Neurons that read one input, but for a little of the others: planes above them, and the terms they are in.

Such a neuron is  relu(z)  with  z = w x + r + c,  r small.  It is convex in (x, r), so over a rectangle a plane is
above it that is above it at the four corners.  Where the neuron is inactive at one end of x, a, and active at the
other, b, whatever r is, two planes are

    z + slant x + lift      with slant b + lift = 0: exact where x = b
    slant x + lift          with slant a + lift = 0: exact where x = a

where the triangle over all of z is exact at neither.  Which one to take depends on the end where the minimum is.

A hull plane's constant is the largest of  -(slopes @ columns)  and  constant + (weights - slopes) @ columns  over the
box.  For slopes between nothing and the weights the first is attained where every term is least, the second where every
one is greatest, or nearly so: the neurons of one input read a little of the others too, so a term is not alone
responsible for its value.  Taken at these two points, with all that the neurons read, the terms give a constant that is
exact but for inputs whose coefficient is so small that what others read of them matters more.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from verifier.bounds.rounding import TINY, UNIT
from verifier.search.compiled import OPTIONS


@njit(**OPTIONS)
def _value(layout, middle, first, last, x):
    """The sum of the entries first to last, of one input and neurons that read it only, where the input is x."""
    value = 0.0
    for f in range(first, last):
        c = np.int64(layout.columns[f])
        if c < layout.n:
            value += layout.weights[f] * x
        else:
            value += layout.weights[f] * max(0.0, layout.weight[c - layout.n] * x + middle[c - layout.n])
    return value


@njit(**OPTIONS)
def _extremes(layout, group, middle, first, last, points):
    """Where the groups of the entries first to last are least, points[0], and greatest, points[1]."""
    e = first
    while e < last:
        f = e + 1
        while f < last and group[f] == group[e]:
            f += 1
        c = np.int64(layout.columns[e])
        own = c if c < layout.n else layout.own[c - layout.n]
        if own >= 0:
            least = largest = layout.lower[own]
            low = high = _value(layout, middle, e, f, least)
            for k in range(e, f + 1):
                x = layout.upper[own]
                if k < f:
                    i = np.int64(layout.columns[k]) - layout.n
                    if i < 0:
                        continue
                    x = min(max(-middle[i] / layout.weight[i], layout.lower[own]), layout.upper[own])
                value = _value(layout, middle, e, f, x)
                if value < low:
                    low, least = value, x
                if value > high:
                    high, largest = value, x
            points[0, own], points[1, own] = least, largest
        e = f


@njit(**OPTIONS)
def fill_planes(layout, size):
    """Rigorous: lines, slants, lifts (2, m),  relu(z) <= line z + slant x + lift  over the box, and how to choose.

    The first row is for the active end, the second for the other; where there are no two planes both are the triangle's
    upper side.  size: (n + m,), of the columns.
    """
    for j in range(len(layout.constant)):
        layout.lines[:, j], layout.slants[:, j], layout.lifts[:, j] = layout.slope[j], 0.0, layout.lift[j]
        layout.span[j], layout.height[j] = 0.0, 0.0
        own, c, w = layout.own[j], layout.constant[j], layout.weight[j]
        if own < 0 or not layout.upper[own] > layout.lower[own]:
            continue
        first, last = layout.entries[layout.terms[j]], layout.entries[layout.terms[j + 1]]
        least, most, total = 0.0, 0.0, abs(c)
        for e in range(first, last):
            i, v = layout.columns[e], layout.weights[e]
            total += abs(v) * size[i]
            if i != own:
                least += min(v * layout.lower[i], v * layout.upper[i])
                most += max(v * layout.lower[i], v * layout.upper[i])
        slack = 8 * UNIT * (last - first + 16) * total + TINY
        least, most = least - slack, most + slack
        a, b = layout.lower[own], layout.upper[own]
        if w < 0:
            a, b = b, a
        low, high = w * a + c, w * b + c
        layout.span[j], layout.height[j] = b - a, high + (least + most) / 2
        if low + most > -slack or high + least < slack:
            continue
        for k in range(2):
            line = 1.0 - k
            slant = (high + (most if k else least)) / (b - a) - line * w
            lift = -np.inf
            for x in (a, b):
                for r in (least, most):
                    z = w * x + c + r
                    lift = max(lift, max(0.0, z) - line * z - slant * x)
            # What the evaluation of the corners may be off by.
            lift += 64 * UNIT * (total + abs(slant) * max(abs(a), abs(b))) + TINY
            layout.lines[k, j], layout.slants[k, j], layout.lifts[k, j] = line, slant, lift


@njit(**OPTIONS)
def fill_terms(layout, group, upper):
    """Replace least, width and most of all neurons with planes.

    group: (entries,), one after the other within a term.  upper: (n + m,), the columns' greatest values.
    """
    n, m = layout.n, len(layout.constant)
    centre = (layout.lower + layout.upper) / 2
    middle = layout.constant.copy()
    for i in range(m):
        if layout.own[i] >= 0:
            for e in range(layout.entries[layout.terms[i]], layout.entries[layout.terms[i + 1]]):
                if layout.columns[e] != layout.own[i]:
                    middle[i] += layout.weights[e] * centre[layout.columns[e]]
    points = np.empty((2, n))
    for j in range(m):
        if not layout.hull[j]:
            continue
        points[0], points[1] = centre, centre
        for t in range(layout.terms[j], layout.terms[j + 1]):
            _extremes(layout, group, middle, layout.entries[t], layout.entries[t + 1], points)
        most = layout.constant[j]
        for t in range(layout.terms[j], layout.terms[j + 1]):
            low, high = 0.0, 0.0
            for e in range(layout.entries[t], layout.entries[t + 1]):
                c, w = np.int64(layout.columns[e]), layout.weights[e]
                if c < n:
                    low += w * points[0, c]
                    high += w * points[1, c]
                elif layout.own[c - n] < 0:
                    low += min(0.0, w * upper[c])
                    high += max(0.0, w * upper[c])
                else:
                    i = c - n
                    inputs = slice(layout.entries[layout.terms[i]], layout.entries[layout.terms[i + 1]])
                    for side in range(2):
                        z = layout.constant[i]
                        for f in range(inputs.start, inputs.stop):
                            z += layout.weights[f] * points[side, layout.columns[f]]
                        if side == 0:
                            low += w * max(0.0, z)
                        else:
                            high += w * max(0.0, z)
            layout.least[t], layout.width[t] = low, high - low
            most += high
        layout.most[j] = most
