"""A ReLU network as a triangular system, and the smaller system that does the same on a smaller box.

Neuron j of n is z_j = a_j . x + sum over earlier u of C_ju y_u + c_j with y = max(z, 0).  On a box where a neuron is
inactive it can be dropped, where it is active its row can be put in its place (network reduction, Zhong et al.,
"Expediting Neural Network Verification via Network Reduction", FMCAD 2023): on small boxes ten neurons are left of
three hundred, and everything that input splitting does there becomes so much cheaper.

Rigour.  A system is known up to ``defects``: on its box, at the true activations, row j errs by at most defects[j].
Substitution adds the rounding of the new coefficients to them.  ``_account`` turns defects into bounds on all that
rounding can do to a zonotope and a backward pass (``zonotope_kernel``) in any box inside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from verifier.search.compiled import OPTIONS

UNIT = 2.0**-53
SAFETY = 1.01
"""Covers the rounding of the error bounds' own evaluation."""


class System(NamedTuple):
    """A triangular system of n neurons over D inputs, with m rows to bound; made by ``root_system``.

    starts (layers + 1,): neurons of layer h are starts[h] .. starts[h + 1]; they do not depend on each other.
    first, reach (layers,): the first neuron that layer h reads, and the end of those that read layer h.
    weights (n, D + n): inputs, then neurons; transposed (D + n, n): the same.  constants, defects, widen (n,).
    rows (m, D + n); row_constants, row_defects, row_error (m,).
    base: boxes of the stack from here on lie in the box of the system.
    """

    starts: Any
    first: Any
    reach: Any
    weights: Any
    transposed: Any
    constants: Any
    defects: Any
    widen: Any
    rows: Any
    row_constants: Any
    row_defects: Any
    row_error: Any
    base: int


@njit(**OPTIONS)
def _account(D, constants, defects, weights, rows, row_constants, row_defects, largest, widen, row_error):
    """Fills widen and row_error for all boxes in which |x| <= largest (D,).

    total bounds |centre| + sum |generators| of a neuron and so its value; a ReLU does not increase it.  delta: how
    far the computed zonotope may be from one that contains the true values.  In a backward pass a coefficient is at
    most S = |row| plus what later neurons hand down, since slopes are at most 1; each step errs by S times the
    neuron's defect and the rounding of what is added.
    """
    n = constants.shape[0]
    g = 2.0 * (D + n + 8) * UNIT
    before, after, delta, S = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for j in range(n):
        total = abs(constants[j])
        error = defects[j]
        for i in range(D):
            value = abs(weights[j, i]) * largest[i]
            total += value
            error += 8 * UNIT * value
        for u in range(j):
            size = abs(weights[j, D + u])
            total += size * after[u]
            error += size * delta[u]
        total *= SAFETY
        error = SAFETY * (error + g * total)
        widen[j] = SAFETY * (error + 2 * g * total)
        before[j] = total + widen[j]
        delta[j] = error + 32 * UNIT * before[j]
        after[j] = total + 4 * widen[j]
    for r in range(rows.shape[0]):
        error = row_defects[r] + 8 * g * abs(row_constants[r])
        for i in range(D):
            error += 8 * g * abs(rows[r, i]) * largest[i]
        for u in range(n):
            S[u] = abs(rows[r, D + u])
            error += 8 * g * S[u] * after[u]
        for j in range(n - 1, -1, -1):
            if S[j] == 0.0:
                continue
            error += SAFETY * S[j] * (defects[j] + 8 * g * before[j])
            for u in range(j):
                S[u] += S[j] * abs(weights[j, D + u])
        row_error[r] = SAFETY * error + 1e-290


