"""Candidates before the judge: rounded into the box, run by onnxruntime, checked with zero tolerance.

Nothing but this makes a witness.  The search computes in float32 in an order of its own, so a point that it finds
just below zero may not hold in onnxruntime.  After a refusal a disjunct's points are shown again only when their
margin is twice as deep: a search that hovers at -1e-8 does not spend its time on replays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from verifier.query import Query
from verifier.verdict import Witness

Array = NDArray[np.float64]

TINY = float(np.finfo(np.float32).tiny)
AT_ONCE = 3
"""Points of one disjunct replayed whenever its points are shown."""


class Referee:
    """Judges points of one query and keeps the first witness."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._needed: dict[int, float] = {}
        self.witness: Witness | None = None
        self.replays = 0

    def judge(self, position: int, x: Array) -> bool:
        """Whether x (n_inputs,), moved to the nearest point the model can take, satisfies that disjunct."""
        disjunct = self._query.disjuncts[position]
        point = self._query.replay.representable(x, disjunct.lower, disjunct.upper)
        y = self._query.replay.run(point)
        self.replays += 1
        if not disjunct.holds_exactly(point, y):
            return False
        margin = float(np.max(disjunct.constraints.margins(point, y), initial=-np.inf))
        # The exact check has spoken: a margin above zero is the rounding of this one float64 product.
        self.witness = Witness(point, y, self._query.indices[position], min(margin, 0.0))
        return True

    def judge_all(self, positions: Sequence[int], points: Tensor, margins: Tensor) -> bool:
        """Whether some point with a margin <= 0 is a witness.

        points: (D, K, n_inputs), margins: (D, K), of the disjuncts at ``positions``.
        """
        smallest, order = margins.sort(dim=1)
        for row in (smallest[:, 0] <= 0).nonzero().flatten().tolist():
            position, margin = positions[row], float(smallest[row, 0])
            if margin > self._needed.get(position, 0.0):
                continue
            for k in order[row, :AT_ONCE].tolist():
                if margins[row, k] <= 0 and self.judge(position, points[row, k].double().cpu().numpy()):
                    return True
            self._needed[position] = min(2 * margin, -TINY)
        return False
