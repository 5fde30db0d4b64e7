"""A candidate point as a witness, if onnxruntime agrees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verifier.query import Query
from verifier.verdict import Witness


def confirm(query: Query, position: int, point: NDArray[np.float64]) -> Witness | None:
    """Round a point into the box of the disjunct at ``position``, replay it, check it with zero tolerance."""
    disjunct = query.disjuncts[position]
    x = query.replay.representable(point, disjunct.lower, disjunct.upper)
    y = query.replay.run(x)
    if not disjunct.holds_exactly(x, y):
        return None
    return Witness(x, y, query.indices[position], float(disjunct.constraints.margins(x, y).max(initial=-np.inf)))
