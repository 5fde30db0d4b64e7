"""A triangle program as flat arrays, for the compiled loops over hull planes.

Columns are n inputs and then m undecided neurons in the order of the network.  A neuron reads terms, which are what its
planes have a slope each for: all that it reads from one group of columns, an input and the neurons that read that input
only (``encodings.milp.terms``).  Terms that hardly matter share one slope, as one term that comes last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.encodings.milp.triangle import TriangleProgram
from verifier.search.hull_terms import fill_planes, fill_terms

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NARROW = 1e-9
"""Terms of less width count as if they had this."""
HULL_SHARE = 0.5
"""Neurons of which a known bound is below this share of the sum of their terms keep the triangle."""
BLOCK = 16
"""Neurons whose entries are taken column by column: so many that what they read stays in the cache nearest by."""
MINOR = 2e-4
"""Terms up to this share of the sum of all widths are taken together.  What it costs to have one slope for all of them:
image 9 of mnist_wk17a within 0.152 takes 27,000 regions with a hundredth, 2,277 with 2e-3, 974 with 1e-4."""


class Layout(NamedTuple):
    """A program of n inputs and m neurons; neuron j has the column n + j.

    Neuron j reads the terms ``terms[j]`` to ``terms[j + 1]``, and term t the entries ``entries[t]`` to
    ``entries[t + 1]``: columns and their weights.  least, width, inverse: of each term, the inverse being one over the
    width.  most: (m,), the sum of all terms' greatest values and the constant.  slope, lift: (m,), of the triangle.
    hull: (m,) bool, whether the upper plane has a slope per term.  own, weight: (m,), the input of a neuron that reads
    one only, else -1.  lower, upper: (n,), the box.  starts, reach: ``reach[starts[j]:starts[j + 1]]`` are the inputs
    that neuron j or a neuron of one input before it reads.  lines, slants, lifts, span, height: of the planes above
    neurons of one input, as in ``hull_terms``.

    order: (m,), the neurons of one input first, then blocks of the others: ``order[blocks[b]:blocks[b + 1]]``, none of
    which reads another.  Block b's entries by column: the columns ``met[c]``, c from ``touched[b]`` to
    ``touched[b + 1]``, get ``pushed[e]`` times what the block's term ``part[e]`` passes on, e from ``reads[c]`` to
    ``reads[c + 1]``.  most_parts: of terms, in a block.
    """

    n: int
    m: int
    terms: np.ndarray
    entries: np.ndarray
    columns: np.ndarray
    weights: np.ndarray
    least: np.ndarray
    width: np.ndarray
    inverse: np.ndarray
    constant: np.ndarray
    most: np.ndarray
    slope: np.ndarray
    lift: np.ndarray
    hull: np.ndarray
    own: np.ndarray
    weight: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    starts: np.ndarray
    reach: np.ndarray
    lines: np.ndarray
    slants: np.ndarray
    lifts: np.ndarray
    span: np.ndarray
    height: np.ndarray
    order: np.ndarray
    blocks: np.ndarray
    n_blocks: int
    touched: np.ndarray
    met: np.ndarray
    reads: np.ndarray
    part: np.ndarray
    pushed: np.ndarray
    most_parts: int


def layout_of(program: TriangleProgram) -> Layout:
    """In float64."""
    terms, neurons = program.terms, program.neurons
    n, m = terms.n_inputs, len(neurons)
    assert np.array_equal(neurons.column, n + np.arange(m))
    matrix, constant = neurons.pre.matrix, neurons.pre.constant
    dense = matrix.toarray()
    low, high = terms.without_remainders().parts(dense)
    minor = high - low <= MINOR * (high - low).sum(1, keepdims=True)
    reader = np.repeat(np.arange(m), np.diff(matrix.indptr))
    group = terms.group[matrix.indices]
    # Terms by neuron, in the order of their groups; the minor ones of a neuron have one number, after all groups'.
    key = reader * (terms.groups + 1) + np.where(minor[reader, group], terms.groups, group)
    order = np.lexsort((group, key))
    keys, first, term = np.unique(key[order], return_index=True, return_inverse=True)
    # Every group counts once for its term, however many of its columns are read.
    pairs, once = np.unique(reader * terms.groups + group, return_index=True)
    owner, which = pairs // max(terms.groups, 1), pairs % max(terms.groups, 1)
    of_term = np.searchsorted(keys, key[once])
    single, weight = terms.single(dense, m)
    slope, lift = lines(program)
    reach = _reach(matrix, n, m, single)
    starts = np.searchsorted(keys, np.arange(m + 1) * (terms.groups + 1))
    blocks, weights = _blocks(neurons.layer, single, reach), matrix.data[order]
    layout = Layout(
        n=n,
        m=m,
        terms=starts,
        entries=np.append(first, len(term)),
        columns=matrix.indices[order].astype(np.uint32),
        weights=weights,
        least=_sums(of_term, low[owner, which], len(keys)),
        width=_sums(of_term, high[owner, which] - low[owner, which], len(keys)),
        inverse=np.zeros(len(keys)),
        constant=constant.copy(),
        most=constant + high.sum(1),
        slope=slope,
        lift=lift,
        hull=(single < 0)
        & (neurons.upper > HULL_SHARE * (constant + high.sum(1)))
        & (neurons.lower < HULL_SHARE * (constant + low.sum(1))),
        own=single,
        weight=weight,
        lower=terms.lower[:n].copy(),
        upper=terms.upper[:n].copy(),
        starts=reach.indptr.astype(np.int64),
        reach=reach.indices.astype(np.uint32),
        lines=np.zeros((2, m)),
        slants=np.zeros((2, m)),
        lifts=np.zeros((2, m)),
        span=np.zeros(m),
        height=np.zeros(m),
        **_by_column(*blocks, starts, np.append(first, len(term)), matrix.indices[order].astype(np.int64), weights),
    )
    fill_planes(layout, np.maximum(np.abs(terms.lower), np.abs(terms.upper)))
    fill_terms(layout, group[order], terms.upper)
    layout.inverse[:] = 1 / np.maximum(layout.width, NARROW)
    return layout


def _sums(which: Indices, values: Array, count: int) -> Array:
    """As np.bincount, which makes integers of no values."""
    return np.bincount(which, values, count).astype(np.float64)


def _blocks(layer: Indices, single: Indices, reach: sp.csr_array) -> tuple[Indices, Indices]:
    """The order of the neurons, those of one input first, and where the blocks of the others begin and the last ends.

    A block's neurons are of one layer, and read the same inputs as far as possible.
    """
    count = np.diff(reach.indptr)
    centre = np.bincount(np.repeat(np.arange(len(layer)), count), reach.indices, len(layer)) / np.maximum(1, count)
    stage = np.where(single >= 0, -1, layer)
    order = np.lexsort((centre, stage))
    starts = [int((single >= 0).sum())]
    while starts[-1] < len(order):
        first = starts[-1]
        same = int((stage[order[first : first + BLOCK]] == stage[order[first]]).sum())
        starts.append(first + same)
    return order.astype(np.int64), np.array(starts)


def _by_column(
    order: Indices, blocks: Indices, terms: Indices, entries: Indices, columns: Indices, weights: Array
) -> dict[str, Any]:
    """The entries of every block by column."""
    none = np.zeros(0, np.int64)
    touched, reads, most = [0], [0], 0
    met, parts, pushed = [none], [none], [np.zeros(0)]
    for first, last in zip(blocks[:-1].tolist(), blocks[1:].tolist(), strict=True):
        own = [np.arange(terms[j], terms[j + 1]) for j in order[first:last]]
        used = np.concatenate([none, *own])
        local = np.repeat(np.arange(len(used)), entries[used + 1] - entries[used])
        where = np.concatenate(
            [none, *(np.arange(entries[part[0]], entries[part[-1] + 1]) for part in own if len(part))]
        )
        by = np.argsort(columns[where], kind="stable")
        names, counts = np.unique(columns[where], return_counts=True)
        met.append(names)
        reads.extend((reads[-1] + np.cumsum(counts)).tolist())
        parts.append(local[by])
        pushed.append(weights[where][by])
        touched.append(touched[-1] + len(names))
        most = max(most, len(used))
    return {
        "order": order,
        "blocks": blocks,
        "n_blocks": len(blocks) - 1,
        "touched": np.array(touched),
        "met": np.concatenate(met).astype(np.uint32),
        "reads": np.array(reads),
        "part": np.concatenate(parts).astype(np.uint32),
        "pushed": np.concatenate(pushed),
        "most_parts": most,
    }


def _reach(matrix: sp.csr_array, n: int, m: int, single: Indices) -> sp.csr_array:
    """The inputs that the planes of neurons are sums over: pattern (m, n)."""
    pattern = sp.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    inputs = pattern[:, :n]
    return sp.csr_array(inputs + pattern[:, n : n + m] @ sp.diags_array((single >= 0).astype(float)) @ inputs)


def lines(program: TriangleProgram) -> tuple[Array, Array]:
    """Slopes and lifts of the triangles, which are above both ends as rounded."""
    lower, upper = program.neurons.lower, program.neurons.upper
    slope = upper / (upper - lower)
    return slope, np.maximum(-slope * lower, (1 - slope) * upper) * (1 + 1e-14) + 1e-290


def single_precision(layout: Layout) -> Layout:
    """The same with float32 numbers."""
    parts = layout._asdict()
    return Layout(**{name: part.astype(np.float32) if _is_double(part) else part for name, part in parts.items()})


def _is_double(part: object) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == np.float64
