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

Several regions are proved at once, one per lane (``lanes``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from verifier.bounds import rounding
from verifier.bounds.rounding import TINY
from verifier.search import lanes as lanes_module
from verifier.search import pointers as pointers_module
from verifier.search.compiled import OPTIONS, stamp
from verifier.search.hull_layout import Layout
from verifier.search.lanes import (
    DOUBLES,
    aligned,
    any_below,
    larger,
    load,
    magnitude,
    smaller,
    spread,
    store,
    where_negative,
)
from verifier.search.pointers import pointers

UNIT = 1.02 * rounding.UNIT
"""Times the number of terms: the relative error of a sum of products, rounded up."""
SMALLEST = 1e-100
"""Coefficients below this are divided by as if they were this."""
INNER = {**OPTIONS, "cache": False}
"""What only ``lower_bounds`` calls is compiled into it: a cache of its own would not notice a change of ``lanes``."""


class Sizes(NamedTuple):
    """Of a program: all that its errors come from.

    size: (n + m,), of the columns.  read: (m,), the sizes of all that a neuron sums up.  doubt: (m,), how far the input
    of a neuron may be from its expression.  most: (n + m,), the columns' greatest values.  planes: (m,), how far a
    neuron's plane may be from true, whatever its shares.
    """

    size: np.ndarray
    read: np.ndarray
    doubt: np.ndarray
    most: np.ndarray
    planes: np.ndarray


class Proofs(NamedTuple):
    """Regions to be proved, one per lane, and scratch; float64.

    cost: (n + m, DOUBLES).  signs, alpha, beta, extra: (m, DOUBLES), signs 1, -1 or 0, beta in units of the row, extra
    out: by how much the constants of the planes in use exceed what the terms' ranges say.  share: (terms, DOUBLES).
    Alphas and shares are brought into [0, 1], betas to 0 or above.  offset, unsure, bound: (1, DOUBLES).  row, met:
    (n + m, DOUBLES), and inactive, active: (n, DOUBLES), scratch.
    """

    cost: np.ndarray
    signs: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    extra: np.ndarray
    share: np.ndarray
    offset: np.ndarray
    unsure: np.ndarray
    bound: np.ndarray
    row: np.ndarray
    met: np.ndarray
    inactive: np.ndarray
    active: np.ndarray


def rooms(layout: Layout) -> Proofs:
    """Room for DOUBLES regions."""

    def room(rows: int) -> np.ndarray:
        return aligned((rows, DOUBLES), np.float64)

    n, m = layout.n, layout.m
    return Proofs(
        room(n + m), room(m), room(m), room(m), room(m), room(len(layout.width)), room(1), room(1), room(1),
        room(n + m), room(n + m), room(n), room(n),
    )  # fmt: skip


@njit(**OPTIONS)
def fill_plane_errors(layout, sizes):
    """Work out ``sizes.planes``: a neuron's own doubt, those of what it reads, and rounding as in ``_plane_side``."""
    n, m = layout.n, layout.m
    for j in range(m):
        first, last = layout.entries[layout.terms[j]], layout.entries[layout.terms[j + 1]]
        total, unsure = abs(layout.constant[j]), 0.0
        for e in range(first, last):
            c, w = np.int64(layout.columns[e]), abs(layout.weights[e])
            total += w * sizes.size[c]
            if c >= n and layout.own[c - n] >= 0:
                i, own = c - n, layout.own[c - n]
                most = 0.0
                for k in range(2):
                    most = max(most, abs(layout.lifts[k, i]) + abs(layout.slants[k, i]) * sizes.size[own])
                total += w * (sizes.read[i] + most)
                unsure += w * sizes.doubt[i]
        sizes.planes[j] = (
            1.01 * unsure + sizes.doubt[j] + 8 * UNIT * (n + (last - first) * (last - first) + 64) * total + TINY
        )


@njit(**INNER)
def _pushed(layout, most, row, i, c, positive):
    """What the constants come to when neuron i with the coefficients c is replaced by a line down to the inputs.

    Columns of neurons that read more than one input are replaced by their ranges.  positive: whether c is nowhere
    negative, or else nowhere positive.
    """
    zero, own = spread(0.0), layout.own[i]
    if own < 0:
        return smaller(zero, c * spread(most[layout.n + i]))
    below = load(row, own)
    if positive:
        # The best line at the minimiser of a function of one input.
        line = (zero - below) / (larger(c, spread(SMALLEST)) * spread(layout.weight[i]))
        pushed = c * smaller(spread(1.0), larger(zero, line))
        value = pushed * spread(layout.constant[i])
    else:
        end = below * spread(layout.span[i]) + c * spread(layout.height[i])
        other = layout.m + i
        pushed = c * where_negative(end, spread(layout.lines[i]), spread(layout.lines[other]))
        lift = where_negative(end, spread(layout.lifts[i]), spread(layout.lifts[other]))
        slant = where_negative(end, spread(layout.slants[i]), spread(layout.slants[other]))
        value = pushed * spread(layout.constant[i]) + c * lift
        store(row, own, below + c * slant)
    for f in range(layout.entries[layout.terms[i]], layout.entries[layout.terms[i + 1]]):
        store(row, layout.columns[f], load(row, layout.columns[f]) + pushed * spread(layout.weights[f]))
    return value


@njit(**INNER)
def _plane_side(layout, most, share, inactive, active, j):
    """What the plane of neuron j with these shares needs as its constant, up to ``Sizes.planes``.

    The plane's slopes are share times weight, and the constant is the larger one of  max of -(slopes @ columns)  and
    constant + max of (weights - slopes) @ columns  over the box.  Columns of neurons that read one input are replaced
    by their lines down to the inputs, all others by their ranges.  inactive, active: (n, DOUBLES), scratch.
    """
    n, zero, one = layout.n, spread(0.0), spread(1.0)
    for k in range(layout.starts[j], layout.starts[j + 1]):
        store(inactive, layout.reach[k], zero)
        store(active, layout.reach[k], zero)
    for t in range(layout.terms[j], layout.terms[j + 1]):
        s = load(share, t)
        for e in range(layout.entries[t], layout.entries[t + 1]):
            i, w = layout.columns[e], spread(layout.weights[e])
            if i < n:
                store(inactive, i, load(inactive, i) + s * w)
                store(active, i, load(active, i) + (s - one) * w)
    # The least values of the two rows, by parts: their negatives are what the constant has to make up for.
    off, on = zero, zero - spread(layout.constant[j])
    for t in range(layout.terms[j], layout.terms[j + 1]):
        s = load(share, t)
        for e in range(layout.entries[t], layout.entries[t + 1]):
            i, w = np.int64(layout.columns[e]) - n, layout.weights[e]
            if i >= 0:
                off = off + _pushed(layout, most, inactive, i, s * spread(w), w > 0)
                on = on + _pushed(layout, most, active, i, (s - one) * spread(w), w < 0)
    for k in range(layout.starts[j], layout.starts[j + 1]):
        i = layout.reach[k]
        lower, upper = spread(layout.lower[i]), spread(layout.upper[i])
        off = off + smaller(load(inactive, i) * lower, load(inactive, i) * upper)
        on = on + smaller(load(active, i) * lower, load(active, i) * upper)
    return zero - smaller(off, on)


@njit(**INNER)
def _range_lift(layout, share, j):
    """The constants of neuron j's planes with these shares, as the ranges of its terms have them."""
    lift, rest = spread(layout.most[j]), spread(0.0)
    for t in range(layout.terms[j], layout.terms[j + 1]):
        lift = lift - load(share, t) * spread(layout.width[t])
        rest = rest + load(share, t) * spread(layout.least[t])
    return larger(spread(0.0), lift) - rest


@njit(**INNER)
def _prove(all_layout, all_sizes, all_lanes):
    """Fill ``bound`` and ``extra``."""
    layout, sizes, lanes = pointers(all_layout), pointers(all_sizes), pointers(all_lanes)
    n, m, row, met, zero = layout.n, layout.m, lanes.row, lanes.met, spread(0.0)
    for i in range(n + m):
        store(row, i, load(lanes.cost, i))
        store(met, i, magnitude(load(lanes.cost, i)))
    # Slopes beyond these would prove nothing, wherever they come from.
    for t in range(layout.terms[0], layout.terms[m]):
        store(lanes.share, t, smaller(spread(1.0), larger(zero, load(lanes.share, t))))
    value = load(lanes.offset, 0)
    summed, slack = magnitude(value), load(lanes.unsure, 0)
    for j in range(m - 1, -1, -1):
        a, sign, own = load(row, n + j), load(lanes.signs, j), layout.own[j]
        above, below, fixed = larger(a, zero), smaller(a, zero), zero - magnitude(sign)
        bent = where_negative(fixed, zero, below) if layout.hull[j] else zero
        # A neuron without a sign: a line where its coefficient is positive, else its triangle or its plane.
        if own >= 0:
            q, other = load(row, own), m + j
            line = (zero - q) / (larger(a, spread(SMALLEST)) * spread(layout.weight[j]))
            end = q * spread(layout.span[j]) + a * spread(layout.height[j])
            over = where_negative(end, spread(layout.lines[j]), spread(layout.lines[other]))
            lift = where_negative(end, spread(layout.lifts[j]), spread(layout.lifts[other]))
            slant = where_negative(end, spread(layout.slants[j]), spread(layout.slants[other]))
            slanted = where_negative(fixed, zero, below * slant)
            store(row, own, q + slanted)
            store(met, own, load(met, own) + magnitude(slanted))
        else:
            line, over, lift = load(lanes.alpha, j), spread(layout.slope[j]), spread(layout.lift[j])
        under = above * smaller(spread(1.0), larger(zero, line))
        straight, multiplier, raised = under + (below - bent) * over, under + below, (below - bent) * lift
        # A neuron with a sign: its input's sign has a multiplier of its own.
        beta = larger(zero, load(lanes.beta, j))
        held = where_negative(sign, beta, a - beta)
        straight = where_negative(fixed, held, straight)
        multiplier = where_negative(fixed, held, multiplier)
        raised = where_negative(fixed, zero, raised) + straight * spread(layout.constant[j])
        value = value + raised
        summed = summed + magnitude(raised) + magnitude(straight * spread(2 * layout.constant[j]))
        slack = slack + magnitude(multiplier) * spread(sizes.doubt[j])
        if any_below(bent, zero):
            side = _plane_side(layout, sizes.most, lanes.share, lanes.inactive, lanes.active, j)
            lift = side - _range_lift(layout, lanes.share, j)
            store(lanes.extra, j, where_negative(bent, lift, load(lanes.extra, j)))
            value = value + bent * side
            summed = summed + magnitude(bent * side)
            slack = slack - bent * spread(sizes.planes[j])
        for t in range(layout.terms[j], layout.terms[j + 1]):
            part = bent * load(lanes.share, t) + straight
            for e in range(layout.entries[t], layout.entries[t + 1]):
                i, push = layout.columns[e], part * spread(layout.weights[e])
                store(row, i, load(row, i) + push)
                store(met, i, load(met, i) + magnitude(push))
        # What the constraint leaves of the neuron's own column, between 0 and its greatest value.
        store(met, n + j, load(met, n + j) + magnitude(multiplier))
        left = where_negative(sign, zero, smaller(zero, (a - multiplier) * spread(sizes.most[n + j])))
        value = value + left
        summed = summed + magnitude(left)
    for i in range(n):
        part = smaller(load(row, i) * spread(layout.lower[i]), load(row, i) * spread(layout.upper[i]))
        value = value + part
        summed = summed + magnitude(part)
    for i in range(n + m):
        slack = slack + load(met, i) * spread(2 * UNIT * (m + 64) * sizes.size[i])
    slack = slack + summed * spread(2 * UNIT * (n + 4 * m + 64)) + spread(TINY * (n + m))
    store(lanes.bound, 0, value - slack * spread(1 + 1e-6))


def _compiled(version: int):
    @njit(**OPTIONS)
    def lower_bounds(layout, sizes, lanes):
        """``bound``: no point of the box where the neurons have these signs has ``cost @ columns + offset``, give or
        take ``unsure``, below this; -inf where nothing is proved.
        """
        assert version >= 0
        _prove(layout, sizes, lanes)
        for b in range(DOUBLES):
            if not np.isfinite(lanes.bound[0, b]):
                lanes.bound[0, b] = -np.inf

    return lower_bounds


lower_bounds = _compiled(stamp((lanes_module, pointers_module)))
