"""A tensor between two linear layers as bits: the thresholds of its chain, and how its values are made of the bits.

An activation that takes the values v_0 < v_1 < ... at the thresholds t_1 < t_2 < ... of an integer sum z is
``v_0 + sum_k (v_k - v_(k-1)) [z >= t_k]``.  Where it falls, the gate asks for ``-z >= 1 - t`` instead, so that every
bit adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from onnx import NodeProto

from verifier.binarised.chain import AnyArray, Chain, added_before_step, exact_offsets
from verifier.binarised.network import Gates, RealGates
from verifier.binarised.steps import TooManyStepsError, floats, ordinals, steps

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EXACT_LIMIT = 2**24
"""Integers up to here are exact in float32, and so are sums that never leave this range."""
UNIT = 2.0**-24
PROBES = (*np.linspace(-1.0, 2.0, 61), *np.linspace(2.5, 257.0, 97))
"""Inputs at which a quantiser has to give integers."""


class Quantiser:
    """Inputs to levels, both in the order of the input.  index: (*shape), which input every result of the chain is."""

    def __init__(self, chain: Chain, index: Integers) -> None:
        self._chain, self._index = chain, index.reshape(-1)
        self.size = len(self._index)
        self.uniform = chain.uniform

    def __call__(self, values: Floats) -> Floats:
        """(n_inputs,) to (n_inputs,)."""
        levels = np.empty_like(values)
        levels[self._index] = self._chain(values[self._index])
        return levels

    def largest(self) -> float:
        """The largest absolute level that images in [0, 1] have, or those in [0, 255] where that is no more than 1."""
        found = max(np.abs(self(np.full(self.size, value))).max() for value in (0.0, 1.0))
        return float(found) if found > 1 else float(np.abs(self(np.full(self.size, 255.0))).max())


class UnrecognisedError(Exception):
    """The model is no binarised network of the kind that is read; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The network's input."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Sums:
    """``weights @ before + offset``, the output of a linear node without its bias.

    levels: whether ``before`` are input levels, otherwise bits.  real: whether they are the real inputs.
    exact: no bias is summed along by the node itself.
    """

    name: str
    shape: tuple[int, ...]
    weights: sp.csr_array
    offset: Floats
    levels: bool
    real: bool
    exact: bool


@dataclass(frozen=True, eq=False)
class Closed:
    """``weights @ before + offset``: activations made of the bits of the last layer, or of levels or real inputs."""

    name: str
    shape: tuple[int, ...]
    weights: sp.csr_array
    offset: Floats
    levels: bool = False


Base = Inputs | Sums | Closed


def closed_inputs(base: Inputs, index: Integers, quantiser: Quantiser | None) -> Closed:
    """The input's entries, in the order in which the network reads them."""
    flat = index.reshape(-1)
    size = len(flat)
    if quantiser is not None:
        for value in PROBES:
            if np.any((found := quantiser(np.full(size, value))) != np.rint(found)):
                raise UnrecognisedError("the quantiser of the input gives values that are no integers")
    order = sp.csr_array((np.ones(size), (np.arange(size), flat)), shape=(size, size))
    return Closed(base.name, index.shape, order, np.zeros(size), levels=True)


def closed_sums(
    base: Sums,
    index: Integers,
    nodes: Sequence[NodeProto],
    chain: Chain,
    constants: dict[str, AnyArray],
    largest: float,
) -> tuple[Closed, Gates | RealGates]:
    """The bits of a chain that follows a linear layer.

    largest: absolute value of an input level.  Raises UnrecognisedError where the chain is no step function.
    """
    flat = index.reshape(-1)
    weights, offset = sp.csr_array(base.weights[flat]), base.offset[flat]
    if base.real:
        return _closed_real(base, index, weights, chain, added_before_step(nodes, constants))
    if np.any(weights.data != np.rint(weights.data)) or np.any(offset != np.rint(offset)):
        raise UnrecognisedError("a layer before a step has weights that are no integers")
    widths = np.asarray(abs(weights).sum(axis=1)).reshape(-1).astype(np.float64)
    if base.levels:
        low, high = np.full(len(flat), -EXACT_LIMIT), np.full(len(flat), EXACT_LIMIT)
    else:
        negative = np.asarray(weights.minimum(0).sum(axis=1)).reshape(-1)
        positive = np.asarray(weights.maximum(0).sum(axis=1)).reshape(-1)
        low, high = (offset + negative).astype(np.int64), (offset + positive).astype(np.int64)
        if max(np.max(widths), np.max(np.abs(low)), np.max(np.abs(high))) >= EXACT_LIMIT:
            raise UnrecognisedError("a layer is so wide that its sums are not exact in float32")
    try:
        first, places, values = steps(lambda z: chain(z.astype(np.float64)), low, high)
    except TooManyStepsError:
        raise UnrecognisedError("what follows a linear layer is no step function") from None
    if not (base.exact and exact_offsets(nodes, constants)):
        _check_rounding(chain, first, places, values, high, widths * (largest if base.levels else 1), weights)
    return _bits(base.name, index.shape, weights, offset.astype(np.int64), high, first, places, values)


