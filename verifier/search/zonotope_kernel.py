"""The compiled loop of input splitting: sparse zonotopes forward, one linear bound back, clip, split.

For one box after another (depth first):

1. Zonotope with one error column per unstable ReLU (DeepZ, Singh et al. 2018, section 4): centre c and generators
   G; a ReLU over [l, u] becomes lambda z + mu +- mu with lambda = u / (u - l), mu = -lambda l / 2.  Rows of
   inactive neurons are skipped, which is most of the speed: few neurons are active or unstable on a small box.
2. One backward pass per open row over the zonotope's pre-activation bounds (CROWN, adaptive lower slopes).
3. The row's linear bound clips the box: points where it is positive cannot satisfy the row.  A disjunct's clips
   intersect, the box becomes the hull over the open disjuncts.
4. The dimension to split is the one that causes most relaxation error: for every unstable neuron with a negative
   coefficient the loss |coefficient| t, shared out by the part of the neuron's radius that comes from each input
   (Henriksen and Lomuscio, DEEPSPLIT, 2021, in the spirit of), plus a share of |A_i| radius_i.

Rigour: ``widen`` and ``row_error`` are bounds on all rounding errors below a root box, made by ``dense_chain``.
Pre-activation bounds are widened by the one, and a disjunct counts as impossible only above the other, so a closed
box is closed in exact arithmetic.  Sums may be reassociated; the error bounds hold for any order.

All arrays are padded: W (layers, width, width), sizes (layers + 1,).
"""

from __future__ import annotations

import numpy as np
from numba import njit

EXHAUSTED, BUDGET, CANDIDATE, FULL = 0, 1, 2, 3
"""Why ``search`` returned: no box left, budget used, a point that seems to satisfy a disjunct, stack full."""

CLIP_ROUNDS = 2
SLOPE_SHARE = 0.5
"""Weight of |A_i| radius_i in the score; between 0.2 and 1 all is well, 0 loses instances (ENGINES.md)."""

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


@njit(inline="always")
def _padded(columns):
    return (columns + 7) // 8 * 8


@njit(**_OPTIONS)
def _zonotope_layer(h, D, columns, n_active, W, b, sizes, widen, c_in, g_in, c_out, g_out, active, following, half,
                    low, high, share):  # fmt: skip
    """One affine layer and its ReLU, from c_in, g_in to c_out, g_out; returns (columns, rows) of the result."""
    n_next = 0
    fresh = columns
    width = _padded(columns)
    for j in range(sizes[h + 1]):
        centre = b[h, j]
        for a in range(n_active):
            centre += W[h, j, active[a]] * c_in[a]
        for k in range(width):
            g_out[n_next, k] = 0.0
        # Four rows at a time: the sum is loaded and stored a quarter as often.
        whole = n_active // 4 * 4
        for a in range(0, whole, 4):
            w0 = W[h, j, active[a]]
            w1 = W[h, j, active[a + 1]]
            w2 = W[h, j, active[a + 2]]
            w3 = W[h, j, active[a + 3]]
            for k in range(width):
                g_out[n_next, k] += w0 * g_in[a, k] + w1 * g_in[a + 1, k] + w2 * g_in[a + 2, k] + w3 * g_in[a + 3, k]
        for a in range(whole, n_active):
            w = W[h, j, active[a]]
            for k in range(width):
                g_out[n_next, k] += w * g_in[a, k]
        radius = 0.0
        for k in range(columns):
            radius += abs(g_out[n_next, k])
        lower = centre - radius - widen[h, j]
        upper = centre + radius + widen[h, j]
        low[h, j] = lower
        high[h, j] = upper
        if upper <= 0.0:
            continue
        c_out[n_next] = centre
        half[n_next] = 0.0
        if lower < 0.0:
            fresh += 1
            slope = upper / (upper - lower)
            half[n_next] = -0.5 * slope * lower
            c_out[n_next] = slope * centre + half[n_next]
            for k in range(D):
                share[h, j, k] = abs(g_out[n_next, k]) / radius if radius > 0.0 else 0.0
            for k in range(columns):
                g_out[n_next, k] *= slope
        following[n_next] = j
        n_next += 1
    # Every unstable neuron gets a column of its own, zero in all other rows.
    own = columns
    for a in range(n_next):
        for k in range(columns, _padded(fresh)):
            g_out[a, k] = 0.0
        if half[a] > 0.0:
            g_out[a, own] = half[a]
            own += 1
    return fresh, n_next


