"""A program of gates as a mixed-integer program: big-M rows with the smallest M that interval bounds allow.

    bit_j = 1  =>  w_j x >= t_j          w_j x >= low_j + (t_j - low_j) bit_j
    bit_j = 0  =>  w_j x <= t_j - 1      w_j x <= t_j - 1 + (high_j - t_j + 1) bit_j

(Fischetti and Jo 2018, for neurons with a step in place of a ReLU.)  All numbers are integers, so every coefficient is
exact in float64.  The columns are the levels, then the bits layer by layer.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from verifier.encodings.milp.model import MilpModel
from verifier.encodings.sat.program import Program


def gate_milp(program: Program) -> MilpModel:
    """A feasibility program: its cost is zero."""
    counts = program.counts.astype(np.float64)
    total = len(counts) + sum(len(layer) for layer in program.layers)
    upper = np.ones(total)
    upper[: len(counts)] = counts
    blocks, row_lower, row_upper = [], [], []
    start, before = 0, counts
    for depth, layer in enumerate(program.layers):
        first = start + len(before)
        weights = layer.weights.astype(np.float64)
        low, high = weights.minimum(0) @ before, weights.maximum(0) @ before
        thresholds = layer.thresholds.astype(np.float64)
        for diagonal, side_low, side_high in (
            (low - thresholds, low, np.full(len(layer), np.inf)),
            (thresholds - 1 - high, np.full(len(layer), -np.inf), thresholds - 1),
        ):
            blocks.append(_placed(weights, start, diagonal, first, total))
            row_lower.append(side_low)
            row_upper.append(side_high)
        # What gates imply of each other: a clause of literals is a row, with 1 - bit for a negated one.
        clauses = program.implications[depth]
        signs = np.sign(clauses).astype(np.float64).reshape(-1)
        columns = first + np.abs(clauses).reshape(-1) - 1
        numbers = np.repeat(np.arange(len(clauses)), 2)
        blocks.append(sp.csr_array((signs, (numbers, columns)), shape=(len(clauses), total)))
        row_lower.append(1.0 - (clauses < 0).sum(axis=1))
        row_upper.append(np.full(len(clauses), np.inf))
        start, before = first, np.ones(len(layer))
    weights = program.asserted.weights.astype(np.float64)
    blocks.append(_placed(weights, start, None, 0, total))
    row_lower.append(program.asserted.thresholds.astype(np.float64))
    row_upper.append(np.full(len(program.asserted), np.inf))
    rows = sp.csr_array(sp.vstack(blocks))
    rows.eliminate_zeros()
    return MilpModel(
        cost=np.zeros(total),
        offset=0.0,
        lower=np.zeros(total),
        upper=upper,
        integral=np.ones(total, bool),
        rows=rows,
        row_lower=np.concatenate(row_lower),
        row_upper=np.concatenate(row_upper),
        row_error=np.zeros(rows.shape[0]),
    )


def _placed(weights: sp.csr_array, start: int, diagonal: np.ndarray | None, first: int, total: int) -> sp.csr_array:
    """Rows over all columns: weights from column ``start`` on, a diagonal from column ``first`` on."""
    count, width = weights.shape
    parts = [sp.csr_array((count, start)), weights]
    if diagonal is None:
        parts.append(sp.csr_array((count, total - start - width)))
    else:
        gap = first - start - width
        parts += [
            sp.csr_array((count, gap)),
            sp.csr_array(sp.diags_array(diagonal)),
            sp.csr_array((count, total - first - count)),
        ]
    return sp.csr_array(sp.hstack(parts))
