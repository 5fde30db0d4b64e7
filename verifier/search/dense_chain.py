"""A network as a chain of dense layers, and as a triangular system on a root box.

The compiled input splitting works on networks that are affine, ReLU, affine, ..., affine.  This file composes the
affine stretches into matrices, bounds how far the composed entries are from the exact ones, and writes chain and
property as a triangular system (``triangular``), whose defects come from those bounds and from

    |y_h| <= |W_h| |y_(h-1)| + |b_h|,

a product of |W|, loose by orders of magnitude, and still below 1e-6 on the ACAS Xu networks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.bounds.rounding import gamma
from verifier.model.network import Network
from verifier.model.operators import Affine, Gather, Relu, Reshape
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]

LARGEST_LAYER = 1024
MOST_NEURONS = 3000
"""A triangular system of this many neurons takes 150 MB."""
SAFETY = 1.01
"""Covers the rounding of the error bounds' own evaluation."""


@dataclass(frozen=True, eq=False)
class Layer:
    """``z = weight y + bias``; the exact entries differ by at most weight_error, bias_error."""

    weight: Array
    bias: Array
    weight_error: Array
    bias_error: Array


@dataclass(frozen=True, eq=False)
class DenseChain:
    """hidden layers, each followed by ReLU, and the last affine layer."""

    hidden: tuple[Layer, ...]
    output: Layer


@dataclass(frozen=True, eq=False)
class RootArrays:
    """What ``triangular.root_system`` takes, in its order, after first_row: rows of disjunct d are first_row[d] ..."""

    first_row: NDArray[np.int64]
    starts: NDArray[np.int64]
    weights: Array
    constants: Array
    defects: Array
    rows: Array
    row_constants: Array
    row_defects: Array
    largest: Array

    def margins(self, point: Array) -> Array:
        """The rows' values at a point (n_inputs,), in float64."""
        n_inputs = len(point)
        known = np.concatenate([point, np.zeros(len(self.constants))])
        for start, stop in itertools.pairwise(self.starts):
            row = slice(start, stop)
            known[n_inputs + start : n_inputs + stop] = np.maximum(self.weights[row] @ known + self.constants[row], 0)
        return np.asarray(self.rows @ known + self.row_constants)


def is_dense_chain(network: Network) -> bool:
    """Whether ``dense_chain`` takes it: affine and ReLU one after the other, some ReLU, not too wide."""
    inner = network.nodes[1:]
    return (
        bool(network.relus)
        and all(len(readers) <= 1 for readers in network.consumers)
        and all(len(node.inputs) == 1 and isinstance(node.operator, (Relu, Affine)) for node in inner)
        and max(node.size for node in network.nodes) <= LARGEST_LAYER
        and sum(network.nodes[relu].size for relu in network.relus) <= MOST_NEURONS
    )


def dense_chain(network: Network) -> DenseChain:
    """The network as a chain.  Raises ValueError for one that ``is_dense_chain`` refuses."""
    if not is_dense_chain(network):
        raise ValueError("not a chain of dense layers; ask is_dense_chain() first")
    layers: list[Layer] = []
    current = _identity(network.n_inputs)
    for index in range(1, len(network.nodes)):
        operator = network.nodes[index].operator
        if isinstance(operator, Affine):
            current = _compose(network, index, operator, current)
        else:
            layers.append(current)
            current = _identity(network.nodes[index].size)
    return DenseChain(tuple(layers), current)


def _identity(n: int) -> Layer:
    return Layer(np.eye(n), np.zeros(n), np.zeros((n, n)), np.zeros(n))


def _compose(network: Network, index: int, operator: Affine, below: Layer) -> Layer:
    node = network.nodes[index]
    (sparse,) = operator.matrix(network.input_shapes(index))
    matrix, size = sparse.toarray(), np.abs(sparse.toarray())
    weight, bias = matrix @ below.weight, matrix @ below.bias
    weight_error, bias_error = size @ below.weight_error, size @ below.bias_error
    if isinstance(operator, (Reshape, Gather)):
        return Layer(weight, bias, weight_error, bias_error)
    offset_tensor = operator.offset(node.shape)
    offset = np.zeros(node.size) if offset_tensor is None else offset_tensor.reshape(-1).numpy()
    g = SAFETY * gamma(matrix.shape[1] + operator.ulps + 4)
    weight_error = weight_error + g * (size @ np.abs(below.weight))
    bias_error = bias_error + g * (size @ np.abs(below.bias) + np.abs(offset))
    if operator.offset_error is not None:
        bias_error = bias_error + SAFETY * operator.offset_error.expand(node.shape).reshape(-1).numpy()
    return Layer(weight, bias + offset, weight_error, bias_error)


def root_arrays(chain: DenseChain, disjuncts: list[Disjunct], lower: Array, upper: Array) -> RootArrays:
    """The chain and the rows of the disjuncts on the box lower, upper: (n_inputs,), as a triangular system."""
    hidden, last = chain.hidden, chain.output
    n_inputs = hidden[0].weight.shape[1]
    starts = np.cumsum([0, *(len(layer.bias) for layer in hidden)])
    n = int(starts[-1])
    weights, constants, defects = np.zeros((n, n_inputs + n)), np.zeros(n), np.zeros(n)
    largest = np.maximum(np.abs(lower), np.abs(upper))
    value, place = largest, 0
    for h, layer in enumerate(hidden):
        own = slice(starts[h], starts[h + 1])
        weights[own, place : place + len(value)], constants[own] = layer.weight, layer.bias
        defects[own] = SAFETY * (layer.weight_error @ value + layer.bias_error)
        place = n_inputs + starts[h]
        value = SAFETY * ((np.abs(layer.weight) + layer.weight_error) @ value + np.abs(layer.bias) + layer.bias_error)
    parts = [disjunct.constraints for disjunct in disjuncts]
    outputs = np.concatenate([part.outputs for part in parts])
    bounds = np.concatenate([part.bounds for part in parts])
    rows = np.zeros((len(bounds), n_inputs + n))
    rows[:, place:] = outputs @ last.weight
    rows[:, :n_inputs] += np.concatenate([part.inputs for part in parts])
    size = np.abs(outputs)
    total = size @ (np.abs(last.weight) @ value + np.abs(last.bias)) + np.abs(bounds)
    error = size @ (last.weight_error @ value + last.bias_error) + 4 * gamma(sum(last.weight.shape) + 8) * total
    first = np.cumsum([0, *(len(part) for part in parts)])
    row_constants = outputs @ last.bias - bounds
    return RootArrays(
        first, starts, weights, constants, defects, np.ascontiguousarray(rows), row_constants, SAFETY * error, largest
    )
