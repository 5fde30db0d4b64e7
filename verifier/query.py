"""The question every stage works on: a network, a property, and onnxruntime to confirm answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from verifier.errors import SpecError
from verifier.model.network import Network
from verifier.vnnlib.spec import Disjunct, Spec

Array = NDArray[np.float64]


class Replay(Protocol):
    """The model itself, run by onnxruntime."""

    def run(self, x: Array) -> Array:
        """Outputs (n_outputs,) as float64 for one input (n_inputs,) that the input type represents."""
        ...

    def representable(self, x: Array, lower: Array, upper: Array) -> Array:
        """The nearest point the input type represents inside the box, as float64; all (n_inputs,)."""
        ...


@dataclass(frozen=True, eq=False)
class Query:
    """``spec.disjuncts`` are the open ones; ``indices`` say where each stood in the user's spec."""

    network: Network
    spec: Spec
    replay: Replay
    indices: tuple[int, ...]

    @classmethod
    def of(cls, network: Network, spec: Spec, replay: Replay) -> Query:
        """Raises SpecError when the numbers of inputs or outputs do not match."""
        for kind, wanted, found in (
            ("input", network.n_inputs, spec.n_inputs),
            ("output", network.n_outputs, spec.n_outputs),
        ):
            if wanted != found:
                letter = kind[0].replace("i", "X").replace("o", "Y")
                raise SpecError(
                    f"the property declares {found} {kind} variables ({letter}_0 to {letter}_{found - 1}) "
                    f"but the model has {wanted} {kind} values; use the property made for this model",
                    spec.source or None,
                )
        spec = _admit_representable(spec, replay)
        return cls(network, spec, replay, tuple(range(len(spec.disjuncts))))

    @property
    def disjuncts(self) -> tuple[Disjunct, ...]:
        return self.spec.disjuncts

    def restricted(self, positions: Sequence[int]) -> Query:
        """The query for some of the open disjuncts, by their position here."""
        spec = dataclasses.replace(self.spec, disjuncts=tuple(self.disjuncts[i] for i in positions))
        return dataclasses.replace(self, spec=spec, indices=tuple(self.indices[i] for i in positions))


def _admit_representable(spec: Spec, replay: Replay) -> Spec:
    """The spec with every box side that holds no value of the input type stretched to the nearest one.

    An input fixed to 0.1 cannot be given to a float32 model: what the model gets is the float32 next to it.  The
    stretched box holds both, so ``unsat`` covers either reading and a counterexample can be replayed.  The stretch is
    below one unit in the last place, and nothing else changes.
    """
    stretched: dict[tuple[int, int], tuple[Array, Array]] = {}
    disjuncts = []
    for disjunct in spec.disjuncts:
        key = (id(disjunct.lower), id(disjunct.upper))
        if key not in stretched:
            nearest = replay.representable(disjunct.lower, disjunct.lower, disjunct.upper)
            inside = bool(np.all((disjunct.lower <= nearest) & (nearest <= disjunct.upper)))
            stretched[key] = (
                (disjunct.lower, disjunct.upper)
                if inside
                else (np.minimum(disjunct.lower, nearest), np.maximum(disjunct.upper, nearest))
            )
        lower, upper = stretched[key]
        disjuncts.append(dataclasses.replace(disjunct, lower=lower, upper=upper))
    return dataclasses.replace(spec, disjuncts=tuple(disjuncts))