@njit(**OPTIONS)
def _finished(D, starts, weights, constants, defects, rows, row_constants, row_defects, largest, base):
    """The system with what follows from its coefficients."""
    n = constants.shape[0]
    layers = starts.shape[0] - 1
    first = np.zeros(layers, np.int64)
    reach = starts[1:].copy()
    for h in range(layers):
        first[h] = starts[h]
        for j in range(starts[h], starts[h + 1]):
            for u in range(first[h]):
                if weights[j, D + u] != 0.0:
                    first[h] = u
                    break
    for h in range(layers):
        for later in range(h + 1, layers):
            if first[later] < starts[h + 1]:
                reach[h] = starts[later + 1]
    widen, row_error = np.empty(n), np.empty(rows.shape[0])
    _account(D, constants, defects, weights, rows, row_constants, row_defects, largest, widen, row_error)
    transposed = np.ascontiguousarray(weights.T)
    return System(
        starts, first, reach, weights, transposed, constants, defects, widen,
        rows, row_constants, row_defects, row_error, base,
    )  # fmt: skip


@njit(**OPTIONS)
def root_system(starts, weights, constants, defects, rows, row_constants, row_defects, largest):
    """A ``System`` on the box |x| <= largest (D,); its fields say the shapes."""
    D = largest.shape[0]
    return _finished(D, starts, weights, constants, defects, rows, row_constants, row_defects, largest, 0)


@njit(**OPTIONS)
def _rewritten(D, row, constant, defect, length, place, forms, form_of, high, largest, g, out):
    """A row over all neurons, written over those that stay; fills out, returns constant, defect, magnitude.

    place (n,): the neuron's place in the reduced system, -1 if active, -2 if inactive.  forms (n, D + kept) and
    form_of (n, 3): the rows of active neurons in new terms, with constant, defect and magnitude.
    """
    out[:] = 0.0
    magnitude = abs(constant)
    for i in range(D):
        out[i] = row[i]
        magnitude += abs(row[i]) * largest[i]
    for u in range(length):
        c = row[D + u]
        if c == 0.0 or place[u] == -2:
            continue
        if place[u] >= 0:
            out[D + place[u]] += c
            magnitude += abs(c) * high[u]
        else:
            form = forms[u]
            for i in range(out.shape[0]):
                out[i] += c * form[i]
            constant += c * form_of[u, 0]
            defect += abs(c) * form_of[u, 1]
            magnitude += abs(c) * form_of[u, 2]
    return constant, SAFETY * (defect + g * magnitude), SAFETY * magnitude


@njit(**OPTIONS)
def reduced(D, system, low, high, largest, base):
    """The system on a box with pre-activation bounds low, high (n,) and |x| <= largest, of unstable neurons only."""
    n = system.constants.shape[0]
    layers = system.starts.shape[0] - 1
    m = system.rows.shape[0]
    place = np.empty(n, np.int64)
    starts = np.zeros(layers + 1, np.int64)
    kept = 0
    for h in range(layers):
        for j in range(system.starts[h], system.starts[h + 1]):
            place[j] = -2
            if high[j] > 0.0:
                place[j] = -1
                if low[j] < 0.0:
                    place[j] = kept
                    kept += 1
        starts[h + 1] = kept
    g = 2.0 * (D + n + 8) * UNIT
    forms, form_of = np.empty((n, D + kept)), np.empty((n, 3))
    weights, constants, defects = np.empty((kept, D + kept)), np.empty(kept), np.empty(kept)
    for h in range(layers):
        length = system.starts[h]
        for j in range(length, system.starts[h + 1]):
            k = place[j]
            if k == -2:
                continue
            row, constant, defect = system.weights[j], system.constants[j], system.defects[j]
            if k == -1:
                form_of[j, 0], form_of[j, 1], form_of[j, 2] = _rewritten(
                    D, row, constant, defect, length, place, forms, form_of, high, largest, g, forms[j]
                )
            else:
                constants[k], defects[k], _ = _rewritten(
                    D, row, constant, defect, length, place, forms, form_of, high, largest, g, weights[k]
                )
    rows, row_constants, row_defects = np.empty((m, D + kept)), np.empty(m), np.empty(m)
    for r in range(m):
        row_constants[r], row_defects[r], _ = _rewritten(
            D, system.rows[r], system.row_constants[r], system.row_defects[r], n,
            place, forms, form_of, high, largest, g, rows[r],
        )  # fmt: skip
    return _finished(D, starts, weights, constants, defects, rows, row_constants, row_defects, largest, base)
