"""Counterexamples of a program of gates: straight-through descents that start again from the best points found.

The same projected gradient as in ``falsify`` (Bengio, Leonard and Courville 2013; Madry et al. 2018), on the smaller
program that presolve leaves, and with what its first wave does not need:

* The bell that replaces a step's derivative is narrow: a fraction of the layer's mean distance to the thresholds, and
  another one for every row of a batch, because no single width serves all networks.
* The best points of every target are kept; nine starts in ten are such a point with a part of its levels drawn
  anew: a large-neighbourhood search whose neighbourhoods are searched by gradients.
* Points found elsewhere, where a relaxation is best or a solver's proposal was nearly reached, are starts as well.
* Targets are drawn by how near they have come.
* Between waves, moves of one or two levels from a kept point.  Their score adds to the exact slack how firmly the last
  layer's gates stand, which tells plateau points apart.

All slacks are exact (sums of integers below 2**24 in float32).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.binarised.network import Products
from verifier.deadline import Deadline
from verifier.encodings.sat.program import Program

Integers = NDArray[np.int64]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class DescentOptions:
    """rows: descents per wave.  steps: of each.  pool: points kept per target.

    width: of the bell, in mean distances, and floor: what is added to it; momentum; first_step, last_step, in
    parts of a level's range: ranges from which every row draws.
    fresh: share of random starts.  redrawn: largest part of a kept point that is drawn anew.
    warmth: slack by which a target may be behind before it is drawn e times less often.
    moves: per round of climbing.  rounds: of climbing after every wave.  firmness: weight of the last layer's firmness.
    """

    rows: int = 96
    steps: int = 200
    pool: int = 16
    width: tuple[float, float] = (0.03, 0.3)
    floor: tuple[float, float] = (0.1, 1.0)
    momentum: tuple[float, float] = (0.5, 0.95)
    first_step: tuple[float, float] = (0.1, 0.7)
    last_step: tuple[float, float] = (0.01, 0.1)
    fresh: float = 0.1
    redrawn: float = 0.6
    warmth: float = 2.0
    moves: int = 256
    rounds: int = 20
    firmness: float = 0.3


class Descents:
    """One program.  The search is continued from call to call."""

    def __init__(self, program: Program, seed: int = 0, options: DescentOptions | None = None) -> None:
        self._options = options or DescentOptions()
        self._rng = np.random.default_rng(seed)
        self._counts = program.counts.astype(np.float32)
        asserted, layers = program.asserted, program.layers
        ones = np.all(asserted.weights.data == 1) and asserted.weights.nnz == asserted.weights.shape[1]
        self._alternatives = bool(layers) and len(asserted) == 1 and asserted.thresholds[0] == 1 and bool(ones)
        if self._alternatives:
            # One of the last layer's gates has to hold: each is a target.
            asserted, layers = layers[-1], layers[:-1]
        self._layers = [Products(layer.weights) for layer in layers]
        self._thresholds = [(layer.thresholds - 0.5).astype(np.float32) for layer in layers]
        self._rows = asserted.weights.toarray().astype(np.float32)
        self._needed = asserted.thresholds.astype(np.float32)
        self._row_target = np.arange(len(asserted)) if self._alternatives else np.zeros(len(asserted), np.int64)
        self.targets = int(self._row_target.max(initial=0)) + 1
        self._pools: list[list[tuple[float, Singles]]] = [[] for _ in range(self.targets)]
        self._seeds: list[Singles] = []
        self.evaluations = 0

    def seed(self, points: Sequence[Integers]) -> None:
        """Levels (levels,) found elsewhere, where the next descents begin."""
        self._seeds += [np.clip(point, 0, self._counts).astype(np.float32) for point in points]

    @property
    def best(self) -> Integers:
        """The best points (P, levels) so far, those of the nearest target first."""
        firsts = [pool[0] for pool in self._pools if pool]
        points = [point for _, point in sorted(firsts, key=lambda entry: -entry[0])]
        return np.array(points, np.int64).reshape(len(points), len(self._counts))

    def kept(self, target: int) -> Integers | None:
        """One of the points (levels,) kept for a target, at random; None while there is none."""
        pool = self._pools[target]
        return pool[int(self._rng.integers(len(pool)))][1].astype(np.int64) if pool else None

    @np.errstate(invalid="ignore")  # see ``network``
    def search(self, deadline: Deadline) -> Integers | None:
        """Levels (levels,) that satisfy the program, or None when time is over."""
        while len(self._counts) and self._layers and not deadline.expired:
            found = self._wave(deadline)
            if found is None and not deadline.expired:
                found = self._climb(deadline)
            if found is not None:
                return found
        return None

    def _wave(self, deadline: Deadline) -> Integers | None:
        options, rng = self._options, self._rng
        begun = all(self._pools)
        targets = self._drawn() if begun else np.repeat(np.arange(self.targets), 8)
        size = len(targets)
        u = self._starts(targets, begun)
        if begun:
            # Not before: the first wave fills every target's pool.
            self._enter_seeds(u, targets)
        width, floor = self._range(options.width, size), self._range(options.floor, size)
        momentum = self._range(options.momentum, size)
        first, last = self._range(options.first_step, size), self._range(options.last_step, size)
        velocity = np.zeros_like(u)
        own = self._row_target[None, :] == targets[:, None]
        best, points = np.full(size, -np.inf, np.float32), np.zeros_like(u)
        for step in range(options.steps):
            k = np.rint(u)
            bits, distances = self._forward(k)
            slack = bits @ self._rows.T - self._needed
            found = self._hit(k, slack)
            if found is not None:
                return found
            reached = np.where(own, slack, np.inf).min(axis=1)
            better = reached > best
            best[better], points[better] = reached[better], k[better]
            if deadline.expired:
                break
            missing = np.where(own & (slack < 0), np.minimum(1.0 - 0.1 * slack, 4.0), 0.0).astype(np.float32)
            gradient = self._backward(missing @ self._rows, distances, width, floor)
            gradient /= np.abs(gradient).mean(axis=1, keepdims=True) + 1e-12
            velocity = momentum * velocity + gradient
            length = first * (last / first) ** (step / (options.steps - 1))
            u = np.clip(u + length * self._counts * np.clip(velocity, -1, 1), 0, self._counts)
        order = rng.permutation(size)
        for row in order.tolist():
            self._keep(int(targets[row]), float(best[row]), points[row])
        return None

    def _drawn(self) -> Integers:
        """A target per row, the nearest most often."""
        reached = np.array([pool[0][0] for pool in self._pools])
        weights = np.exp((reached - reached.max()) / self._options.warmth)
        return self._rng.choice(self.targets, self._options.rows, p=weights / weights.sum())

    def _starts(self, targets: Integers, begun: bool) -> Singles:
        options, rng = self._options, self._rng
        u = rng.random((len(targets), len(self._counts)), dtype=np.float32) * self._counts
        if not begun:
            return u
        part = np.where(rng.random(len(targets)) < options.fresh, 1.0, options.redrawn * rng.random(len(targets)))
        kept = np.stack([self._pools[t][int(rng.integers(len(self._pools[t])))][1] for t in targets.tolist()])
        return np.where(rng.random(u.shape) < part[:, None], u, kept).astype(np.float32)

    def _enter_seeds(self, u: Singles, targets: Integers) -> None:
        """Put points found elsewhere in the place of starts (B, levels), each for the target nearest to it."""
        seeds, self._seeds = self._seeds[: len(u)], self._seeds[len(u) :]
        if not seeds:
            return
        u[: len(seeds)] = np.stack(seeds)
        bits, _ = self._forward(u[: len(seeds)])
        slack = bits @ self._rows.T - self._needed
        reached = np.full((len(seeds), self.targets), np.inf, np.float32)
        for row, target in enumerate(self._row_target.tolist()):
            reached[:, target] = np.minimum(reached[:, target], slack[:, row])
        targets[: len(seeds)] = reached.argmax(axis=1)

    def _range(self, ends: tuple[float, float], size: int) -> Singles:
        """(size, 1), evenly in the logarithm."""
        return np.exp(self._rng.uniform(np.log(ends[0]), np.log(ends[1]), size)).astype(np.float32)[:, None]

    def _climb(self, deadline: Deadline) -> Integers | None:
        """Moves of one or two levels from a kept point; plateaus are walked."""
        options, rng = self._options, self._rng
        target = int(self._drawn()[0])
        mine = self._row_target == target
        k = self._pools[target][int(rng.integers(len(self._pools[target])))][1]
        counts = self._counts.astype(np.int64)
        score = -np.inf
        for _ in range(options.rounds):
            if deadline.expired:
                break
            trial = np.repeat(k[None], options.moves, axis=0)
            index = np.arange(options.moves)
            for side in (index, index[: options.moves // 2]):
                place = rng.integers(len(counts), size=len(side))
                far = rng.integers(0, counts[place] + 1)
                at = trial[side, place]
                trial[side, place] = np.where(far == at, counts[place] - at, far)
            bits, distances = self._forward(trial)
            slack = bits @ self._rows.T - self._needed
            found = self._hit(trial, slack)
            if found is not None:
                return found
            firm = 1 / (1 + np.exp(-np.clip(distances[-1], -30, 30)))
            soft = firm @ self._rows[mine].T - self._needed[mine]
            own = slack[:, mine].min(axis=1)
            scores = own + options.firmness * soft.min(axis=1)
            chosen = int(scores.argmax())
            if scores[chosen] >= score - 0.3 * rng.exponential():
                k, score = trial[chosen], float(scores[chosen])
                self._keep(target, float(own[chosen]), k)
        return None

    def _keep(self, target: int, slack: float, point: Singles) -> None:
        """Enter a point into its pool; a newer one goes before those that are as good."""
        pool = self._pools[target]
        place = next((i for i, (other, _) in enumerate(pool) if other <= slack), len(pool))
        if place < self._options.pool:
            pool.insert(place, (slack, point.copy()))
            del pool[self._options.pool :]

    def _forward(self, k: Singles) -> tuple[Singles, list[Singles]]:
        """The last layer's bits, and how far every sum is above its threshold; (B, gates)."""
        self.evaluations += len(k)
        distances, before = [], k
        for layer, threshold in zip(self._layers, self._thresholds, strict=True):
            distance = layer.forward(before) - threshold
            before = (distance > 0).astype(np.float32)
            distances.append(distance)
        return before, distances

    def _backward(self, gradient: Singles, distances: list[Singles], width: Singles, floor: Singles) -> Singles:
        for layer, distance in zip(reversed(self._layers), reversed(distances), strict=True):
            scaled = distance / (width * np.abs(distance).mean(axis=1, keepdims=True) + floor)
            gradient = layer.backward(gradient / (1 + scaled * scaled))
        return gradient

    def _hit(self, k: Singles, slack: Singles) -> Integers | None:
        fine = slack >= 0
        rows = np.flatnonzero(fine.any(axis=1) if self._alternatives else fine.all(axis=1))
        return k[rows[0]].astype(np.int64) if len(rows) else None
