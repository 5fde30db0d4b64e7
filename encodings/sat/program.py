"""A program of gates: what every engine for binarised networks is given.

    levels     0 <= k_i <= counts[i], integers
    layers     bit_j = [ sum_i weights[j, i] * before_i >= thresholds[j] ], the first layer over the levels
    asserted   sum_i weights[r, i] * bit_i >= thresholds[r] over the last layer's bits, for every row r

The question is whether levels exist for which all asserted rows hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """``weights @ before >= thresholds``: weights (rows, before) integers in CSR form, thresholds (rows,)."""

    weights: sp.csr_array
    thresholds: Integers

    def __len__(self) -> int:
        return len(self.thresholds)

    def __call__(self, before: NDArray) -> NDArray[np.bool_]:
        """(B, rows) for (B, before)."""
        return self.thresholds <= (self.weights @ np.asarray(before).astype(np.int64).T).T

    def row(self, index: int) -> tuple[Integers, Integers, int]:
        """Columns, weights and threshold of one row."""
        part = slice(self.weights.indptr[index], self.weights.indptr[index + 1])
        return self.weights.indices[part].astype(np.int64), self.weights.data[part], int(self.thresholds[index])


@dataclass(frozen=True, eq=False)
class Program:
    """counts: (levels,), each at least 1."""

    counts: Integers
    layers: tuple[Rows, ...]
    asserted: Rows

    def bits(self, levels: NDArray) -> list[NDArray[np.bool_]]:
        """The bits of every layer, (B, rows) each, for levels (B, levels)."""
        found, before = [], np.asarray(levels)
        for layer in self.layers:
            before = layer(before)
            found.append(before)
        return found

    def holds(self, levels: NDArray) -> NDArray[np.bool_]:
        """(B,), whether all asserted rows hold at levels (B, levels)."""
        before = self.bits(levels)[-1] if self.layers else np.asarray(levels)
        return np.asarray(self.asserted(before).all(axis=1))

    @cached_property
    def implications(self) -> tuple[Integers, ...]:
        """Per layer what its gates imply of each other: clauses (n, 2) of signed gates, counted from 1."""
        from verifier.encodings.sat.dominance import implications

        upper = [self.counts, *(np.ones(len(layer), np.int64) for layer in self.layers)]
        return tuple(implications(layer, top) for layer, top in zip(self.layers, upper, strict=False))

    @property
    def size(self) -> str:
        """``312 levels, 96 + 48 + 9 gates``."""
        return f"{len(self.counts)} levels, {' + '.join(str(len(layer)) for layer in self.layers) or 'no'} gates"
