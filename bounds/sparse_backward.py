"""CROWN's backward pass over regions of one box on sparse matrices, where dense tensors would carry mostly zeros.

The same bounds as ``crown.backward`` in another layout: coefficients [neurons, columns], one column per
region and row, every affine node a sparse matrix
in blocks (``blocks``), the loops compiled.  Three kinds of zeros are never touched: neurons outside a row's receptive
field, neurons that are inactive all over the box, and the padding of convolutions.

Rounding is accounted for as in ``crown``: the same sums of products, in another order, which ``rounding`` allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
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

COLUMNS = 128
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

    @cached_property
    def entries(self) -> int:
        """Of all of them; products of a pass from the output, but for zeros."""
        return sum(_entries(self.network, k) for k in range(len(self.network.nodes)))

    @cached_property
    def suitable(self) -> bool:
        """Whether there are convolutions, and not more entries than shall be kept."""
        convolved = any(isinstance(node.operator, Conv) for node in self.network.nodes)
        return convolved and self.entries <= MOST_ENTRIES

    def pay_off(self, index: int, rows: int) -> bool:
        """Whether so many rows from this node back are worth building them."""
        if self._blocks:
            return True
        products = rows * sum(_entries(self.network, k) for k in range(index + 1))
        return self.suitable and products >= WORTH


@dataclass(frozen=True, eq=False)
class _Line:
    """The lines of one ReLU node.  open: neurons that are not the same constant or identity in all columns.

    slot: per neuron its row in the arrays [V, columns] of lower slopes, upper slopes, intercepts and multipliers; -1
    for others.  wanted: neurons that have coefficients at all.
    """

    open: NDArray[np.intp]
    slot: NDArray[np.int64]
    wanted: Mask
    parts: tuple[Array, Array, Array, Array]

    def at(self, columns: slice) -> tuple[Array, ...]:
        return tuple(np.ascontiguousarray(part[:, columns]) for part in self.parts)


def sparse_backward(
    matrices: Matrices,
    relaxed: Relaxed,
    start: int,
    rows: Tensor,
    input_rows: Tensor | None = None,
    visit: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients [B, R, n_inputs], constants and errors [B, R] of ``crown.backward``, with its arguments.

    All regions must lie in one box, whose bounds and sensitivities are those of ``relaxed``: [1, *shape].
    visit: is shown zeros for neurons that are decided in the same way in all regions.
    """
    network, count = relaxed.network, rows.shape[1]
    sizes = [rows.shape[0], *(line.upper_slope.shape[0] for line in relaxed.relaxations.values())]
    sizes += [part.shape[0] for part in relaxed.multipliers.values()]
    batch = max(sizes if input_rows is None else [*sizes, input_rows.shape[0]])
    one = _Pass(matrices, relaxed, start, batch, count)
    first = _columns(rows, batch, count)
    last = None if input_rows is None else _columns(input_rows, batch, count)
    total = batch * count
    coefficients, constants, error = np.zeros((total, network.n_inputs)), np.zeros(total), np.full(total, TINY)
    seen: dict[int, Array] | None = None if visit is None else {}
    for part in _parts(total):
        x = np.ascontiguousarray(first[:, part])
        more = None if last is None else np.ascontiguousarray(last[:, part])
        x, live = one.to_input((x, _nonzero(x)), more, part, constants[part], error[part], seen)
        kernel().transpose(x, live, coefficients[part])
    if visit is not None and seen is not None:
        for index in sorted(seen, reverse=True):
            visit(index, torch.from_numpy(seen[index]).reshape(batch, count, *network.nodes[index].shape))
    shape = (batch, count)
    return (
        torch.from_numpy(coefficients).reshape(*shape, -1),
        torch.from_numpy(constants).reshape(shape),
        torch.from_numpy(error).reshape(shape),
    )


def sparse_least(matrices: Matrices, relaxed: Relaxed, start: int, places: Tensor, sign: float) -> Tensor:
    """Lower bounds of ``sign * value`` at flat places of one node over the box: [1, len(places)]."""
    one = _Pass(matrices, relaxed, start, 1, len(places))
    box, size = [_flat(side) for side in (relaxed.bounds[0].lower, relaxed.bounds[0].upper)], one.size
    constants, error, chosen = np.zeros(len(places)), np.full(len(places), TINY), places.numpy()
    for part in _parts(len(places)):
        own = chosen[part]
        x, live = np.zeros((size, len(own))), np.zeros(size, dtype=np.bool_)
        x[own, np.arange(len(own))], live[own] = sign, True
        x, live = one.to_input((x, live), None, part, constants[part], error[part], None)
        kernel().least_over_box(x, live, *box, constants[part])
    # The factor covers the rounding of the error's own evaluation.
    total = constants - 1.001 * error
    return torch.from_numpy(np.nan_to_num(total, nan=-np.inf, neginf=-np.inf, posinf=-np.inf))[None]


def _parts(total: int) -> Iterator[slice]:
    return (slice(at, min(at + COLUMNS, total)) for at in range(0, total, COLUMNS))


