"""Neighbourhoods of good points, searched exactly: large-neighbourhood search (Shaw 1998) on input levels.

Most levels keep a good point's values, the rest, drawn at random, is free.  Presolve makes such a box of a small part
of the gates, and an exact engine finds what descents do not, or says in a moment that there is nothing.  What is asked
for is a slack half as far from 0 as the best one known, so that far targets are approached step by step.

How much is free adapts to how quickly the engine answers, goal by goal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from verifier.binarised.levels import Lattice
from verifier.binarised.network import Gates
from verifier.binarised.presolve import Reduced, presolve
from verifier.binarised.query import Box

Integers = NDArray[np.int64]

FIRST_SHARE, WIDER, NARROWER = 0.6, 1.06, 0.92
"""Of the levels that are free at first, and how the share changes after quick answers and after slow ones."""


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """fixed: k (levels,) of the levels that are not free, 0 elsewhere.  reduced: the program of the rest."""

    goal: int
    fixed: Integers
    counts: Integers
    reduced: Reduced

    def point(self, levels: Integers) -> Integers:
        """k (levels,) of the box for levels of the program."""
        return self.fixed + self.reduced.point(levels, self.counts)

    def hint(self, k: Integers) -> Integers:
        """The program's levels at k (levels,) of the box."""
        return self.reduced.levels(k)


class Neighbourhoods:
    """Of one box."""

    def __init__(self, box: Box, seed: int = 0) -> None:
        self._box, self._rng = box, np.random.default_rng(seed)
        self._shares = [FIRST_SHARE] * len(box.goals)

    def draw(self, goal: int, k: Integers, slack: int) -> Neighbourhood:
        """A neighbourhood of k (levels,), whose slack for the goal is ``slack``; its program may be empty."""
        box, levels = self._box, self._box.levels
        assert not isinstance(levels, Lattice)
        free = (self._rng.random(len(k)) < self._shares[goal]) & (levels.count > 0)
        fixed = np.where(free, 0, k)
        first = box.layers[0]
        shifted = Gates(first.weights, first.thresholds - first.weights @ fixed, first.products)
        wanted = box.goals[goal]
        nearer = replace(wanted, thresholds=wanted.thresholds - max(0, -slack) // 2)
        goals = tuple(nearer if number == goal else other for number, other in enumerate(box.goals))
        counts = np.where(free, levels.count, 0)
        part = replace(box, levels=replace(levels, count=counts), layers=(shifted, *box.layers[1:]), goals=goals)
        return Neighbourhood(goal, fixed, counts, presolve(part, (goal,)))

    def learn(self, goal: int, quick: bool) -> None:
        """The next neighbourhoods are wider after a quick answer, narrower otherwise."""
        self._shares[goal] = min(1.0, self._shares[goal] * (WIDER if quick else NARROWER))
