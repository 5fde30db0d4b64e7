"""The compiled loop of input splitting: bound, clip, split and reduce one box after another, depth first.

1. Zonotope and one backward pass per open row (``zonotope_kernel``).
2. The row's linear bound clips the box: points where it is positive cannot satisfy the row.  A disjunct's clips
   intersect, the box becomes the hull over the open disjuncts.
3. The dimension to split is the one that causes most relaxation error.
4. Where few of the system's neurons are unstable in a box, the boxes below it are worked on with a smaller system
   (``triangular``).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from verifier.search import triangular, zonotope_kernel
from verifier.search.compiled import OPTIONS, stamp
from verifier.search.triangular import reduced
from verifier.search.zonotope_kernel import new_scratch, propagate, row_bound, satisfied

EXHAUSTED, BUDGET, CANDIDATE, FULL = 0, 1, 2, 3
"""Why ``search`` returned: no box left, budget used, a point that seems to satisfy a disjunct, stack full."""

CLIP_ROUNDS = 2
REDUCE_BELOW = 0.6
"""A system is reduced where at most this share of its neurons is unstable."""


@njit(**OPTIONS)
def _clip(bound, error, slope, lo, hi, own_lo, own_hi):
    """Cut own_lo, own_hi (D,) to where the linear bound with this slope and least value over lo, hi is not positive."""
    for i in range(lo.shape[0]):
        s = slope[i]
        if abs(s) < 1e-100:
            continue
        # The row needs s x_i <= -(rest at its least); ``slack`` keeps what rounding might cut off.
        rest = bound - (s * lo[i] if s > 0.0 else s * hi[i])
        slack = error + 1e-14 * (abs(rest) + abs(bound) + abs(s * lo[i]) + abs(s * hi[i]))
        cut = (slack - rest) / s
        cut += 1e-15 * abs(cut) if s > 0.0 else -1e-15 * abs(cut)
        if s > 0.0:
            own_hi[i] = min(own_hi[i], cut)
        else:
            own_lo[i] = max(own_lo[i], cut)


@njit(**OPTIONS)
def _bound_disjunct(lo, hi, system, begin, end, hint, scratch, own_lo, own_hi, own_corner, own_score):
    """Bound the rows begin .. end of a disjunct over the box; returns whether it is open and its best bound.

    hint (1,): the row that closed the last box is tried first.  Fills own_lo, own_hi: the box clipped by all rows;
    own_corner, own_score: of the row with the best bound, where it is least and its splitting score.
    """
    D = lo.shape[0]
    best = -np.inf
    for i in range(D):
        own_lo[i] = lo[i]
        own_hi[i] = hi[i]
        own_corner[i] = lo[i]
        own_score[i] = hi[i] - lo[i]
    count = end - begin
    for turn in range(count):
        r = begin + (turn + hint[0]) % count
        bound = row_bound(lo, hi, system, r, scratch)
        if bound > system.row_error[r]:
            hint[0] = r - begin
            return False, bound
        if bound > best or best == -np.inf:
            best = bound
            for i in range(D):
                own_score[i] = scratch.score[i]
                own_corner[i] = lo[i] if scratch.slope[i] > 0.0 else hi[i]
        _clip(bound, system.row_error[r], scratch.slope, lo, hi, own_lo, own_hi)
    for i in range(D):
        if own_lo[i] > own_hi[i]:
            return False, best
    return True, best


@njit(**OPTIONS)
def _note(log, logged, code, position):
    """A node of the tree, where a log is kept."""
    if log.shape[0] > 0:
        log[logged[0], 0] = code
        log[logged[0], 1] = position
        logged[0] += 1


def _compiled(version: int):
    @njit(**OPTIONS)
    def search(
        stack_lo, stack_hi, stack_live, stack_bound, depth,
        root, first_row, threshold, min_width, budget, abandoned, hints, point, log, logged,
    ):  # fmt: skip
        """Work on the stack of boxes until it is empty, the budget of boxes is used or a candidate turns up.

        stack_lo, stack_hi: (capacity, D); stack_live: (capacity, disjuncts) bool; stack_bound: (capacity,) the bound
        that the parent had, less rounding.  root: a ``System`` for all of them.  rows of disjunct d: first_row[d] ..
        first_row[d + 1].  A candidate is a point where every row of a live disjunct is <= threshold in float64; it
        is written to ``point``.  ``abandoned`` (disjuncts,) is set for disjuncts that were open in a box too small
        to split.  hints (disjuncts, 1): memory of ``_bound_disjunct``.
        log (boxes, 2): nodes of the tree as docs/evidence.md says, how many in logged (1,); (0, 2) keeps no log.
        Returns (code, depth, boxes visited, boxes too small to split, disjunct of the candidate).
        """
        D = stack_lo.shape[1]
        n_disjuncts = first_row.shape[0] - 1
        scratch = new_scratch(D, root.constants.shape[0], root.starts.shape[0] - 1)
        best_score, own_score, largest = np.empty(D), np.empty(D), np.empty(D)
        corner, own_corner = np.empty(D), np.empty(D)
        lo, hi, own_lo, own_hi = np.empty(D), np.empty(D), np.empty(D), np.empty(D)
        hull_lo, hull_hi = np.empty(D), np.empty(D)
        live = np.empty(n_disjuncts, np.bool_)
        visited, stuck = min(0, version), 0
        systems = [root]
        while depth > 0:
            if visited >= budget:
                return BUDGET, depth, visited, stuck, -1
            if depth + 2 > stack_lo.shape[0]:
                return FULL, depth, visited, stuck, -1
            while depth <= systems[-1].base:
                systems.pop()
            system = systems[-1]
            depth -= 1
            lo[:] = stack_lo[depth]
            hi[:] = stack_hi[depth]
            live[:] = stack_live[depth]
            any_live, worst, unstable = True, np.inf, 0
            for _ in range(CLIP_ROUNDS):
                visited += 1
                unstable = propagate(lo, hi, system, scratch)
                any_live, worst = False, np.inf
                hull_lo[:] = np.inf
                hull_hi[:] = -np.inf
                for d in range(n_disjuncts):
                    if not live[d]:
                        continue
                    live[d], best = _bound_disjunct(
                        lo, hi, system, first_row[d], first_row[d + 1], hints[d], scratch,
                        own_lo, own_hi, own_corner, own_score,
                    )  # fmt: skip
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
                found = satisfied(corner, system, first_row, live, threshold, scratch.coefficients)
                if found >= 0:
                    point[:] = corner
                    stack_lo[depth] = lo
                    stack_hi[depth] = hi
                    stack_live[depth] = live
                    return CANDIDATE, depth + 1, visited, stuck, found
                kept = 1.0
                for i in range(D):
                    largest[i] = max(abs(lo[i]), abs(hi[i]))
                    if hi[i] > lo[i]:
                        kept *= (hull_hi[i] - hull_lo[i]) / (hi[i] - lo[i])
                    lo[i] = hull_lo[i]
                    hi[i] = hull_hi[i]
                if kept > 0.8:
                    break
            if not any_live:
                _note(log, logged, -1.0, 0.0)
                continue
            dimension, top = -1, -1.0
            for i in range(D):
                if hi[i] - lo[i] > min_width[i] and best_score[i] > top:
                    top = best_score[i]
                    dimension = i
            if dimension < 0:
                # Too small to split: its open disjuncts stay undecided for good.
                _note(log, logged, -2.0, 0.0)
                stuck += 1
                for d in range(n_disjuncts):
                    abandoned[d] = abandoned[d] or live[d]
                continue
            if system.constants.shape[0] > 0 and unstable <= REDUCE_BELOW * system.constants.shape[0]:
                # The bounds in scratch are those of the box before its last clip, and ``largest`` is too.
                systems.append(reduced(D, system, scratch.low, scratch.high, largest, depth))
            middle = 0.5 * (lo[dimension] + hi[dimension])
            # The half with the corner where the bound is worst comes on top: counterexamples are found sooner there.
            corner_above = corner[dimension] > middle
            _note(log, logged, dimension + (D if corner_above else 0), middle)
            for child in range(2):
                stack_lo[depth] = lo
                stack_hi[depth] = hi
                stack_live[depth] = live
                if (child == 0) == corner_above:
                    stack_hi[depth, dimension] = middle
                else:
                    stack_lo[depth, dimension] = middle
                stack_bound[depth] = worst - system.row_error.max()
                depth += 1
        return EXHAUSTED, 0, visited, stuck, -1

    return search


search = _compiled(stamp((triangular, zonotope_kernel)))