def _check_rounding(
    chain: Chain,
    first: Floats,
    places: list[Integers],
    values: list[Floats],
    high: Integers,
    sizes: Floats,
    weights: sp.csr_array,
) -> None:
    """A bias or a scale may be summed along in any order: no threshold may depend on it.

    sizes: (n,), bounds on the sums of absolute values.
    """
    slack: Floats = np.minimum(np.diff(weights.indptr) * UNIT * (sizes + 1), 0.49)
    before = first
    for place, value in zip(places, values, strict=True):
        there = place <= high
        above, below = chain((place - slack).astype(np.float64)), chain((place - 1 + slack).astype(np.float64))
        if np.any(there & ((above != value) | (below != before))):
            raise UnrecognisedError("rounding decides a threshold: a sum comes too close to it")
        before = value


def _bits(
    name: str,
    shape: tuple[int, ...],
    weights: sp.csr_array,
    offset: Integers,
    high: Integers,
    first: Floats,
    places: list[Integers],
    values: list[Floats],
) -> tuple[Closed, Gates]:
    entries, thresholds, signs, gains = [], [], [], []
    base = first.copy()
    before = first
    for place, value in zip(places, values, strict=True):
        there = np.flatnonzero(place <= high)
        gain = (value - before)[there]
        rising = gain > 0
        entries.append(there)
        signs.append(np.where(rising, 1, -1))
        # z >= place, or z <= place - 1; z = weights @ before + offset
        thresholds.append(np.where(rising, place[there] - offset[there], 1 - place[there] + offset[there]))
        gains.append(np.abs(gain))
        base[there[~rising]] += gain[~rising]
        before = value
    entry = np.concatenate(entries) if entries else np.zeros(0, np.int64)
    if not len(entry):
        raise UnrecognisedError("a layer that is constant")
    sign = np.concatenate(signs)
    rows = sp.csr_array(weights[entry] * sign[:, None]).astype(np.int64)
    gates, source = _distinct(*_reduced(rows, np.concatenate(thresholds)))
    made = sp.csr_array((np.concatenate(gains), (entry, source)), shape=(len(base), len(gates)))
    return Closed(name, shape, made, base), gates


def _reduced(weights: sp.csr_array, thresholds: Integers) -> tuple[sp.csr_array, Integers]:
    """Every row divided by the greatest common divisor of its weights; the threshold rounded up."""
    weights = weights.copy()
    weights.eliminate_zeros()
    reduced = thresholds.copy()
    for row in range(len(thresholds)):
        part = slice(weights.indptr[row], weights.indptr[row + 1])
        divisor = int(np.gcd.reduce(weights.data[part])) if part.start < part.stop else 0
        if divisor > 1:
            weights.data[part] //= divisor
            reduced[row] = -(-reduced[row] // divisor)
    return weights, reduced


def _distinct(weights: sp.csr_array, thresholds: Integers) -> tuple[Gates, Integers]:
    """Gates without repetitions, and where each of the given ones went."""
    weights.sort_indices()
    seen: dict[tuple[bytes, bytes, int], int] = {}
    source = np.zeros(len(thresholds), np.int64)
    kept: list[int] = []
    for row, threshold in enumerate(thresholds.tolist()):
        part = slice(weights.indptr[row], weights.indptr[row + 1])
        key = (weights.indices[part].tobytes(), weights.data[part].tobytes(), threshold)
        if key not in seen:
            seen[key] = len(kept)
            kept.append(row)
        source[row] = seen[key]
    return Gates(sp.csr_array(weights[kept]), thresholds[kept]), source


def _closed_real(
    base: Sums, index: Integers, weights: sp.csr_array, chain: Chain, shift: float | None
) -> tuple[Closed, RealGates]:
    """Gates on real inputs: the thresholds are float32 numbers.  shift: as in ``RealGates``, None where unknown."""
    if np.any(weights.data != np.rint(weights.data)):
        raise UnrecognisedError("a first layer on real inputs has weights that are no integers")
    if shift is None:
        raise UnrecognisedError("a first layer on real inputs is scaled before its step")
    size = len(weights.indptr) - 1
    limit = np.full(size, ordinals(np.array([1e30], np.float32))[0])
    try:
        first, places, values = steps(lambda z: chain(floats(z).astype(np.float64)), -limit, limit)
    except TooManyStepsError:
        raise UnrecognisedError("what follows a linear layer is no step function") from None
    if len(places) != 1 or np.any(places[0] > limit) or np.any(values[0] <= first):
        raise UnrecognisedError("a first layer on real inputs whose activation has not two values, rising")
    gains = values[0] - first
    made = sp.csr_array(sp.diags_array(gains))
    gates = RealGates(weights, floats(places[0]).astype(np.float64), shift)
    return Closed(base.name, index.shape, made, first), gates


def any_of(closed: Closed, groups: Integers, name: str, shape: tuple[int, ...]) -> tuple[Closed, Gates]:
    """MaxPool: for every group of entries, (groups, size) with -1 for none, whether one of them is at its high
    value."""
    counts = np.diff(closed.weights.indptr)
    if closed.levels or np.any(counts != 1) or len(set(closed.offset)) != 1 or len(set(closed.weights.data)) != 1:
        raise UnrecognisedError("MaxPool over activations that do not all have the same two values")
    keep = groups >= 0
    rows = np.nonzero(keep)[0]
    columns = closed.weights.indices[groups[keep]]
    matrix = sp.csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=(len(groups), closed.weights.shape[1]))
    matrix.data[:] = 1
    gain, low = closed.weights.data[0], closed.offset[0]
    made = sp.csr_array(sp.diags_array(np.full(len(groups), gain)))
    return Closed(name, shape, made, np.full(len(groups), low)), Gates(matrix, np.ones(len(groups), np.int64))
