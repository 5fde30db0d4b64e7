"""The nearest counterexample so far: only what onnxruntime confirms counts.

A candidate is drawn towards the centre as far as it stays a counterexample, rounded to the model's input type inside
the box, and replayed.  It also has to be one for the network in float64: where float32 inference differs from the
function that bounds speak of, a point may be a counterexample to the one and not to the other.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.bounds.ball import Norm
from verifier.radius.question import Question

Array = NDArray[np.float64]

SCALES = 24
"""Points tried along a segment at once; every round narrows the boundary down by that factor."""
ROUNDS = 6
ROUNDING = 1e-9
CONFIRMED_AT_ONCE = 6
OUTWARD = np.array([3e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4])
"""How much further out than the boundary is tried."""


class Incumbent:
    """distance: of the witness, inf without one.  x, y: the witness and what onnxruntime gives there.

    floor: what is certified.  A candidate that seems to be nearer by less than rounding lies on the boundary, where
    the sign of its margin is rounding too; it is passed over.  One that is nearer by more is a contradiction.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self.distance = math.inf
        self.floor = 0.0
        self.x: Array | None = None
        self.y: Array | None = None

    def offer(self, points: Array, wanted: float = math.inf) -> bool:
        """Try points (K, n_inputs), the nearest first; True if one is confirmed nearer than the witness.

        wanted: points no nearer than this are not worth a replay.
        """
        found = False
        order = sorted(range(len(points)), key=lambda i: self._question.distance(points[i]))
        for i in order[:CONFIRMED_AT_ONCE]:
            for candidate in self._drawn(points[i]):
                if self._question.distance(candidate) >= min(self.distance, wanted):
                    break
                if self.confirm(candidate):
                    found = True
                    break
        return found

    def confirm(self, x: Array) -> bool:
        """Whether x, (n_inputs,), is a counterexample nearer than the witness; it is the witness then."""
        question = self._question
        if ((x < question.lower) | (x > question.upper)).any():
            return False
        distance = question.distance(x)
        if 0 < self.floor * (1 - ROUNDING) <= distance <= self.floor:
            return False
        if distance >= self.distance or self._margins(x[None])[0] > 0:
            return False
        y = question.model.replay.run(x)
        if not np.isfinite(y).all() or question.margin(y) > 0:
            return False
        self.distance, self.x, self.y = distance, x, y
        return True

    def _drawn(self, x: Array) -> list[Array]:
        """Counterexamples on the segment through x, the nearest first, on the grid of inputs.

        The first is at the boundary in float64, where float32 may differ: the next ones are a little further out.
        """
        question = self._question
        if question.ball.norm is Norm.L0:
            fewest = self._fewest(x)
            return [] if fewest is None else [fewest]
        low, high, scale = 0.0, 1.05, math.nan
        for turn in range(ROUNDS):
            scales = np.linspace(low, high, SCALES)
            if turn == 0:
                scales = np.sort(np.append(scales, 1 + np.geomspace(1e-7, 1e-2, 6)))
            hits = np.flatnonzero(self._margins(self._along(x, scales)) <= 0)
            if not len(hits):
                break
            first = int(hits[0])
            scale = float(scales[first])
            if first == 0:
                break
            low, high = float(scales[first - 1]), scale
        if math.isnan(scale):
            return []
        return list(self._along(x, scale * (1 + np.append(0.0, OUTWARD))))

    def _along(self, x: Array, scales: Array) -> Array:
        centre = self._question.centre
        return self._rounded(centre + scales[:, None] * (x - centre))

    def _fewest(self, x: Array) -> Array | None:
        """Groups go back to the centre one by one, while what is left is a counterexample."""
        question = self._question
        assert question.ball.groups is not None
        groups = question.ball.groups.numpy()
        x = self._rounded(x[None])[0]
        if self._margins(x[None])[0] > 0:
            return None
        while True:
            changed = np.unique(groups[x != question.centre])
            if not len(changed):
                return x
            fewer = np.where(groups[None] == changed[:, None], question.centre, x)
            margins = self._margins(fewer)
            # The one that is missed least, dear ones first.
            score = margins / question.ball.weights.numpy()[changed]
            best = int(np.argmin(np.where(margins <= 0, score, np.inf)))
            if margins[best] > 0:
                return x
            x = fewer[best]

    def _rounded(self, points: Array) -> Array:
        """On the grid of the model's input type, inside the box and with unmoved inputs where they were."""
        question = self._question
        inside = np.clip(points, question.lower, question.upper)
        frozen = (question.ball.below.numpy() == 0) & (question.ball.above.numpy() == 0)
        inside = np.where(frozen, question.centre, inside)
        sides = (np.tile(side, len(inside)) for side in (question.lower, question.upper))
        return question.model.replay.representable(inside.ravel(), *sides).reshape(inside.shape)

    def _margins(self, points: Array) -> Array:
        network = self._question.model.network
        with torch.no_grad():
            return self._question.margin(network.forward(torch.from_numpy(points)).numpy())
