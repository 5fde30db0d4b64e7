"""A full assignment of an encoding's columns from one input, by a forward pass.

Given to a solver as its first incumbent it says "you need not look for anything worse than this"; the
attack's best point is usually a far better start than what the solver's heuristics find.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.encodings.milp.big_m import Encoding
from verifier.encodings.milp.columns import Kind
from verifier.encodings.milp.margin import MarginProgram

Array = NDArray[np.float64]


def column_values(encoding: Encoding, x: Array) -> Array:
    """The value of every column, (n,), at the input x: (n_inputs,), which is moved into the box first.

    A neuron at exactly 0 counts as inactive.  The result is feasible up to rounding, if the bounds that the
    encoding was made with hold.
    """
    columns, model = encoding.columns, encoding.model
    inputs = columns.of(Kind.INPUT)
    point = np.zeros(len(columns))
    point[inputs] = np.clip(x, model.lower[inputs], model.upper[inputs])
    network = encoding.network.to(torch.float64)
    values = network.values(torch.from_numpy(point[inputs]).reshape(1, -1))
    for node in np.unique(columns.node[len(inputs) :]).tolist():
        mine = np.flatnonzero((columns.node == node) & (columns.kind != Kind.INPUT))
        source = network.nodes[node].inputs[0]
        pre = values[source].reshape(-1).cpu().numpy()[columns.neuron[mine]]
        kind = columns.kind[mine]
        point[mine] = np.select([kind == Kind.PRE, kind == Kind.POST], [pre, np.maximum(pre, 0.0)], pre > 0)
    return np.clip(point, model.lower, model.upper)


def start(program: MarginProgram, x: Array) -> Array:
    """The same for a margin program: (n,), its margin column included."""
    return program.extended(column_values(program.encoding, x))
