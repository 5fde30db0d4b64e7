"""ReLU networks as mixed-integer programs: the big-M encoding with asymmetric bounds.

Tjeng, Xiao and Tedrake, "Evaluating Robustness of Neural Networks with Mixed Integer Programming" (ICLR
2019), section 4.1.  For ``y = max(z, 0)`` with ``l <= z <= u``:

    u <= 0            y = 0                                   stably inactive
    l >= 0            y = z                                   stably active
    l < 0 < u         y >= z,  y <= z - l (1 - a),  y <= u a,  y >= 0,  a in {0, 1}         (their equation 6)

With a in [0, 1] instead the projection on (z, y) is exactly the triangle relaxation (eliminate a: it may be
anything between y / u and 1 + (y - z) / l), so the linear relaxation of an encoding needs no rows of its own.

The walk keeps every node's value as a sparse affine expression over the columns: an affine operator is a
product with its matrix and costs neither a row nor a column, so sums, concatenations and residual
connections need no rule of their own.  A row ``z = expression`` is made where an expression of several
columns meets a ReLU; one of a single column goes straight through.  The paper gives every layer its own
variables instead.

Invariant: for every input in the box, the columns' true values are feasible, given that ``bounds`` hold.
The coefficients are those of the float64 network; products of matrices along a chain of affine operators
are rounded to float64, so nothing derived from an encoding is rigorous by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.bounds.level import Bounds
from verifier.encodings.milp.columns import Columns, Kind
from verifier.encodings.milp.model import MilpModel
from verifier.model.network import Network
from verifier.model.operators import Affine, Input, Relu

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Expression:
    """``matrix @ columns + constant``: the value of a node, one row per entry in C order.

    matrix: CSR (size, n); constant: (size,).
    """

    matrix: sp.csr_array
    constant: Array

    def ranges(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Interval bounds of every entry, (size,) each, over a box of the columns; rounding not covered."""
        positive, negative = self.matrix.maximum(0), self.matrix.minimum(0)
        return (
            positive @ lower + negative @ upper + self.constant,
            positive @ upper + negative @ lower + self.constant,
        )


@dataclass(frozen=True, eq=False)
class Encoding:
    """The values a network can take on a box, up to one node.

    model: feasible exactly for the network's values (within the relaxation ``bounds`` imply); no cost yet.
    columns: what each column means.
    value: the value of node ``node`` over the columns.
    """

    network: Network
    node: int
    model: MilpModel
    columns: Columns
    value: Expression


def encode(
    network: Network,
    lower: Array,
    upper: Array,
    bounds: Sequence[Bounds],
    until: int | None = None,
) -> Encoding:
    """The big-M encoding of ``network`` on the box ``lower <= x <= upper``.

    lower, upper: (n_inputs,), finite.
    bounds: one entry per node, tensors [1, *shape]; only those of values that enter a ReLU are read.
    until: the node to stop at, of which the result holds the value; the output if None.  Nodes that it
        does not depend on are left out, and so are bounds on its own value.
    """
    last = len(network.nodes) - 1 if until is None else until
    needed = ancestors(network, last)
    # Every ReLU neuron gets at most three columns; with the width known, matrices never need to grow.
    width = network.n_inputs + 3 * sum(network.nodes[i].size for i in network.relus if i in needed)
    builder = _Builder(width)
    builder.add_columns(Columns.block(Kind.INPUT, 0, np.arange(network.n_inputs)), lower, upper)
    values: dict[int, Expression] = {}
    for index in sorted(needed):
        node = network.nodes[index]
        operator = node.operator
        if isinstance(operator, Input):
            values[index] = Expression(_selection(np.arange(node.size), width), np.zeros(node.size))
        elif isinstance(operator, Relu):
            source = node.inputs[0]
            below, above = _flat(bounds[source])
            values[index] = _relu(builder, index, values[source], below, above)
        else:
            sources = [values[source] for source in node.inputs]
            values[index] = _affine(operator, sources, network.input_shapes(index), node.shape)
    model, columns = builder.finish()
    value = values[last]
    trimmed = Expression(value.matrix[:, : len(columns)], value.constant)
    return Encoding(network, last, model, columns, trimmed)


def ancestors(network: Network, index: int) -> set[int]:
    """The nodes that ``index`` depends on, itself and the input included."""
    needed = {0, index}
    for i in range(index, 0, -1):
        if i in needed:
            needed.update(network.nodes[i].inputs)
    return needed


