"""The exact integer form of a binarised network.

Everything between the input and the last layer is a layer of *gates*, bits that say whether an integer sum reaches a
threshold:

    gate_j = [ sum_i weights[j, i] * before_i >= thresholds[j] ]

``before`` are the input levels (bounded integers) for the first layer and the bits of the layer before for the others.
Activations other than 0 and 1 are affine functions of bits and are absorbed into the weights that read them: +-1 is
``2 b - 1``, a sign that can be 0 is the sum of two bits minus one.  So no floating-point number is left but in the last
layer, whose outputs are ``weights @ bits + offset`` followed by the chain of elementwise nodes that the model ends
with.

The form computes what onnxruntime computes, not what the real numbers say: sums of integers below 2**24 are exact in
float32, and every threshold was found by asking onnxruntime (see ``steps``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]
Matrix = NDArray[np.float32] | sp.csr_array


class Quantising(Protocol):
    """Inputs to integers, monotone in every entry; ``uniform``: the same function of all ``size`` of them."""

    uniform: bool
    size: int

    def __call__(self, values: Floats) -> Floats: ...


class Elementwise(Protocol):
    """A monotone function of every entry, computed by onnxruntime."""

    def __call__(self, values: Floats) -> Floats:
        """(n,) to (n,), both flattened in C order; values are cast to the model's float type first."""
        ...


UNIT = 2.0**-24
DENSE_LIMIT = 2**25
"""Weights up to this many entries are also kept dense."""


@dataclass(frozen=True, eq=False)
class Products:
    """A layer's products in float32, for the falsifier; exact, for sums below 2**24.

    weights: (gates, before).  blocks: rows and columns of the only blocks that are not zero, together all rows and
    columns in order; None for one block.
    """

    weights: sp.csr_array
    blocks: tuple[tuple[slice, slice], ...] | None = None

    @cached_property
    def parts(self) -> tuple[tuple[slice, slice, Matrix], ...]:
        """Rows, columns and entries of every block."""
        whole = (slice(0, self.weights.shape[0]), slice(0, self.weights.shape[1]))
        return tuple((*block, _singles(self.weights[block])) for block in self.blocks or (whole,))

    def prepare(self) -> None:
        """Make the dense blocks now rather than at the first product."""
        assert self.parts

    def columns(self, chosen: Integers) -> Products:
        """The same for some of the columns; only for layers of one block."""
        if len(chosen) == self.weights.shape[1]:
            return self
        ((rows, _, part),) = self.parts
        if not isinstance(part, np.ndarray):
            return Products(sp.csr_array(self.weights[:, chosen]))
        narrowed = Products(self.weights)
        # Cut out of the dense entries at hand, and put where ``parts`` would leave them: much faster than from CSR.
        narrowed.__dict__["parts"] = ((rows, slice(0, len(chosen)), np.ascontiguousarray(part[:, chosen])),)
        return narrowed

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """``x @ weights.T``: (B, before) to (B, gates)."""
        products = [_times_transposed(x[:, columns], part) for _, columns, part in self.parts]
        return products[0] if len(products) == 1 else np.concatenate(products, axis=1)

    def backward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """``x @ weights``: (B, gates) to (B, before)."""
        products = [_times(x[:, rows], part) for rows, _, part in self.parts]
        return products[0] if len(products) == 1 else np.concatenate(products, axis=1)


def _singles(weights: sp.csr_array) -> Matrix:
    """Dense where that is small."""
    rows, columns = weights.shape
    singles = sp.csr_array(weights.astype(np.float32))
    return singles.toarray() if rows * columns <= DENSE_LIMIT else singles


# BLAS was seen to raise the flag for small products of finite numbers whose result was right.
@np.errstate(invalid="ignore")
def _times(x: NDArray[np.float32], weights: Matrix) -> NDArray[np.float32]:
    if isinstance(weights, np.ndarray):
        return x @ weights
    return np.ascontiguousarray((weights.T @ x.T).T)


