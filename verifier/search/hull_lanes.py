"""The compiled ascent of ``hull_ascent``: the multipliers of several regions at once, one region per lane.

All arrays are float32 with the lanes last (``lanes``), so that every entry of a sparse row is one vector operation and
one look at its column.  Nothing here needs care with rounding: what an ascent ends with is proved in float64
(``hull_proof``).

Every multiplier moves by its gradient over the root of the gradient's mean square, as in Adam (Kingma and Ba, ICLR
2015), whose other mean, of the gradients themselves, does no good here: after 50 steps from the multipliers of the
region before, bounds on mnist_wk17a fall short of the best ones by 0.034 without it, by 0.050 with its usual weight.
The shares of a plane have one mean square together, of their gradients per width of the term: as many regions as with
one each, and a quarter less time, which goes into moving numbers between the caches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from verifier.search import lanes as lanes_module
from verifier.search import pointers as pointers_module
from verifier.search.compiled import OPTIONS, stamp
from verifier.search.hull_layout import Layout
from verifier.search.lanes import (
    LANES,
    aligned,
    any_below,
    inverse_root,
    larger,
    load,
    smaller,
    spread,
    store,
    where_negative,
)
from verifier.search.pointers import pointers

ONE, NONE = np.float32(1), np.float32(0)
DECAY, REST, TINY = np.float32(0.99), np.float32(1 - 0.99), np.float32(1e-24)
FIRST_SQUARE = np.float32(1e-4)
"""Of shares, whose first step is taken before their squares are known."""
SMALLEST = np.float32(1e-30)
"""Coefficients below this are divided by as if they were this."""
MOST_BETA = np.float32(1e6)
INNER = {**OPTIONS, "cache": False}
"""What only the ascent calls is compiled into it: a cache of its own would not notice a change of ``lanes``."""


class Lanes(NamedTuple):
    """Regions under ascent, one per lane; float32 arrays but for signs (m, LANES) int8.

    split: (m,) bool, whether some region has a sign for the neuron.  cost: (n + m, LANES).  offset, scale, goal:
    (1, LANES).  alpha, beta, extra: (m, LANES).  share: (terms, LANES).
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


class Work(NamedTuple):
    """What an ascent works with, and where it leaves what it has found: (columns, LANES), (m, LANES) or (1, LANES).

    From backward passes.  row: the coefficients that each column had when its turn came.  straight: what goes on to a
    neuron's input, bent: what goes on to its plane, which is negative or nothing.  lines, slants, lifts: line z +
    slant x + lift stands for a neuron, x being the one input it reads; the lift is also its plane's.  steep: 1 where
    the plane touches the active side.  value: the bound.  parts: (terms of a block, LANES), scratch: what the terms of
    a block get, that of its term p at ``where[p]``, (terms of a block,): those that get the same share a place.

    From forward passes.  point: the columns' values at the minimiser, on the lines in use.  pre: the neurons' inputs
    there.  columns, inputs: means of the two.  pace: of the step, 0 for a lane that stays.  gradient: scratch.
    alpha_squares, beta_squares, share_squares: the means of the squares of the multipliers' gradients, of the shares'
    over all of a neuron.
    """

    row: np.ndarray
    straight: np.ndarray
    bent: np.ndarray
    lines: np.ndarray
    slants: np.ndarray
    lifts: np.ndarray
    steep: np.ndarray
    value: np.ndarray
    parts: np.ndarray
    where: np.ndarray
    point: np.ndarray
    pre: np.ndarray
    columns: np.ndarray
    inputs: np.ndarray
    pace: np.ndarray
    gradient: np.ndarray
    alpha_squares: np.ndarray
    beta_squares: np.ndarray
    share_squares: np.ndarray


def rooms(layout: Layout) -> tuple[Lanes, Work]:
    """For LANES regions."""

    def room(rows: int) -> np.ndarray:
        return aligned((rows, LANES))

    columns, m, terms = layout.n + layout.m, layout.m, len(layout.width)
    lanes = Lanes(
        np.zeros((m, LANES), np.int8), np.zeros(m, np.bool_), room(columns), room(1), room(1), room(1), room(m),
        room(m), room(m), room(terms),
    )  # fmt: skip
    work = Work(
        room(columns), room(m), room(m), room(m), room(m), room(m), room(m), room(1), room(layout.most_parts),
        np.zeros(layout.most_parts, np.uint32), room(columns), room(m), room(columns), room(m), room(1), room(1),
        room(m), room(m), room(m),
    )  # fmt: skip
    return lanes, work


