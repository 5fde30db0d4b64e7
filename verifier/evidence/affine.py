"""The lowered network as matrices: all that the checker knows of a model.

Every node is the input, a ReLU, or ``z = sum over sources of M_i x_i + b``.  The exact entries of M_i differ from the
stored ones by at most ``ulps`` units of 2**-53 relative, those of b by at most ``offset_error``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.model.network import Network
from verifier.model.operators import Input, Relu

Array = NDArray[np.float64]
Matrix = Array | sp.csr_array

DENSE_SHARE = 0.2
"""Matrices with a larger share of entries are multiplied as dense ones."""


@dataclass(frozen=True, eq=False)
class Node:
    """sources: positions of what it reads.  matrices: one (size, source size) per source; none for input and ReLU.

    offset, offset_error: (size,).  terms: of the longest sum in a product with a matrix from either side.
    """

    size: int
    sources: tuple[int, ...]
    relu: bool = False
    matrices: tuple[Matrix, ...] = ()
    magnitudes: tuple[Matrix, ...] = ()
    offset: Array | None = None
    offset_error: Array | None = None
    terms: int = 1

    def total(self, parts: list[Array], absolute: bool = False) -> Array:
        """Sum of the products of the matrices, or of their absolute values, with one vector per source."""
        matrices = self.magnitudes if absolute else self.matrices
        return np.sum([matrix @ part for matrix, part in zip(matrices, parts, strict=True)], axis=0)


def matrices_of(network: Network) -> tuple[Node, ...]:
    """The nodes of a lowered network (float64, CPU), in its order."""
    found: list[Node] = []
    for index, node in enumerate(network.nodes):
        operator = node.operator
        if isinstance(operator, Input | Relu):
            found.append(Node(node.size, tuple(node.inputs), isinstance(operator, Relu)))
            continue
        sparse = operator.matrix(network.input_shapes(index))
        offset = operator.offset(node.shape)
        b = np.zeros(node.size) if offset is None else offset.reshape(-1).numpy().astype(np.float64)
        slack = operator.offset_error
        error = np.zeros(node.size) if slack is None else slack.expand(node.shape).reshape(-1).numpy()
        longest = max(int(np.diff(m.indptr).max(initial=1)) for m in (*sparse, *(sp.csr_array(m.T) for m in sparse)))
        kept = tuple(_convenient(matrix) for matrix in sparse)
        sizes = tuple(np.abs(m) if isinstance(m, np.ndarray) else sp.csr_array(abs(m)) for m in kept)
        terms = longest + operator.ulps + len(sparse)
        found.append(Node(node.size, tuple(node.inputs), False, kept, sizes, b, error, terms))
    return tuple(found)


def _convenient(matrix: sp.csr_array) -> Matrix:
    rows, columns = matrix.shape
    return matrix.toarray() if matrix.nnz > DENSE_SHARE * rows * columns else matrix
