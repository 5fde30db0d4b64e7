"""Sparse matrices in blocks: rows with the same pattern of columns together, as supernodes of sparse solvers.

A convolution read as a matrix has one block per place of the feature map, a dense layer is one block.  Within a block
a product is dense, so that registers are reused; between blocks nothing is wasted on zeros; and rows or columns that do
not count in some product, such as those of inactive neurons, are left out of it without building another matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Blocks:
    """Block b has the rows rows[row_start[b] : row_start[b + 1]], likewise columns, and values from value_start[b] on.

    values: of all blocks, each row by row.
    """

    shape: tuple[int, int]
    rows: NDArray[np.int32]
    row_start: NDArray[np.int64]
    columns: NDArray[np.int32]
    column_start: NDArray[np.int64]
    values: NDArray[np.float64]
    value_start: NDArray[np.int64]

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """As the compiled loops take them."""
        return (self.rows, self.row_start, self.columns, self.column_start, self.values, self.value_start)


def blocks_of(matrix: sp.csr_array) -> Blocks:
    """The matrix with its rows grouped; entries that are stored, zero or not, make the pattern."""
    matrix = sp.csr_array(matrix)
    matrix.sort_indices()
    lengths = np.diff(matrix.indptr)
    order = np.lexsort((_fingerprints(matrix), lengths))
    order = order[lengths[order] > 0]
    own = lengths[order]
    places = np.repeat(matrix.indptr[order] - np.cumsum(own) + own, own) + np.arange(own.sum())
    starts = _runs(matrix.indices[places], own)
    heads = order[starts[:-1]]
    sizes = lengths[heads]
    columns = [matrix.indices[matrix.indptr[h] : matrix.indptr[h + 1]] for h in heads]
    return Blocks(
        (int(matrix.shape[0]), int(matrix.shape[1])),
        order.astype(np.int32),
        starts.astype(np.int64),
        np.concatenate([np.zeros(0, dtype=np.int32), *columns]).astype(np.int32),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        matrix.data[places].astype(np.float64),
        np.concatenate([[0], np.cumsum(sizes * np.diff(starts))]).astype(np.int64),
    )


def _fingerprints(matrix: sp.csr_array) -> NDArray[np.uint64]:
    """Equal for rows with equal columns; others may collide, which ``_runs`` notices."""
    words = np.random.default_rng(0).integers(0, 2**64, matrix.shape[1], dtype=np.uint64)
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(words[matrix.indices], dtype=np.uint64)])
    return np.asarray(sums[matrix.indptr[1:]] - sums[matrix.indptr[:-1]], dtype=np.uint64)


def _runs(columns: NDArray[np.int32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a new pattern begins among rows with these columns, of ascending lengths, and their number at the end."""
    if not len(lengths):
        return np.zeros(1, dtype=np.int64)
    ends = np.cumsum(lengths)
    before = np.maximum(np.arange(len(columns)) - np.repeat(lengths, lengths), 0)
    same = np.logical_and.reduceat(columns == columns[before], ends - lengths)
    # A row of another length than the one before has been compared with parts of others.
    same[1:] &= lengths[1:] == lengths[:-1]
    same[0] = False
    return np.append(np.flatnonzero(~same), len(lengths)).astype(np.int64)
