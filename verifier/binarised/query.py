"""The question about a binarised network: the model, the property, and its boxes in integers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.binarised.goals import Goal, GoalMaker
from verifier.binarised.levels import Lattice, LevelFinder, Levels, lattice
from verifier.binarised.network import BinarisedNetwork, Gates
from verifier.errors import SpecError
from verifier.verdict import Witness
from verifier.vnnlib.spec import Disjunct, Spec

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


ROUNDING = 0.5
"""A sum over real inputs may be off by less than this, or the lattice says nothing about the rest of the box."""


class Replaying(Protocol):
    """The model itself, run by onnxruntime; see ``OnnxReplay``."""

    def run(self, x: Floats) -> Floats: ...

    def representable(self, x: Floats, lower: Floats, upper: Floats) -> Floats: ...


@dataclass(frozen=True, eq=False)
class BinarisedModel:
    """A model file in its integer form, compared with onnxruntime, and the means to run the original.

    sha256: of the file, as in ``verifier.model.read.Model``.
    """

    network: BinarisedNetwork
    replay: Replaying
    path: Path
    sha256: str
    finder: LevelFinder | None
    goals: GoalMaker


@dataclass(frozen=True, eq=False)
class Box:
    """One box of the property in integers, with the disjuncts about it.

    On a lattice the layers are exact at its points only; see ``presolve`` for what holds in the whole box.

    layers: the network's gates, the first over k of ``levels``.
    positions: which disjuncts of the spec; goals: theirs.
    """

    levels: Levels | Lattice
    layers: tuple[Gates, ...]
    positions: tuple[int, ...]
    goals: tuple[Goal, ...]


@dataclass(frozen=True, eq=False)
class Query:
    model: BinarisedModel
    spec: Spec
    boxes: tuple[Box, ...]

    @property
    def disjuncts(self) -> tuple[Disjunct, ...]:
        """Those of the property."""
        return self.spec.disjuncts

    @property
    def network(self) -> BinarisedNetwork:
        """The model's integer form."""
        return self.model.network

    @property
    def replay(self) -> Replaying:
        """The model itself."""
        return self.model.replay

    def judge(self, x: Floats) -> Witness | None:
        """The witness that onnxruntime makes of x (n_inputs,), float32 values inside the box; None where it does
        not."""
        y = self.model.replay.run(x)
        for position, disjunct in enumerate(self.spec.disjuncts):
            if disjunct.holds_exactly(x, y):
                margin = float(np.max(disjunct.constraints.margins(x, y), initial=-np.inf))
                return Witness(x, y, position, min(margin, 0.0))
        return None


def check_sizes(network: BinarisedNetwork, spec: Spec) -> None:
    """Raises SpecError when the property has other numbers of inputs or outputs."""
    for kind, letter, wanted, found in (
        ("input", "X", network.n_inputs, spec.n_inputs),
        ("output", "Y", network.n_outputs, spec.n_outputs),
    ):
        if wanted != found:
            raise SpecError(
                f"the property declares {found} {kind} variables ({letter}_0 to {letter}_{found - 1}) "
                f"but the model has {wanted} {kind} values; use the property made for this model",
                spec.source or None,
            )


def prepare(model: BinarisedModel, spec: Spec) -> Query:
    """Raises SpecError when the property does not fit the network."""
    check_sizes(model.network, spec)
    goals = model.goals.goals(spec)
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for position, disjunct in enumerate(spec.disjuncts):
        groups.setdefault((disjunct.lower.tobytes(), disjunct.upper.tobytes()), []).append(position)
    boxes = []
    for positions in groups.values():
        disjunct = spec.disjuncts[positions[0]]
        levels, layers = integer_box(model, disjunct.lower, disjunct.upper, spec.source)
        boxes.append(Box(levels, layers, tuple(positions), tuple(goals[p] for p in positions)))
    return Query(model, spec, tuple(boxes))


def integer_box(
    model: BinarisedModel, lower: Floats, upper: Floats, source: str = ""
) -> tuple[Levels | Lattice, tuple[Gates, ...]]:
    """The levels of a box, and the network's gates with the first layer over their k."""
    network = model.network
    levels: Levels | Lattice
    if network.first is None:
        assert model.finder is not None
        levels = model.finder(lower, upper, source)
        layers = network.layers
    else:
        whole = Gates(network.first.weights.astype(np.int64), np.ceil(network.first.thresholds).astype(np.int64))
        layers = (whole, *network.layers)
        size = np.maximum(np.abs(lower), np.abs(upper))
        rounding = network.first.rounding(size)
        if rounding >= ROUNDING:
            sentence = "the first layer's sums are so large in this box that float32 rounds them to whole numbers"
            raise SpecError(f"{sentence}; scale the inputs as in training", source or None)
        gap = float(np.max(whole.thresholds - network.first.thresholds, initial=0.0))
        levels = lattice(lower, upper, rounding, gap, source)
    largest = max(np.abs(levels.base).max(initial=0), np.abs(levels.values(levels.count)).max(initial=0))
    if largest > network.largest:
        raise SpecError(
            f"the box gives the quantiser levels up to {largest}, beyond {network.largest:.6g} where the sums of "
            "float32 are no longer exact; scale the inputs as in training",
            source or None,
        )
    first = layers[0]
    thresholds = first.thresholds - first.weights @ levels.base
    if np.all(levels.gain == 1):
        shifted = Gates(first.weights, thresholds, first.products)
    else:
        shifted = Gates(sp.csr_array(first.weights * levels.gain[None, :]), thresholds)
    return levels, (shifted, *layers[1:])