@njit(**INNER)
def _choose(layout, lanes, work, j):
    """The line or the plane that stands for neuron j, by its coefficients."""
    a, zero = load(work.row, layout.n + j), spread(NONE)
    above, below = larger(a, zero), smaller(a, zero)
    line = load(lanes.alpha, j)
    own = layout.own[j]
    if layout.hull[j]:
        store(work.bent, j, below)
        store(work.straight, j, above * line)
        store(work.lines, j, line)
        store(work.lifts, j, zero)
        return
    over, lift = spread(layout.slope[j]), spread(layout.lift[j])
    if own >= 0:
        # The best line and the best plane at the minimiser of a function of one input.
        q = load(work.row, own)
        size = larger(a, spread(SMALLEST)) * spread(layout.weight[j])
        line = smaller(spread(ONE), larger(zero, (zero - q) / size))
        end = q * spread(layout.span[j]) + a * spread(layout.height[j])
        over = where_negative(end, spread(layout.lines[j]), spread(layout.lines[layout.m + j]))
        lift = where_negative(end, spread(layout.lifts[j]), spread(layout.lifts[layout.m + j]))
        slant = where_negative(end, spread(layout.slants[j]), spread(layout.slants[layout.m + j]))
        store(work.slants, j, where_negative(a, slant, zero))
    store(work.bent, j, zero)
    store(work.straight, j, above * line + below * over)
    store(work.lines, j, where_negative(a, over, line))
    store(work.lifts, j, where_negative(a, lift, zero))


@njit(**INNER)
def _fix(layout, lanes, work, j):
    """The same in the lanes that have a sign for neuron j."""
    for at in range(j * LANES, (j + 1) * LANES):
        sign, a = lanes.signs[at], work.row[layout.n * LANES + at]
        if sign == 0:
            continue
        multiplier = lanes.beta[at] * lanes.scale[at - j * LANES]
        work.bent[at], work.lifts[at], work.slants[at] = NONE, NONE, NONE
        work.lines[at] = ONE if sign > 0 else NONE
        work.straight[at] = a - multiplier if sign > 0 else multiplier


@njit(**INNER)
def _choose_and_lift(layout, lanes, work, j):
    """Choose, and add what the constants of neuron j's line come to."""
    _choose(layout, lanes, work, j)
    if lanes.split[j]:
        _fix(layout, lanes, work, j)
    raised = load(work.straight, j) * spread(layout.constant[j]) + load(work.row, layout.n + j) * load(work.lifts, j)
    store(work.value, 0, load(work.value, 0) + raised)


@njit(**INNER)
def _pass_on(layout, lanes, work, j, at):
    """What neuron j's terms get, the first of them being the block's term ``at``; add what its plane's constants
    come to.
    """
    first, last = layout.terms[j], layout.terms[j + 1]
    straight, bent, zero = load(work.straight, j), load(work.bent, j), spread(NONE)
    if first == last:
        return
    if not any_below(bent, zero):
        # All terms get the same.
        store(work.parts, at, straight)
        for t in range(at, at + last - first):
            work.where[t] = at
        return
    for t in range(at, at + last - first):
        work.where[t] = t
    reach, rest = zero, zero
    for t in range(first, last):
        share = load(lanes.share, t)
        reach = reach + share * spread(layout.width[t])
        rest = rest + share * spread(layout.least[t])
        store(work.parts, at + t - first, bent * share + straight)
    above = spread(layout.most[j]) - reach
    lift = larger(above, zero) - rest + load(lanes.extra, j)
    store(work.steep, j, where_negative(zero - above, spread(ONE), zero))
    store(work.lifts, j, where_negative(bent, lift, load(work.lifts, j)))
    store(work.value, 0, load(work.value, 0) + bent * lift)