@np.errstate(invalid="ignore")
def _times_transposed(x: NDArray[np.float32], weights: Matrix) -> NDArray[np.float32]:
    if isinstance(weights, np.ndarray):
        return x @ weights.T
    return np.ascontiguousarray((weights @ x.T).T)


@dataclass(frozen=True, eq=False)
class Gates:
    """weights: (gates, before) integers.  thresholds: (gates,).  shared: the products of the same weights elsewhere.

    blocks: see ``Products``.
    """

    weights: sp.csr_array
    thresholds: Integers
    shared: Products | None = None
    blocks: tuple[tuple[slice, slice], ...] | None = None

    @cached_property
    def products(self) -> Products:
        return Products(self.weights, self.blocks) if self.shared is None else self.shared

    def __len__(self) -> int:
        return len(self.thresholds)

    def __call__(self, before: NDArray) -> Bits:
        """Bits (B, gates) for integers or bits (B, before)."""
        return self.thresholds <= (self.weights @ before.astype(np.int64).T).T


@dataclass(frozen=True, eq=False)
class Outputs:
    """``chain(weights @ bits + offset)``.

    weights: (outputs, bits), integers where ``exact``; offset: (outputs,).
    chain: the elementwise end of the model, None where there is none; a final Softmax is left out (``softmax``).
    """

    weights: sp.csr_array
    offset: Floats
    chain: Elementwise | None
    exact: bool
    softmax: bool = False

    def __len__(self) -> int:
        return len(self.offset)

    def sums(self, bits: NDArray) -> Floats:
        """(B, outputs), before the chain."""
        return (self.weights @ bits.astype(np.float64).T).T + self.offset

    def values(self, bits: Bits) -> Floats:
        """(outputs,) for bits (bits,), Softmax included."""
        sums = self.sums(bits[None])[0]
        values = sums if self.chain is None else self.chain(sums)
        if not self.softmax:
            return values
        powers = np.exp(values - values.max())
        return np.asarray(powers / powers.sum())


@dataclass(frozen=True, eq=False)
class RealGates:
    """A first layer that reads real inputs: bit_j = [weights[j] @ x >= thresholds[j]], in float32 up to ``errors``.

    weights: (gates, n_inputs) float64, integers.  thresholds: (gates,), exact float32 values.
    shift: the largest sum of absolute values that the model adds to a sum before its step, as a bias.
    """

    weights: sp.csr_array
    thresholds: Floats
    shift: float

    def rounding(self, size: Floats) -> float:
        """By how much a sum, its bias and the comparison with a threshold may be off for inputs up to size
        (n_inputs,) in absolute value, whatever the order of summation."""
        terms = np.diff(self.weights.indptr) + 3
        reach = abs(self.weights) @ size + self.shift + np.abs(self.thresholds)
        return float(np.max(terms * UNIT * reach, initial=0.0))


@dataclass(frozen=True, eq=False)
class BinarisedNetwork:
    """quantiser: inputs to integers, entry by entry, monotone; None where the first layer reads real inputs.
    largest: absolute value of an input level up to which the form was shown to be exact.
    first: that layer; None with a quantiser, and then all layers are in ``layers``.
    """

    name: str
    input_shape: tuple[int, ...]
    largest: float
    quantiser: Quantising | None
    first: RealGates | None
    layers: tuple[Gates, ...]
    outputs: Outputs

    @property
    def n_inputs(self) -> int:
        return int(np.prod(self.input_shape))

    @property
    def n_outputs(self) -> int:
        return len(self.outputs)

    def hidden(self, levels: NDArray) -> list[Bits]:
        """The bits of every layer, (B, gates) each, for input levels (B, n_inputs)."""
        values: list[Bits] = []
        before: NDArray = levels
        for layer in self.layers:
            before = layer(before)
            values.append(before)
        return values

    def describe(self) -> str:
        """``784-512-512-100-10``."""
        widths = [self.n_inputs, *([self.first.weights.shape[0]] if self.first else []), *map(len, self.layers)]
        return "-".join(map(str, [*widths, self.n_outputs]))