class _Pass:
    """A pass of B regions times R rows, some of these columns at a time."""

    def __init__(self, matrices: Matrices, relaxed: Relaxed, start: int, batch: int, count: int) -> None:
        self._matrices, self._network, self._start, self._total = matrices, relaxed.network, start, batch * count
        self._lines = {k: _line(relaxed, k, batch, count) for k in relaxed.relaxations if k <= start}
        nodes = self._network.nodes[: start + 1]
        rho = [relaxed.sensitivities[k] for k in range(start + 1)]
        self._rho = [np.zeros(node.size) if r is None else _flat(r) for node, r in zip(nodes, rho, strict=True)]
        self._bounds = relaxed.bounds
        self._sizes: dict[int, Array] = {}

    @property
    def size(self) -> int:
        """Of the node that passes start from."""
        return self._network.nodes[self._start].size

    def to_input(
        self,
        first: tuple[Array, Mask],
        last: Array | None,
        columns: slice,
        constants: Array,
        error: Array,
        seen: dict[int, Array] | None,
    ) -> tuple[Array, Mask]:
        """Coefficients on the inputs, and which are there at all; constants and error grow in place.

        first: coefficients on the start, changed in place.  last: on the inputs.  seen: gets those on ReLU nodes.
        """
        pending = {self._start: first}
        for index in range(self._start, 0, -1):
            if index not in pending:
                continue
            x, live = pending.pop(index)
            node = self._network.nodes[index]
            if isinstance(node.operator, Relu):
                if seen is not None:
                    self._show(seen, index, x, live, columns)
                parts = [self._replace_relu(index, x, live, columns, constants, error)]
            else:
                kernel().account(x, live, self._matrices.offset(index), self._rho[index], constants, error)
                parts = self._step(index, x, live)
            for source, part in zip(node.inputs, parts, strict=True):
                self._arrive(pending, source, part, error)
        if last is not None:
            self._arrive(pending, 0, (last, _nonzero(last)), error)
        nothing = np.zeros(self._network.n_inputs, dtype=np.bool_)
        x, live = pending.pop(0, (np.zeros((len(nothing), len(constants))), nothing))
        kernel().account(x, live, self._matrices.offset(0), self._rho[0], constants, error)
        return x, live

    def _show(self, seen: dict[int, Array], index: int, x: Array, live: Mask, columns: slice) -> None:
        """Keep the coefficients of open neurons."""
        table = seen.setdefault(index, np.zeros((self._total, len(live))))
        there = self._lines[index].open
        there = there[live[there]]
        table[columns, there] = x[there].T

    def _replace_relu(
        self, index: int, x: Array, live: Mask, columns: slice, constants: Array, error: Array
    ) -> tuple[Array, Mask]:
        line, source = self._lines[index], self._network.nodes[index].inputs[0]
        live &= line.wanted
        kernel().replace_relus(
            x, live, line.slot, *line.at(columns), self._size(source), self._rho[index], constants, error
        )
        return x, live

    def _step(self, index: int, x: Array, live: Mask) -> list[tuple[Array, Mask]]:
        """Coefficients on the values of the sources of an affine node."""
        node = self._network.nodes[index]
        if isinstance(node.operator, Reshape | Sum):
            # Arrays are changed in place from here on, so only one source may have this one.
            return [(x, live)] + [(x.copy(), live.copy()) for _ in node.inputs[1:]]
        found = []
        for source, blocks in zip(node.inputs, self._matrices.blocks(index), strict=True):
            size = self._network.nodes[source].size
            wanted = self._lines[source].wanted if source in self._lines else np.ones(size, dtype=np.bool_)
            part, live_part = np.empty((size, x.shape[1])), np.empty(size, dtype=np.bool_)
            kernel().multiply(*blocks.arrays, x, live, wanted, part, live_part)
            found.append((part, live_part))
        return found

    def _arrive(
        self, pending: dict[int, tuple[Array, Mask]], source: int, part: tuple[Array, Mask], error: Array
    ) -> None:
        if source in pending:
            kernel().add(*pending[source], *part, self._size(source), error)
        else:
            pending[source] = part

    def _size(self, index: int) -> Array:
        """Bounds of the absolute values of a node."""
        if index not in self._sizes:
            self._sizes[index] = _flat(magnitude(self._bounds[index]))
        return self._sizes[index]


def kernel() -> ModuleType:
    """The compiled loops; the first import compiles them, or loads them from numba's cache."""
    from verifier.bounds import blocks_kernel

    return blocks_kernel


def _line(relaxed: Relaxed, index: int, batch: int, count: int) -> _Line:
    line, multiplier = relaxed.relaxations[index], relaxed.multipliers.get(index)
    # Where a neuron is decided its line is exact, from below and from above: 0 or the identity, whose slopes agree.
    upper, intercept = line.upper_slope.flatten(2), line.upper_intercept.flatten(2)
    undecided = ((intercept != 0) | ((upper != 0) & (upper != 1))).any(1).any(0)
    mixed = (upper != upper[:1, :1]).any(1).any(0)
    split = torch.zeros_like(mixed) if multiplier is None else (multiplier.flatten(2) != 0).any(1).any(0)
    some = undecided | mixed | split
    places = torch.nonzero(some).squeeze(1)
    slot = torch.full((len(some),), -1).index_copy(0, places, torch.arange(len(places)))
    sides = [line.lower_slope, line.upper_slope, line.upper_intercept]
    sides.append(torch.zeros_like(line.upper_slope) if multiplier is None else multiplier)
    low, high, shift, weight = (_columns(side.flatten(2)[:, :, places], batch, count) for side in sides)
    wanted = (some | (upper[0, 0] != 0)).numpy()
    return _Line(places.numpy(), slot.numpy(), wanted, (low, high, shift, weight))


def _nonzero(x: Array) -> Mask:
    """The rows that have anything."""
    return np.asarray(x.any(axis=1), dtype=np.bool_)


def _columns(tensor: Tensor, batch: int, count: int) -> Array:
    """[B or 1, R or 1, *shape] as [size, B R]."""
    flat = tensor.flatten(2).expand(batch, count, -1)
    return np.asarray(flat.reshape(batch * count, -1).numpy().T)


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