@njit(**INNER)
def _sum(values, which, weights, first, last):
    """Of ``weights[e] * values[which[e]]``: two sums side by side, as an addition waits for the one before it."""
    even, odd = spread(NONE), spread(NONE)
    for e in range(first, last - 1, 2):
        even = even + load(values, which[e]) * spread(weights[e])
        odd = odd + load(values, which[e + 1]) * spread(weights[e + 1])
    if (last - first) % 2:
        even = even + load(values, which[last - 1]) * spread(weights[last - 1])
    return even + odd


@njit(**INNER)
def _sum_of_parts(work, which, weights, first, last):
    """The same of ``work.parts``, where ``work.where`` says that they lie."""
    even, odd = spread(NONE), spread(NONE)
    for e in range(first, last - 1, 2):
        even = even + load(work.parts, work.where[which[e]]) * spread(weights[e])
        odd = odd + load(work.parts, work.where[which[e + 1]]) * spread(weights[e + 1])
    if (last - first) % 2:
        even = even + load(work.parts, work.where[which[last - 1]]) * spread(weights[last - 1])
    return even + odd


@njit(**INNER)
def _backward(layout, lanes, work):
    """Push the cost from the neurons to the inputs; ``work.value`` gets what the constants come to.

    Blocks go column by column, so that what a column gets from a block is summed up in registers.
    """
    row = work.row
    for i in range(layout.n + layout.m):
        store(row, i, load(lanes.cost, i))
    store(work.value, 0, load(lanes.offset, 0))
    for b in range(layout.n_blocks - 1, -1, -1):
        at = 0
        for k in range(layout.blocks[b], layout.blocks[b + 1]):
            j = layout.order[k]
            _choose_and_lift(layout, lanes, work, j)
            _pass_on(layout, lanes, work, j, at)
            at += layout.terms[j + 1] - layout.terms[j]
        for c in range(layout.touched[b], layout.touched[b + 1]):
            met, first, last = layout.met[c], layout.reads[c], layout.reads[c + 1]
            store(row, met, load(row, met) + _sum_of_parts(work, layout.part, layout.pushed, first, last))
    # A line is chosen by what those before it have left of the input's coefficient.
    for k in range(layout.blocks[0] - 1, -1, -1):
        j = layout.order[k]
        _choose_and_lift(layout, lanes, work, j)
        own, straight = layout.own[j], load(work.straight, j)
        store(row, own, load(row, own) + load(row, layout.n + j) * load(work.slants, j))
        for e in range(layout.entries[layout.terms[j]], layout.entries[layout.terms[j + 1]]):
            i = layout.columns[e]
            store(row, i, load(row, i) + straight * spread(layout.weights[e]))


@njit(**INNER)
def _minimisers(layout, work):
    """The inputs of least value over the box, and that value."""
    total = load(work.value, 0)
    for i in range(layout.n):
        c, lower, upper = load(work.row, i), spread(layout.lower[i]), spread(layout.upper[i])
        x = where_negative(c, upper, lower)
        store(work.point, i, x)
        total = total + c * x
    store(work.value, 0, total)


@njit(**INNER)
def _kinks(layout, lanes, work):
    """Where a line has been fitted to a neuron of one input the minimiser is at its kink."""
    for k in range(layout.blocks[0]):
        j = layout.order[k]
        own = layout.own[j]
        kink = min(layout.upper[own], max(layout.lower[own], -layout.constant[j] / layout.weight[j]))
        for b in range(LANES):
            at = j * LANES + b
            line = work.lines[at]
            if work.row[layout.n * LANES + at] > NONE and NONE < line < ONE and lanes.signs[at] == 0:
                work.point[own * LANES + b] = kink


@njit(**INNER)
def _climb(values, j, gradient, squares, step, correction, most):
    """One step of values[j], projected into [0, most]."""
    mean = load(squares, j) * spread(DECAY) + gradient * gradient * spread(REST)
    store(squares, j, mean)
    moved = load(values, j) + gradient * step * inverse_root(mean * spread(correction) + spread(TINY))
    store(values, j, smaller(spread(most), larger(spread(NONE), moved)))


