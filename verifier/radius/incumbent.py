"""The nearest counterexample so far: only what onnxruntime confirms counts.

A candidate is drawn towards the centre as far as it stays a counterexample, rounded to the model's input type inside the
box, and replayed.  It also has to be one for the network in float64: where float32 inference differs from the function
that bounds speak of, a point may be a counterexample to the one and not to the other.
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
CONFIRMED_AT_ONCE = 6


class Incumbent:
    """distance: of the witness, inf without one.  x, y: the witness and what onnxruntime gives there."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self.distance = math.inf
        self.x: Array | None = None
        self.y: Array | None = None

    def offer(self, points: Array, wanted: float = math.inf) -> bool:
        """Try points (K, n_inputs), the nearest first; True if one is confirmed nearer than the witness.

        wanted: points no nearer than this are not worth a replay.
        """
        found = False
        order = sorted(range(len(points)), key=lambda i: self._question.distance(points[i]))
        for i in order[:CONFIRMED_AT_ONCE]:
            candidate = self._drawn(points[i])
            if candidate is not None and self._question.distance(candidate) < min(self.distance, wanted):
                found |= self.confirm(candidate)
        return found

    def confirm(self, x: Array) -> bool:
        """Whether x, (n_inputs,), is a counterexample nearer than the witness; it is the witness then."""
        question = self._question
        if ((x < question.lower) | (x > question.upper)).any():
            return False
        distance = question.distance(x)
        if distance >= self.distance or self._margins(x[None])[0] > 0:
            return False
        y = question.model.replay.run(x)
        if not np.isfinite(y).all() or question.margin(y) > 0:
            return False
        self.distance, self.x, self.y = distance, x, y
        return True

    def _drawn(self, x: Array) -> Array | None:
        """The point nearest to the centre on the segment through x that is a counterexample, on the grid of inputs."""
        question = self._question
        if question.ball.norm is Norm.L0:
            return self._fewest(x)
        low, high, best = 0.0, 1.05, None
        for turn in range(ROUNDS):
            scales = np.linspace(low, high, SCALES)
            if turn == 0:
                scales = np.append(scales, 1 + np.geomspace(1e-7, 1e-2, 6))
                scales.sort()
            points = self._rounded(question.centre + scales[:, None] * (x - question.centre))
            hits = np.flatnonzero(self._margins(points) <= 0)
            if not len(hits):
                return best
            first = int(hits[0])
            best = points[first]
            if first == 0:
                return best
            low, high = scales[first - 1], scales[first]
        return best

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
