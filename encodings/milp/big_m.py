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
connections need no rule of their own.  An unstable neuron brings columns z, y and a, and the row
``z = expression``; the paper gives every layer its own variables instead.  A stably active one brings a column
and a row only where that saves nonzeros, see ``builder``.

Invariant: for every input in the box, the columns' true values satisfy all bounds, and all rows up to their
``row_error``, given that ``bounds`` hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.bounds.level import Bounds, Level
from verifier.encodings.milp.builder import Builder
from verifier.encodings.milp.columns import Columns, Kind
from verifier.encodings.milp.expression import Expression, after, of_columns, selection
from verifier.encodings.milp.model import MilpModel
from verifier.model.network import Network
from verifier.model.operators import Input, Relu

Array = NDArray[np.float64]

MOST_ENTRIES = 30_000_000

LEAST_BOUND = 1e-9


@dataclass(frozen=True, eq=False)
class Encoding:
    """The values a network can take on a box, up to one node.

    model: the rows and bounds; its cost is zero.
    columns: what each column means.
    value: the value of node ``node`` over the columns.
    level: what the bounds that were used rest on; RIGOROUS means that the invariant holds in exact arithmetic.
    """

    network: Network
    node: int
    model: MilpModel
    columns: Columns
    value: Expression
    level: Level


def encode(
    network: Network,
    lower: Array,
    upper: Array,
    bounds: Sequence[Bounds],
    until: int | None = None,
) -> Encoding:
    """The big-M encoding of ``network`` on the box ``lower <= x <= upper``.

    lower, upper: (n_inputs,), finite.
    bounds: one entry per node, tensors [1, *shape]; only those of values that enter a ReLU are read, and
        they must be finite where the ReLU is unstable.
    until: the node to stop at, of which the result holds the value; the output if None.  Nodes that it
        does not depend on are left out, and bounds on its own value are not imposed.
    """
    last = len(network.nodes) - 1 if until is None else until
    needed = ancestors(network, last)
    read = [network.nodes[index].inputs[0] for index in network.relus if index in needed]
    # Every ReLU neuron gets at most three columns; with the width known, matrices never need to grow.
    width = network.n_inputs + 3 * sum(network.nodes[index].size for index in read)
    builder = Builder(width)
    inputs = builder.add_columns(Columns.block(Kind.INPUT, 0, np.arange(network.n_inputs)), lower, upper)
    values: dict[int, Expression] = {}
    for index in sorted(needed):
        node = network.nodes[index]
        operator = node.operator
        if isinstance(operator, Input):
            values[index] = of_columns(inputs, width)
        elif isinstance(operator, Relu):
            source = node.inputs[0]
            values[index] = _relu(builder, index, values[source], *_flat(bounds[source]))
        else:
            sources = [values[source] for source in node.inputs]
            shapes = network.input_shapes(index)
            values[index] = after(operator, sources, shapes, node.shape, builder.sizes)
    model, columns, value = builder.finish(values[last])
    level = min((bounds[index].level for index in read), default=Level.RIGOROUS)
    return Encoding(network, last, model, columns, value, level)


def encodable(network: Network, bounds: Sequence[Bounds]) -> bool:
    """Whether the matrices can be written out in some hundred megabytes, and the big Ms are finite."""
    entries = 0
    for index, node in enumerate(network.nodes):
        if not isinstance(node.operator, Input | Relu):
            entries += node.size * node.operator.terms(network.input_shapes(index))
    entering = (bounds[network.nodes[index].inputs[0]] for index in network.relus)
    finite = ((bound.lower.isfinite() & bound.upper.isfinite())[bound.unstable].all() for bound in entering)
    return entries <= MOST_ENTRIES and all(bool(one) for one in finite)


def ancestors(network: Network, index: int) -> set[int]:
    """The nodes that ``index`` depends on, itself and the input included."""
    needed = {0, index}
    for i in range(index, 0, -1):
        if i in needed:
            needed.update(network.nodes[i].inputs)
    return needed


def _relu(builder: Builder, node: int, source: Expression, below: Array, above: Array) -> Expression:
    """The value of one ReLU node; adds its columns and rows.  below, above: (size,) bounds on ``source``."""
    live = np.flatnonzero(above > 0)  # a neuron at exactly 0 throughout is inactive
    pre, below, above = builder.settled(source[live]), below[live], above[live]
    unstable = np.flatnonzero(below < 0)
    active = np.flatnonzero(below >= 0)
    through = active[np.diff(pre.matrix.indptr)[active] <= 1]
    deferred = active[np.diff(pre.matrix.indptr)[active] > 1]

    split = _split(builder, node, live[unstable], pre[unstable], below[unstable], above[unstable])
    same = builder.defer(Columns.block(Kind.PRE, node, live[deferred]), below[deferred], above[deferred], pre[deferred])

    def to_neurons(part: NDArray[np.int64]) -> sp.csr_array:
        return sp.csr_array(selection(live[part], len(source)).T)

    matrix = sp.csr_array(
        to_neurons(unstable) @ selection(split, builder.width)
        + to_neurons(deferred) @ selection(same, builder.width)
        + to_neurons(through) @ pre.matrix[through]
    )
    constant, error = np.zeros(len(source)), np.zeros(len(source))
    constant[live[through]], error[live[through]] = pre.constant[through], pre.error[through]
    return Expression(matrix, constant, error)


def _split(
    builder: Builder, node: int, neurons: NDArray[np.int64], pre: Expression, below: Array, above: Array
) -> NDArray[np.int64]:
    """Columns and rows of unstable neurons; returns the columns of their values."""
    count = len(neurons)
    # A bound within rounding of 0 would be a coefficient that HiGHS drops; a wider one is as sound.
    below, above = np.minimum(below, -LEAST_BOUND), np.maximum(above, LEAST_BOUND)
    zero, one, infinite = np.zeros(count), np.ones(count), np.full(count, np.inf)
    pres = builder.add_columns(Columns.block(Kind.PRE, node, neurons), below, above)
    posts = builder.add_columns(Columns.block(Kind.POST, node, neurons), zero, above)
    actives = builder.add_columns(Columns.block(Kind.ACTIVE, node, neurons), zero, one)
    z, y, a = (selection(places, builder.width) for places in (pres, posts, actives))
    builder.define(pres, pre)
    builder.add_rows(sp.csr_array(y - z), zero, infinite)
    builder.add_rows(sp.csr_array(y - z - sp.diags_array(below) @ a), -infinite, -below)
    builder.add_rows(sp.csr_array(y - sp.diags_array(above) @ a), -infinite, zero)
    return posts


def _flat(bounds: Bounds) -> tuple[Array, Array]:
    assert bounds.lower.shape[0] == 1, "an encoding is of one region, not of a batch"
    return (
        bounds.lower.detach().cpu().double().numpy().reshape(-1),
        bounds.upper.detach().cpu().double().numpy().reshape(-1),
    )
