"""One fuzz case: a tiny network and a property, kept apart from any file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.model.network import Network
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Case:
    """seed: what ``generate.random_case`` makes it from; None for a case changed since or made by hand."""

    network: Network
    spec: Spec
    seed: int | None = None

    @property
    def size(self) -> str:
        """What a person wants to know of a case before opening it."""
        rows = [len(disjunct.constraints) for disjunct in self.spec.disjuncts]
        varying = [int(np.count_nonzero(d.upper > d.lower)) for d in self.spec.disjuncts]
        neurons = sum(self.network.nodes[i].size for i in self.network.relus)
        return (
            f"{len(self.network.nodes)} nodes, {neurons} neurons, {self.network.n_inputs} inputs "
            f"({max(varying, default=0)} varying), rows {rows}"
        )


def constraints(inputs: Array, outputs: Array, bounds: Array, strict: NDArray[np.bool_]) -> LinearConstraints:
    """Rows as the reader makes them: a view of a single zero stands for input parts that are all zero."""
    outputs, bounds, strict = outputs + 0.0, bounds + 0.0, strict.astype(bool)
    if not np.any(inputs):
        inputs = np.broadcast_to(np.zeros(1), inputs.shape)
    return LinearConstraints(inputs, outputs, bounds, strict)


def spec_of(network: Network, disjuncts: tuple[Disjunct, ...]) -> Spec:
    return Spec(network.n_inputs, network.n_outputs, disjuncts)