class _Builder:
    """Columns and rows as they come, in blocks, over matrices of one fixed width."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.n_columns = 0
        self._columns: list[Columns] = []
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._rows: list[sp.csr_array] = []
        self._row_lower: list[Array] = []
        self._row_upper: list[Array] = []

    def add_columns(self, columns: Columns, lower: Array, upper: Array) -> NDArray[np.int64]:
        """New columns with their bounds; where they stand."""
        places = self.n_columns + np.arange(len(columns))
        self.n_columns += len(columns)
        self._columns.append(columns)
        self._lower.append(lower)
        self._upper.append(upper)
        return places

    def add_rows(self, rows: sp.csr_array, lower: Array, upper: Array) -> None:
        """``lower <= rows @ columns <= upper``; rows: CSR (r, width)."""
        self._rows.append(rows)
        self._row_lower.append(lower)
        self._row_upper.append(upper)

    def finish(self) -> tuple[MilpModel, Columns]:
        columns = Columns.joined(self._columns)
        empty = sp.csr_array((0, self.width))
        rows = sp.csr_array(sp.vstack([empty, *self._rows], format="csr"))[:, : self.n_columns]
        model = MilpModel(
            cost=np.zeros(self.n_columns),
            offset=0.0,
            lower=np.concatenate(self._lower),
            upper=np.concatenate(self._upper),
            integral=columns.kind == Kind.ACTIVE,
            rows=rows,
            row_lower=np.concatenate([np.zeros(0), *self._row_lower]),
            row_upper=np.concatenate([np.zeros(0), *self._row_upper]),
        )
        return model, columns


def _affine(
    operator: Affine, sources: list[Expression], shapes: tuple[tuple[int, ...], ...], shape: tuple[int, ...]
) -> Expression:
    offset = operator.offset(shape)
    if offset is None:
        constant = np.zeros(int(np.prod(shape)))
    else:
        constant = offset.detach().cpu().double().numpy().reshape(-1).copy()
    total: sp.csr_array | None = None
    for matrix, source in zip(operator.matrix(shapes), sources, strict=True):
        part = sp.csr_array(matrix @ source.matrix)
        total = part if total is None else sp.csr_array(total + part)
        constant += matrix @ source.constant
    assert total is not None
    total.eliminate_zeros()  # x - x, or a weight of 0: not a column that the value depends on
    return Expression(total, constant)


def _relu(builder: _Builder, node: int, source: Expression, below: Array, above: Array) -> Expression:
    """The value of one ReLU node; adds its columns and rows.  below, above: (size,) bounds on ``source``."""
    inactive = above <= 0
    unstable = (below < 0) & ~inactive
    pre = _pre_activation(builder, node, source, below, above, ~inactive)

    neurons = np.flatnonzero(unstable)
    l, u = below[neurons], above[neurons]
    post = builder.add_columns(Columns.block(Kind.POST, node, neurons), np.zeros(len(neurons)), u)
    active = builder.add_columns(
        Columns.block(Kind.ACTIVE, node, neurons), np.zeros(len(neurons)), np.ones(len(neurons))
    )
    y = _selection(post, builder.width)
    a = _selection(active, builder.width)
    z, constant = pre.matrix[neurons], pre.constant[neurons]
    infinite = np.full(len(neurons), np.inf)
    builder.add_rows(sp.csr_array(y - z), constant, infinite)
    builder.add_rows(sp.csr_array(y - z - sp.diags_array(l) @ a), -infinite, constant - l)
    builder.add_rows(sp.csr_array(y - sp.diags_array(u) @ a), -infinite, np.zeros(len(neurons)))

    # Stably active neurons keep z, inactive ones become 0, unstable ones y.
    keep = sp.diags_array((~inactive & ~unstable).astype(float))
    spread = _selection(neurons, len(below)).T
    matrix = sp.csr_array(keep @ pre.matrix + spread @ y)
    matrix.eliminate_zeros()
    return Expression(matrix, np.where(inactive | unstable, 0.0, pre.constant))


def _pre_activation(
    builder: _Builder, node: int, source: Expression, below: Array, above: Array, wanted: NDArray[np.bool_]
) -> Expression:
    """``source`` with a column of its own for every wanted entry that combines several columns."""
    combined = wanted & (np.diff(source.matrix.indptr) > 1)
    neurons = np.flatnonzero(combined)
    places = builder.add_columns(Columns.block(Kind.PRE, node, neurons), below[neurons], above[neurons])
    z = _selection(places, builder.width)
    constant = source.constant[neurons]
    builder.add_rows(sp.csr_array(z - source.matrix[neurons]), constant, constant)
    keep = sp.diags_array((~combined).astype(float))
    matrix = sp.csr_array(keep @ source.matrix + _selection(neurons, len(below)).T @ z)
    matrix.eliminate_zeros()
    return Expression(matrix, np.where(combined, 0.0, source.constant))


def _selection(places: NDArray[np.int64], width: int) -> sp.csr_array:
    """Row i selects entry ``places[i]``: CSR (len(places), width)."""
    count = len(places)
    return sp.csr_array((np.ones(count), places, np.arange(count + 1)), shape=(count, width))


def _flat(bounds: Bounds) -> tuple[Array, Array]:
    lower, upper = bounds.lower, bounds.upper
    assert lower.shape[0] == 1, "an encoding is of one region, not of a batch"
    return (
        lower.detach().cpu().double().numpy().reshape(-1),
        upper.detach().cpu().double().numpy().reshape(-1),
    )
