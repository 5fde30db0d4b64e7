"""The linear relaxation of a network without any integers: one column per undecided neuron, two rows.

    y >= z,  y >= 0,    y <= s z + t        the triangle (Ehlers, ATVA 2017), s = u / (u - l), t = -s l

``big_m`` relaxed is the same polytope with three columns per neuron; here the input of a neuron is no column but an
expression of older ones, which is what hull planes are made of (``search.hull_ascent``), and a linear program a third
of the size.

Bounds on a neuron's input are sharpened on the way by the ranges of the groups of its terms (``terms``): where every
neuron of the first layer reads one input only, those of the second layer are exact.

Invariant: for every input in the box the columns' true values satisfy all bounds, and all rows up to their
``row_error``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.bounds.level import Bounds, Level
from verifier.encodings.milp.expression import Expression, after, combination, of_columns, selection
from verifier.encodings.milp.model import MilpModel
from verifier.encodings.milp.terms import Terms
from verifier.model.network import Network
from verifier.model.operators import Input, Relu

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Neurons:
    """The undecided ones, m of them.  column: (m,), of the value.  pre: the inputs, m rows.

    lower, upper: (m,), bounds on the inputs, lower < 0 < upper.  layer, place: (m,), the ReLU node, and where in it.
    """

    column: Indices
    pre: Expression
    lower: Array
    upper: Array
    layer: Indices
    place: Indices

    def __len__(self) -> int:
        return len(self.column)


@dataclass(frozen=True, eq=False)
class TriangleProgram:
    """model: no cost.  Row i < m: neuron i's ``y - z >= 0``; row m + i: the upper side of its triangle.

    terms: how the columns group.  output: the network's output over the columns.
    phases: of all neurons by ReLU node, (size,) int8: 1 active and -1 inactive all over the box, 0 undecided.
    """

    model: MilpModel
    neurons: Neurons
    terms: Terms
    output: Expression
    level: Level
    phases: Mapping[int, NDArray[np.int8]]

    def tightened(self, lower: Array, upper: Array) -> TriangleProgram:
        """With other bounds on the neurons' inputs, (m,) each, lower < 0 < upper, that hold all over the box."""
        neurons = replace(self.neurons, lower=lower, upper=upper)
        most = self.terms.upper.copy()
        most[neurons.column] = np.minimum(most[neurons.column], upper)
        terms = replace(self.terms, upper=most)
        return replace(self, model=_model(neurons, terms), neurons=neurons, terms=terms)


def triangle_program(network: Network, lower: Array, upper: Array, bounds: Sequence[Bounds]) -> TriangleProgram:
    """lower, upper: (n_inputs,), the box.  bounds: one per node over it, tensors [1, *shape], finite."""
    width = network.n_inputs + sum(int(bounds[network.nodes[k].inputs[0]].unstable.sum()) for k in network.relus)
    places = np.arange(network.n_inputs)
    values = {0: of_columns(places, width)}
    terms = Terms.inputs(lower, upper, width)
    found: list[Neurons] = []
    phases: dict[int, NDArray[np.int8]] = {}
    for index in range(1, len(network.nodes)):
        node = network.nodes[index]
        operator = node.operator
        assert not isinstance(operator, Input)
        if isinstance(operator, Relu):
            source = node.inputs[0]
            below, above = (side.double().numpy().reshape(-1) for side in (bounds[source].lower, bounds[source].upper))
            values[index], neurons, phases[index] = _relu(index, values[source], below, above, terms)
            terms = terms.with_neurons(neurons.column, neurons.pre, neurons.upper)
            found.append(neurons)
        else:
            sources = [values[source] for source in node.inputs]
            values[index] = after(operator, sources, network.input_shapes(index), node.shape, terms.sizes)
    neurons = _joined(found, width)
    read = [network.nodes[index].inputs[0] for index in network.relus]
    level = min((bounds[index].level for index in read), default=Level.RIGOROUS)
    return TriangleProgram(_model(neurons, terms), neurons, terms, values[len(network.nodes) - 1], level, phases)


def _relu(
    index: int, source: Expression, below: Array, above: Array, terms: Terms
) -> tuple[Expression, Neurons, NDArray[np.int8]]:
    """The value of a ReLU node, its undecided neurons, whose columns follow those of ``terms``, and all phases."""
    undecided = np.flatnonzero((below < 0) & (above > 0))
    low, high = terms.ranges(source[undecided])
    below, above = below.copy(), above.copy()
    below[undecided] = np.maximum(below[undecided], low)
    above[undecided] = np.minimum(above[undecided], high)
    active, live = below >= 0, (below < 0) & (above > 0)
    neurons = np.flatnonzero(live)
    columns = terms.count + np.arange(len(neurons))
    width = source.matrix.shape[1]
    spread = sp.csr_array(selection(neurons, len(source)).T) @ selection(columns, width)
    through = sp.diags_array(active.astype(float)) @ source.matrix
    matrix = sp.csr_array(through + spread)
    value = Expression(matrix, np.where(active, source.constant, 0.0), np.where(active, source.error, 0.0))
    layer = np.full(len(neurons), index)
    phases = (active.astype(np.int8) - (~active & ~live)).astype(np.int8)
    return value, Neurons(columns, source[neurons], below[neurons], above[neurons], layer, neurons), phases


def _joined(parts: Sequence[Neurons], width: int) -> Neurons:
    matrix = sp.csr_array(sp.vstack([sp.csr_array((0, width)), *(part.pre.matrix for part in parts)], format="csr"))
    none = np.zeros(0)

    def joined(name: str) -> Array:
        return np.concatenate([none, *(getattr(part, name) for part in parts)])

    constant = np.concatenate([none, *(part.pre.constant for part in parts)])
    error = np.concatenate([none, *(part.pre.error for part in parts)])
    column, layer, place = (joined(name).astype(np.int64) for name in ("column", "layer", "place"))
    return Neurons(column, Expression(matrix, constant, error), joined("lower"), joined("upper"), layer, place)


def _model(neurons: Neurons, terms: Terms) -> MilpModel:
    count, pre = len(neurons), neurons.pre
    own = selection(neurons.column, pre.matrix.shape[1])
    slope = neurons.upper / (neurons.upper - neurons.lower)
    # The line must pass above (l, 0) and (u, u) for the slope as rounded.
    lift = np.maximum(-slope * neurons.lower, (1 - slope) * neurons.upper) * (1 + 1e-14) + 1e-290
    line = combination([(sp.csr_array(sp.diags_array(slope)), pre)], lift, terms.sizes)
    infinite = np.full(count, np.inf)
    rows = sp.csr_array(sp.vstack([own - pre.matrix, own - line.matrix], format="csr")[:, : terms.count])
    return MilpModel(
        cost=np.zeros(terms.count),
        offset=0.0,
        lower=terms.lower,
        upper=terms.upper,
        integral=np.zeros(terms.count, np.bool_),
        rows=rows,
        row_lower=np.concatenate([pre.constant, -infinite]),
        row_upper=np.concatenate([infinite, line.constant]),
        row_error=np.concatenate([pre.error, line.error]),
    )
