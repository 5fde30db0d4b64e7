"""CROWN's backward pass over one box on sparse matrices, where dense tensors would carry mostly zeros.

The same bounds as ``crown.backward`` in another layout: coefficients [neurons, rows], every affine node a sparse matrix
in blocks (``blocks``), the loops compiled.  Three kinds of zeros are never touched: neurons outside a row's receptive
field, neurons that are inactive all over the box, and the padding of convolutions.

Rounding is accounted for as in ``crown``: the same sums of products, in another order, which ``rounding`` allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.blocks import Blocks, blocks_of
from verifier.bounds.rounding import TINY, magnitude
from verifier.model.network import Network
from verifier.model.operators import Conv, Input, Relu, Reshape, Sum

if TYPE_CHECKING:
    from verifier.bounds.crown import Relaxed

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROWS = 128
"""Taken at once: enough for wide registers, few enough that the coefficients of a layer stay in cache."""
WORTH = 2**28
"""Products of dense passes from which on this pays for building the matrices, a tenth of a second."""
MOST_ENTRIES = 2**22
"""Of all matrices of a network: 64 MB, and twice that while they are built."""


class Matrices:
    """The affine nodes of a network as transposed matrices in blocks, and their offsets; each made when first asked."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._blocks: dict[int, tuple[Blocks, ...]] = {}
        self._offsets: dict[int, Array] = {}

    def blocks(self, index: int) -> tuple[Blocks, ...]:
        """One per source of the node."""
        if index not in self._blocks:
            operator = self.network.nodes[index].operator
            assert not isinstance(operator, Input | Relu)
            matrices = operator.matrix(self.network.input_shapes(index))
            self._blocks[index] = tuple(blocks_of(matrix.T.tocsr()) for matrix in matrices)
        return self._blocks[index]

    def offset(self, index: int) -> Array:
        """Of every neuron of the node."""
        if index not in self._offsets:
            node = self.network.nodes[index]
            offset = None if isinstance(node.operator, Input | Relu) else node.operator.offset(node.shape)
            self._offsets[index] = np.zeros(node.size) if offset is None else _flat(offset)
        return self._offsets[index]

    def pay_off(self, index: int, rows: int) -> bool:
        """Whether so many rows from this node back are worth building them, and they are not too large."""
        if self._blocks:
            return True
        nodes = self.network.nodes[: index + 1]
        entries = sum(_entries(self.network, k) for k in range(index + 1))
        convolved = any(isinstance(node.operator, Conv) for node in nodes)
        return convolved and entries <= MOST_ENTRIES and rows * entries >= WORTH


class SparsePass:
    """Passes from one node back to the input of a network relaxed over a single box, in float64."""

    def __init__(self, matrices: Matrices, relaxed: Relaxed, index: int) -> None:
        network, bounds = relaxed.network, relaxed.bounds
        self._matrices, self._network, self._index = matrices, network, index
        self._box = (_flat(bounds[0].lower), _flat(bounds[0].upper))
        self._rho: list[Array] = []
        self._size: list[Array] = []
        self._wanted: list[Mask] = []
        self._lines: dict[int, tuple[Array, ...]] = {}
        for k, node in enumerate(network.nodes[: index + 1]):
            rho = relaxed.sensitivities[k]
            self._rho.append(np.zeros(node.size) if rho is None else _flat(rho))
            self._size.append(_flat(magnitude(bounds[k])))
            self._wanted.append(np.ones(node.size, dtype=np.bool_))
            if k in relaxed.relaxations:
                line, pre = relaxed.relaxations[k], bounds[node.inputs[0]]
                parts = (pre.lower, line.lower_slope, line.upper_slope, line.upper_intercept)
                self._lines[k] = tuple(_flat(part) for part in parts)
                self._wanted[k] = _flat(pre.upper) > 0

    def extremes(self, places: Tensor, sign: float) -> Tensor:
        """Lower bounds of ``sign * value`` at some flat places of the node over the box: [1, len(places)]."""
        from verifier.bounds import blocks_kernel as kernel

        count, size = len(places), self._network.nodes[self._index].size
        rows, live = np.zeros((size, count)), np.zeros(size, dtype=np.bool_)
        rows[places.numpy(), np.arange(count)] = sign
        live[places.numpy()] = True
        constants, error = np.zeros(count), np.full(count, TINY)
        x, live = self._to_input(rows, live, constants, error)
        kernel.least_over_box(x, live, *self._box, constants)
        # The factor covers the rounding of the error's own evaluation.
        total = constants - 1.001 * error
        return torch.from_numpy(np.nan_to_num(total, nan=-np.inf, neginf=-np.inf, posinf=-np.inf))[None]

    def _to_input(self, rows: Array, live: Mask, constants: Array, error: Array) -> tuple[Array, Mask]:
        """Coefficients on the inputs, and which are there at all; constants and error grow in place."""
        from verifier.bounds import blocks_kernel as kernel

        count, inputs = rows.shape[1], self._network.n_inputs
        pending = {self._index: (rows, live)}
        for index in range(self._index, 0, -1):
            if index not in pending:
                continue
            x, live = pending.pop(index)
            node, rho = self._network.nodes[index], self._rho[index]
            if isinstance(node.operator, Relu):
                live = live & self._wanted[index]
                kernel.replace_relus(x, live, *self._lines[index], rho, constants, error)
                parts = [(x, live)]
            else:
                kernel.account(x, live, self._matrices.offset(index), rho, constants, error)
                parts = self._parts(index, x, live)
            for source, (part, live_part) in zip(node.inputs, parts, strict=True):
                if source in pending:
                    kernel.add(*pending[source], part, live_part, self._size[source], error)
                else:
                    pending[source] = (part, live_part)
        x, live = pending.pop(0, (np.empty((inputs, count)), np.zeros(inputs, dtype=np.bool_)))
        kernel.account(x, live, self._matrices.offset(0), self._rho[0], constants, error)
        return x, live

    def _parts(self, index: int, x: Array, live: Mask) -> list[tuple[Array, Mask]]:
        """Coefficients on the values of the sources of an affine node."""
        from verifier.bounds.blocks_kernel import multiply

        node = self._network.nodes[index]
        if isinstance(node.operator, Reshape | Sum):
            # Arrays are changed in place from here on, so only one source may have this one.
            return [(x, live)] + [(x.copy(), live.copy()) for _ in node.inputs[1:]]
        found = []
        for source, blocks in zip(node.inputs, self._matrices.blocks(index), strict=True):
            size = self._network.nodes[source].size
            part, live_part = np.empty((size, x.shape[1])), np.empty(size, dtype=np.bool_)
            multiply(*blocks.arrays, x, live, self._wanted[source], part, live_part)
            found.append((part, live_part))
        return found


def by_place(places: Tensor, shape: Sequence[int]) -> Tensor:
    """The places of a feature map [1, C, H, W] in another order, those of one point of the map together."""
    if len(shape) != 4:
        return places
    return places[torch.argsort(places % (shape[2] * shape[3]), stable=True)]


def _entries(network: Network, index: int) -> int:
    """Products of one step back through a node."""
    node = network.nodes[index]
    if isinstance(node.operator, Input | Relu | Reshape | Sum):
        return 0
    return node.size * node.operator.terms(network.input_shapes(index))


def _flat(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().reshape(-1).numpy(), dtype=np.float64)
