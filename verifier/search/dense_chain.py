"""A network as a chain of dense layers, with everything that rounding can do to it below a root box.

The compiled input splitting works on networks that are affine, ReLU, affine, ..., affine.  This file composes the
affine stretches into matrices and bounds, once per root box, all rounding errors that the kernel can commit in any
box below it:

- M: for every layer a bound on |centre| + sum |generators| of the zonotope, and so on the values themselves.  A ReLU
  does not increase it (with slope u / (u - l) the sum is at most what it was), an affine layer maps it to |W| M + |b|.
- delta: how far the computed zonotope may be from one that contains the true value:
  delta' = |W| delta + dW M + db + gamma (|W| M + |b|).
- For a backward pass |coefficients| are at most S = |row| |W_L| ... |W_k|, since slopes are at most 1; each step
  costs gamma S (|W| M + |b|), as in ``bounds.rounding``.

Each is a product of |W|, loose by orders of magnitude, and still below 1e-6 on the ACAS Xu networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.bounds.rounding import UNIT, gamma
from verifier.model.network import Network
from verifier.model.operators import Affine, Gather, Relu, Reshape
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]

LARGEST_LAYER = 1024
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
class KernelArrays:
    """A chain and the rows of several disjuncts, padded for the kernel; see ``zonotope_kernel``."""

    W: Array
    b: Array
    sizes: NDArray[np.int64]
    widen: Array
    rows: Array
    constants: Array
    input_rows: Array
    row_error: Array
    first_row: NDArray[np.int64]


def dense_chain(network: Network) -> DenseChain | None:
    """The network as a chain, or None where it branches, has no ReLU, or is too wide for dense matrices."""
    if not network.relus or any(len(readers) > 1 for readers in network.consumers):
        return None
    if max(node.size for node in network.nodes) > LARGEST_LAYER:
        return None
    layers: list[Layer] = []
    current = _identity(network.n_inputs)
    for index in range(1, len(network.nodes)):
        operator = network.nodes[index].operator
        if len(network.nodes[index].inputs) != 1:
            return None
        if isinstance(operator, Relu):
            layers.append(current)
            current = _identity(network.nodes[index].size)
        elif isinstance(operator, Affine):
            current = _compose(network, index, operator, current)
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


def kernel_arrays(chain: DenseChain, disjuncts: list[Disjunct], lower: Array, upper: Array) -> KernelArrays:
    """Padded arrays and error bounds for all boxes inside the root box lower, upper: (n_inputs,)."""
    hidden = chain.hidden
    sizes = np.array([hidden[0].weight.shape[1], *(layer.weight.shape[0] for layer in hidden)])
    width, count = int(sizes.max()), len(hidden)
    columns = int(sizes.sum())
    W, b, widen = np.zeros((count, width, width)), np.zeros((count, width)), np.zeros((count, width))
    value = np.maximum(np.abs(lower), np.abs(upper))
    largest_input = value
    delta = 8 * UNIT * value
    step: list[Array] = []
    for h, layer in enumerate(hidden):
        n_out, n_in = layer.weight.shape
        W[h, :n_out, :n_in], b[h, :n_out] = layer.weight, layer.bias
        size = np.abs(layer.weight)
        pre = SAFETY * ((size + layer.weight_error) @ value + np.abs(layer.bias) + layer.bias_error)
        stored = layer.weight_error @ value + layer.bias_error
        delta = size @ delta + stored + gamma(n_in + 8) * pre
        wide = SAFETY * (delta + gamma(columns + 8) * pre)
        widen[h, :n_out] = wide
        # What one backward step through the ReLU and the layer costs per unit of coefficient.
        step.append(stored + 4 * gamma(max(n_in, n_out) + 2 * count + 24) * (pre + wide))
        delta = delta + 32 * UNIT * (pre + wide)
        value = pre + 4 * wide
    rows, constants, input_rows, errors, first = [], [], [], [], [0]
    last = chain.output
    for disjunct in disjuncts:
        part = disjunct.constraints
        for r in range(len(part)):
            coefficients = part.outputs[r]
            size = np.abs(coefficients)
            row = coefficients @ last.weight
            constant = float(coefficients @ last.bias - part.bounds[r])
            total = size @ (np.abs(last.weight) @ value + np.abs(last.bias)) + abs(part.bounds[r])
            error = size @ (last.weight_error @ value + last.bias_error)
            error += 4 * gamma(len(size) + last.weight.shape[1] + 2 * count + 24) * total
            spread = size @ (np.abs(last.weight) + last.weight_error)
            for h in range(count - 1, -1, -1):
                error += SAFETY * spread @ step[h]
                spread = SAFETY * spread @ (np.abs(hidden[h].weight) + hidden[h].weight_error)
            inputs = np.asarray(part.inputs[r], dtype=np.float64)
            error += 4 * gamma(len(inputs) + 2 * count + 24) * ((spread + np.abs(inputs)) @ largest_input)
            rows.append(np.pad(row, (0, width - len(row))))
            constants.append(constant)
            input_rows.append(inputs)
            errors.append(SAFETY * error + 1e-290)
        first.append(len(rows))
    return KernelArrays(
        W,
        b,
        sizes,
        widen,
        np.array(rows).reshape(-1, width),
        np.array(constants),
        np.array(input_rows).reshape(-1, int(sizes[0])),
        np.array(errors),
        np.array(first),
    )
