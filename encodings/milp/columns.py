"""What the columns of an encoding mean.

Every column is an input, or belongs to one neuron of one ReLU node, or is the margin.  Names are only made
when somebody wants to read them: ``x_4``, ``z3_17`` (pre-activation of neuron 17 of node 3), ``y3_17`` (its
value), ``a3_17`` (1 where it is active) and ``t`` (the margin).  Neurons count in C order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Kind(IntEnum):
    """The role of a column."""

    INPUT = 0
    PRE = 1
    POST = 2
    ACTIVE = 3
    MARGIN = 4


LETTERS = {Kind.INPUT: "x", Kind.PRE: "z", Kind.POST: "y", Kind.ACTIVE: "a", Kind.MARGIN: "t"}


@dataclass(frozen=True, eq=False)
class Columns:
    """kind, node, neuron: (n,) each.  node is the ReLU node of the network; 0 for inputs, -1 for the margin."""

    kind: Indices
    node: Indices
    neuron: Indices

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, places: Indices) -> Columns:
        return Columns(self.kind[places], self.node[places], self.neuron[places])

    @property
    def integral(self) -> NDArray[np.bool_]:
        """Which columns may only be 0 or 1, (n,)."""
        return self.kind == Kind.ACTIVE

    @classmethod
    def block(cls, kind: Kind, node: int, neurons: Indices) -> Columns:
        """One column for each of some neurons of one node."""
        return cls(np.full(len(neurons), int(kind)), np.full(len(neurons), node), neurons.astype(np.int64))

    @classmethod
    def joined(cls, blocks: Sequence[Columns]) -> Columns:
        """The columns of several blocks, one after the other."""
        return cls(
            np.concatenate([block.kind for block in blocks]),
            np.concatenate([block.node for block in blocks]),
            np.concatenate([block.neuron for block in blocks]),
        )

    def of(self, kind: Kind) -> Indices:
        """Where the columns of one kind stand."""
        return np.flatnonzero(self.kind == kind)

    def names(self) -> list[str]:
        """One name per column, unique; see the module docstring."""
        return [
            name(Kind(kind), node, neuron)
            for kind, node, neuron in zip(self.kind.tolist(), self.node.tolist(), self.neuron.tolist(), strict=True)
        ]


def name(kind: Kind, node: int = 0, neuron: int = 0) -> str:
    """The name of one column."""
    if kind is Kind.MARGIN:
        return LETTERS[kind]
    return f"{LETTERS[kind]}_{neuron}" if kind is Kind.INPUT else f"{LETTERS[kind]}{node}_{neuron}"