@njit(**INNER)
def _forward(layout, lanes, work, correction):
    """From the minimising inputs in ``point`` to the columns' values on the lines in use; a step of all multipliers.

    correction: of the bias of the squares' means.
    """
    n, step, zero = layout.n, load(work.pace, 0), spread(NONE)
    for k in range(layout.m):
        j = layout.order[k]
        first, last = layout.terms[j], layout.terms[j + 1]
        z, plane, bent = spread(layout.constant[j]), zero, load(work.bent, j)
        if any_below(bent, zero):
            steep = load(work.steep, j)
            mean = load(work.share_squares, j)
            rate = bent * step * inverse_root(mean * spread(correction) + spread(TINY))
            total = zero
            for t in range(first, last):
                part = zero
                for e in range(layout.entries[t], layout.entries[t + 1]):
                    part = part + load(work.point, layout.columns[e]) * spread(layout.weights[e])
                z = z + part
                share = load(lanes.share, t)
                plane = plane + share * part
                slope = (part - spread(layout.least[t])) * spread(layout.inverse[t]) - steep
                total = total + slope * slope
                store(lanes.share, t, smaller(spread(ONE), larger(zero, share + slope * rate)))
            total = total * bent * bent * spread(np.float32(1) / np.float32(last - first))
            store(work.share_squares, j, mean * spread(DECAY) + total * spread(REST))
        else:
            z = z + _sum(work.point, layout.columns, layout.weights, layout.entries[first], layout.entries[last])
        store(work.pre, j, z)
        value = where_negative(bent, plane, load(work.lines, j) * z) + load(work.lifts, j)
        if layout.own[j] >= 0:
            value = value + load(work.slants, j) * load(work.point, layout.own[j])
        store(work.point, n + j, value)
        a = load(work.row, n + j)
        if lanes.split[j]:
            for b in range(LANES):
                at = j * LANES + b
                work.gradient[b] = -lanes.signs[at] * work.pre[at] * lanes.scale[b]
            _climb(lanes.beta, j, load(work.gradient, 0), work.beta_squares, step, correction, MOST_BETA)
            for b in range(LANES):
                at = j * LANES + b
                free = lanes.signs[at] == 0
                work.gradient[b] = max(NONE, work.row[n * LANES + at]) * work.pre[at] if free else NONE
            _climb(lanes.alpha, j, load(work.gradient, 0), work.alpha_squares, step, correction, ONE)
        elif layout.own[j] < 0:
            _climb(lanes.alpha, j, larger(a, zero) * z, work.alpha_squares, step, correction, ONE)


@njit(**INNER)
def _iterate(all_layout, all_lanes, all_work, iterations, step, last_step):
    """All steps."""
    layout, lanes, work = pointers(all_layout), pointers(all_lanes), pointers(all_work)
    for squares in (all_work.alpha_squares, all_work.beta_squares):
        squares[:] = NONE
    all_work.share_squares[:] = FIRST_SQUARE
    all_work.columns[:], all_work.inputs[:], counted = NONE, NONE, 0
    for turn in range(iterations + 1):
        _backward(layout, lanes, work)
        _minimisers(layout, work)
        going = False
        length = np.float32(step * (last_step / step) ** (turn / max(1, iterations - 1)))
        for b in range(LANES):
            work.pace[b] = NONE
            if work.value[b] <= lanes.goal[b]:
                work.pace[b] = length
                going = True
        if turn == iterations or not going:
            break
        _kinks(layout, lanes, work)
        correction = np.float32(1 / (1 - 0.99 ** (turn + 1)))
        _forward(layout, lanes, work, correction)
        if 2 * turn >= iterations:
            all_work.columns[:] += all_work.point
            all_work.inputs[:] += all_work.pre
            counted += 1
    if counted:
        all_work.columns[:] /= np.float32(counted)
        all_work.inputs[:] /= np.float32(counted)


def _compiled(version: int):
    @njit(**OPTIONS)
    def ascend(layout, lanes, work, iterations, step, last_step):
        """Raise all bounds; the multipliers are replaced.

        A lane whose bound exceeds its goal stays as it is.  In ``work``: value, the bounds; columns and inputs, the
        means over the second half of the iterations; row, the coefficients that the columns had in the last pass.
        """
        assert version >= 0
        _iterate(layout, lanes, work, iterations, step, last_step)

    return ascend


ascend = _compiled(stamp((lanes_module, pointers_module)))
