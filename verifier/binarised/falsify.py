"""Counterexamples on integer levels: straight-through gradients, all targets at once.

Every row of a batch pursues one disjunct.  The forward pass is the exact integer network (sums below 2**24 are exact in
float32), so a row whose slack is not negative *is* a counterexample in integers.  The backward pass replaces the
derivative of a step by a bell around its threshold, the straight-through estimator of Bengio, Leonard and Courville
(2013), in the form of projected gradient descent with signs (Madry et al. 2018) on levels between integers.

What the first waves do not find is left to ``descents``, on the smaller program that presolve makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.binarised.query import Box
from verifier.deadline import Deadline

Integers = NDArray[np.int64]
Singles = NDArray[np.float32]
Judge = Callable[[Integers], bool]


@dataclass(frozen=True)
class FalsifyOptions:
    """restarts: random starts per disjunct and wave, after a first wave from the middle.

    steps: of a descent.  momentum, first_step, last_step: of its updates, in parts of a pixel's range.
    """

    restarts: int = 2
    steps: int = 40
    momentum: float = 0.75
    first_step: float = 0.5
    last_step: float = 0.05
    seed: int = 0


class Falsifier:
    """One box.  ``judge`` is shown every counterexample in integers, k (levels,); True ends the search."""

    def __init__(self, box: Box, judge: Judge, options: FalsifyOptions | None = None) -> None:
        self._options = options or FalsifyOptions()
        self._judge = judge
        self._rng = np.random.default_rng(self._options.seed)
        self._free = box.levels.free
        self._counts = box.levels.count[self._free].astype(np.float32)
        self._size = len(box.levels.count)
        self._layers = [box.layers[0].products.columns(self._free), *(layer.products for layer in box.layers[1:])]
        self._thresholds = [(layer.thresholds - 0.5).astype(np.float32) for layer in box.layers]
        rows = np.concatenate([goal.thresholds for goal in box.goals])
        self._goal_of_row = np.repeat(np.arange(len(box.goals)), [len(goal.thresholds) for goal in box.goals])
        self._goals = len(box.goals)
        self._goal_weights = np.concatenate([goal.weights.toarray() for goal in box.goals]).astype(np.float32)
        self._goal_thresholds = rows.astype(np.float32)
        self._waves = 0
        self.refused = 0
        self.evaluations = 0
        self.best = np.full(self._goals, -np.inf)
        """The largest slack seen of every goal: the negative of what it misses, in integers."""
        self._best_points = np.zeros((self._goals, len(self._free)), np.float32)

    @np.errstate(invalid="ignore")  # see ``network``
    def descend(self, targets: Integers, deadline: Deadline) -> Integers | None:
        """One wave of descents for the goals ``targets``; k (levels,) of an accepted counterexample, or None."""
        options = self._options
        # The first wave starts from the middle alone: where counterexamples abound it is all that is needed.
        middle = self._waves == 0
        target = np.repeat(targets, 1 if middle else options.restarts)
        u = self._starts(len(target), middle)
        self._waves += 1
        velocity = np.zeros_like(u)
        wanted = self._goal_of_row[None, :] == target[:, None]
        sizes = np.geomspace(options.first_step, options.last_step, options.steps)
        for size in sizes:
            k = np.rint(u)
            bits, distances = self._forward(k)
            slack = bits[-1] @ self._goal_weights.T - self._goal_thresholds
            found = self._hits(k, slack)
            if found is not None or deadline.expired or not len(self._free):
                return found
            # Rows of the target that fail are pulled up, the worst hardest.
            missing = np.where(wanted & (slack < 0), np.minimum(1.0 - 0.1 * slack, 4.0), 0.0).astype(np.float32)
            gradient = self._backward(missing @ self._goal_weights, distances)
            norm = np.abs(gradient).mean(axis=1, keepdims=True) + 1e-12
            velocity = options.momentum * velocity + gradient / norm
            u = np.clip(u + size * self._counts * np.clip(velocity, -1, 1), 0, self._counts)
        return None

    def consider(self, points: Integers) -> Integers | None:
        """Points found elsewhere, k (P, levels): their slacks are remembered, a counterexample is judged."""
        if not len(points):
            return None
        k = points[:, self._free].astype(np.float32)
        bits, _ = self._forward(k)
        return self._hits(k, bits[-1] @ self._goal_weights.T - self._goal_thresholds)

    def best_point(self, goal: int) -> Integers:
        """k (levels,) of the best point seen for a goal."""
        k = np.zeros(self._size, np.int64)
        k[self._free] = self._best_points[goal].astype(np.int64)
        return k

    def _starts(self, count: int, middle: bool) -> Singles:
        shape = (count, len(self._free))
        u = self._rng.random(shape, dtype=np.float32) * self._counts
        if middle:
            u[:] = self._counts / 2
        return u

    def _forward(self, k: Singles) -> tuple[list[Singles], list[Singles]]:
        """Bits of every layer, and how far every sum is above its threshold; (B, gates)."""
        self.evaluations += len(k)
        bits, distances = [], []
        before = k
        for layer, threshold in zip(self._layers, self._thresholds, strict=True):
            distance = layer.forward(before) - threshold
            before = (distance > 0).astype(np.float32)
            distances.append(distance)
            bits.append(before)
        return bits, distances

    def _backward(self, gradient: Singles, distances: list[Singles]) -> Singles:
        for layer, distance in zip(reversed(self._layers), reversed(distances), strict=True):
            width = 0.5 * np.abs(distance).mean(axis=1, keepdims=True) + 1
            scaled = distance / width
            gradient = layer.backward(gradient / (1 + scaled * scaled))
        return gradient

    def _hits(self, k: Singles, slack: Singles) -> Integers | None:
        """An accepted counterexample among k (B, free); the best points are remembered."""
        worst = np.full((len(k), self._goals), np.inf, np.float32)
        for row, goal in enumerate(self._goal_of_row.tolist()):
            worst[:, goal] = np.minimum(worst[:, goal], slack[:, row])
        at = worst.argmax(axis=0)
        best = worst[at, np.arange(self._goals)]
        better = best > self.best
        self.best[better] = best[better]
        self._best_points[better] = k[at[better]]
        if best.max(initial=-np.inf) < 0:
            return None
        for row in np.flatnonzero((worst >= 0).any(axis=1))[:4]:
            point = np.zeros(self._size, np.int64)
            point[self._free] = k[row].astype(np.int64)
            if self._judge(point):
                return point
            self.refused += 1
        return None