@njit(**_OPTIONS)
def propagate(lo, hi, W, b, sizes, widen, work, low, high, share):
    """Zonotope over the box [lo, hi] (D,) through all hidden layers.

    Fills low, high (layers, width): rigorous pre-activation bounds; share (layers, width, D): the part of an
    unstable neuron's radius that comes from each input.  ``work`` comes from ``workspace``; its generators hold the
    rows of active and unstable neurons only, one after the other, columns padded to blocks of eight.
    """
    c0, c1, g0, g1, active, following, half = work
    D = lo.shape[0]
    columns = D
    n_active = D
    for i in range(D):
        active[i] = i
        c0[i] = 0.5 * (lo[i] + hi[i])
        for k in range(_padded(D)):
            g0[i, k] = 0.0
        g0[i, i] = 0.5 * (hi[i] - lo[i])
    for h in range(W.shape[0]):
        if h % 2 == 0:
            columns, n_active = _zonotope_layer(
                h, D, columns, n_active, W, b, sizes, widen, c0, g0, c1, g1, active, following, half,
                low, high, share)  # fmt: skip
        else:
            columns, n_active = _zonotope_layer(
                h, D, columns, n_active, W, b, sizes, widen, c1, g1, c0, g0, active, following, half,
                low, high, share)  # fmt: skip
        for a in range(n_active):
            active[a] = following[a]


@njit(**_OPTIONS)
def workspace(D, sizes, width):
    """Arrays for ``propagate``."""
    columns = _padded(sizes.sum() + D)
    return (
        np.empty(width + 1),
        np.empty(width + 1),
        np.empty((width + 1, columns)),
        np.empty((width + 1, columns)),
        np.empty(width + 1, np.int64),
        np.empty(width + 1, np.int64),
        np.empty(width + 1),
    )


@njit(**_OPTIONS)
def _back_layer(h, D, W, b, sizes, low, high, share, above, below, score):
    """Coefficients ``above`` on the outputs of ReLU layer h become ``below`` on its inputs; returns the constant."""
    constant = 0.0
    for i in range(sizes[h]):
        below[i] = 0.0
    for j in range(sizes[h + 1]):
        a = above[j]
        upper = high[h, j]
        if a == 0.0 or upper <= 0.0:
            continue
        lower = low[h, j]
        if lower < 0.0:
            if a > 0.0:
                if upper <= -lower:
                    continue
            else:
                slope = upper / (upper - lower)
                loss = a * slope * lower  # how far the upper line lies above, times |a|
                constant -= loss
                for i in range(D):
                    score[i] += loss * share[h, j, i]
                a *= slope
        constant += a * b[h, j]
        for i in range(sizes[h]):
            below[i] += a * W[h, j, i]
    return constant


@njit(**_OPTIONS)
def row_bound(lo, hi, W, b, sizes, low, high, share, row, constant, input_row, A, B, slope_in, score):
    """Lower bound of ``row . y + input_row . x + constant`` over the box, y the last hidden activations.

    Fills slope_in (D,) with the coefficients of the linear bound and score (D,) with the splitting score; returns
    the bound over the box, its rounding not yet accounted for.  A, B (width,) are workspace.
    """
    D = lo.shape[0]
    layers = W.shape[0]
    for j in range(sizes[layers]):
        A[j] = row[j]
    for i in range(D):
        score[i] = 0.0
    bound = constant
    for step in range(layers):
        h = layers - 1 - step
        if step % 2 == 0:
            bound += _back_layer(h, D, W, b, sizes, low, high, share, A, B, score)
        else:
            bound += _back_layer(h, D, W, b, sizes, low, high, share, B, A, score)
    for i in range(D):
        s = (A[i] if layers % 2 == 0 else B[i]) + input_row[i]
        slope_in[i] = s
        bound += s * lo[i] if s > 0.0 else s * hi[i]
        score[i] += SLOPE_SHARE * abs(s) * 0.5 * (hi[i] - lo[i])
    return bound


@njit(**_OPTIONS)
def _forward_layer(h, W, b, sizes, below, above):
    for j in range(sizes[h + 1]):
        total = b[h, j]
        for i in range(sizes[h]):
            total += W[h, j, i] * below[i]
        above[j] = max(total, 0.0)


@njit(**_OPTIONS)
def hidden_output(x, W, b, sizes, A, B):
    """The last hidden activations at x; A, B (width,) are workspace, one of them is returned."""
    for i in range(x.shape[0]):
        A[i] = x[i]
    for h in range(W.shape[0]):
        if h % 2 == 0:
            _forward_layer(h, W, b, sizes, A, B)
        else:
            _forward_layer(h, W, b, sizes, B, A)
    return A if W.shape[0] % 2 == 0 else B


@njit(**_OPTIONS)
def search(
    stack_lo, stack_hi, stack_live, stack_bound, depth,
    W, b, sizes, widen,
    rows, constants, input_rows, row_error, first_row,
    threshold, min_width, budget, abandoned, point,
):  # fmt: skip
    """Work on the stack of boxes until it is empty, the budget of boxes is used or a candidate turns up.

    stack_lo, stack_hi: (capacity, D); stack_live: (capacity, disjuncts) bool; stack_bound: (capacity,) the bound
    that the parent had.  rows of disjunct d: first_row[d] .. first_row[d + 1].  A candidate is a point where every
    row of a live disjunct is <= threshold in float64; it is written to ``point``.  ``abandoned`` (disjuncts,) is set
    for disjuncts that were open in a box too small to split.
    Returns (code, depth, boxes visited, boxes too small to split, disjunct of the candidate).
    """
    D = stack_lo.shape[1]
    layers = W.shape[0]
    width = W.shape[1]
    n_disjuncts = first_row.shape[0] - 1
    work = workspace(D, sizes, width)
    low = np.empty((layers, width))
    high = np.empty((layers, width))
    share = np.empty((layers, width, D))
    A = np.empty(width)
    B = np.empty(width)
    slope_in = np.empty(D)
    score = np.empty(D)
    best_score = np.empty(D)
    own_score = np.empty(D)
    corner = np.empty(D)
    own_corner = np.empty(D)
    lo = np.empty(D)
    hi = np.empty(D)
    own_lo = np.empty(D)
    own_hi = np.empty(D)
    hull_lo = np.empty(D)
    hull_hi = np.empty(D)
    live = np.empty(n_disjuncts, np.bool_)
    visited = 0
    stuck = 0
    while depth > 0:
        if visited >= budget:
            return BUDGET, depth, visited, stuck, -1
        if depth + 2 > stack_lo.shape[0]:
            return FULL, depth, visited, stuck, -1
        depth -= 1
        for i in range(D):
            lo[i] = stack_lo[depth, i]
            hi[i] = stack_hi[depth, i]
        for d in range(n_disjuncts):
            live[d] = stack_live[depth, d]
        any_live = True
        worst = np.inf
        for _ in range(CLIP_ROUNDS):
            visited += 1
            propagate(lo, hi, W, b, sizes, widen, work, low, high, share)
            any_live = False
            worst = np.inf
            for i in range(D):
                hull_lo[i] = np.inf
                hull_hi[i] = -np.inf
            for d in range(n_disjuncts):
                if not live[d]:
                    continue
                best = -np.inf
                for i in range(D):
                    own_lo[i] = lo[i]
                    own_hi[i] = hi[i]
                    own_corner[i] = lo[i]
                    own_score[i] = hi[i] - lo[i]
                for r in range(first_row[d], first_row[d + 1]):
                    bound = row_bound(
                        lo, hi, W, b, sizes, low, high, share, rows[r], constants[r], input_rows[r],
                        A, B, slope_in, score,
                    )  # fmt: skip
                    if bound > row_error[r]:
                        live[d] = False
                        break
                    if bound > best or best == -np.inf:
                        best = bound
                        for i in range(D):
                            own_score[i] = score[i]
                            own_corner[i] = lo[i] if slope_in[i] > 0.0 else hi[i]
                    for i in range(D):
                        s = slope_in[i]
                        if abs(s) < 1e-100:
                            continue
                        # The row needs s x_i <= -(rest at its least); ``slack`` keeps what rounding might cut off.
                        rest = bound - (s * lo[i] if s > 0.0 else s * hi[i])
                        slack = row_error[r] + 1e-14 * (abs(rest) + abs(bound) + abs(s * lo[i]) + abs(s * hi[i]))
                        cut = (slack - rest) / s
                        cut += 1e-15 * abs(cut) if s > 0.0 else -1e-15 * abs(cut)
                        if s > 0.0:
                            own_hi[i] = min(own_hi[i], cut)
                        else:
                            own_lo[i] = max(own_lo[i], cut)
                if not live[d]:
                    continue
                for i in range(D):
                    if own_lo[i] > own_hi[i]:
                        live[d] = False
                if not live[d]:
                    continue
                any_live = True
                if best < worst:
                    worst = best
                    best_score[:] = own_score
                    corner[:] = own_corner
                for i in range(D):
                    hull_lo[i] = min(hull_lo[i], own_lo[i])
                    hull_hi[i] = max(hull_hi[i], own_hi[i])
            if not any_live:
                break
            # Is a corner of the box where the bound is worst a counterexample?
            activations = hidden_output(corner, W, b, sizes, A, B)
            for d in range(n_disjuncts):
                if not live[d]:
                    continue
                satisfied = True
                for r in range(first_row[d], first_row[d + 1]):
                    total = constants[r]
                    for j in range(sizes[layers]):
                        total += rows[r, j] * activations[j]
                    for i in range(D):
                        total += input_rows[r, i] * corner[i]
                    if total > threshold:
                        satisfied = False
                        break
                if satisfied:
                    for i in range(D):
                        point[i] = corner[i]
                        stack_lo[depth, i] = lo[i]
                        stack_hi[depth, i] = hi[i]
                    for e in range(n_disjuncts):
                        stack_live[depth, e] = live[e]
                    return CANDIDATE, depth + 1, visited, stuck, d
            kept = 1.0
            for i in range(D):
                if hi[i] > lo[i]:
                    kept *= (hull_hi[i] - hull_lo[i]) / (hi[i] - lo[i])
                lo[i] = hull_lo[i]
                hi[i] = hull_hi[i]
            if kept > 0.8:
                break
        if not any_live:
            continue
        dimension = -1
        top = -1.0
        for i in range(D):
            if hi[i] - lo[i] > min_width[i] and best_score[i] > top:
                top = best_score[i]
                dimension = i
        if dimension < 0:
            # Too small to split: its open disjuncts stay undecided for good.
            stuck += 1
            for d in range(n_disjuncts):
                abandoned[d] = abandoned[d] or live[d]
            continue
        middle = 0.5 * (lo[dimension] + hi[dimension])
        # The half with the corner where the bound is worst comes on top: counterexamples are found sooner there.
        corner_above = corner[dimension] > middle
        for child in range(2):
            stack_lo[depth, :] = lo
            stack_hi[depth, :] = hi
            if (child == 0) == corner_above:
                stack_hi[depth, dimension] = middle
            else:
                stack_lo[depth, dimension] = middle
            for d in range(n_disjuncts):
                stack_live[depth, d] = live[d]
            stack_bound[depth] = worst
            depth += 1
    return EXHAUSTED, 0, visited, stuck, -1
