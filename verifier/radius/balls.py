"""Decide linf balls by branch and bound with hull planes: the last and strongest engine for ``linf``.

Every ball is a decision: is there a counterexample within this distance?  One search on ReLU phases
(``search.hull_split``) answers for all targets, over one relaxation.  Solutions of the relaxations are where the
network is nearly wrong, and good starts for an attack; descents (``descent``) come in turns with the balls.

The largest ball of interest is the goal: where it holds, the question is answered.  The time that a ball takes grows
exponentially with its radius, for some networks tenfold within half a thousandth, so smaller balls come nearly for
free.  After a first try at the goal the balls therefore go up a ladder on which every one is expected to take a few
times as long as the one before, until the goal is within reach.  No work is done twice: searches go on where they
stopped, and a smaller ball inherits what a larger one has left open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.level import Level
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import encodable
from verifier.encodings.milp.triangle import triangle_program
from verifier.radius.descent import DescentOptions, descend
from verifier.radius.fab import FabOptions, fab
from verifier.radius.question import Question
from verifier.radius.record import Record
from verifier.search.hull_ascent import HullAscent, fits
from verifier.search.hull_split import HullSplitting, Leaf

Array = NDArray[np.float64]

STAGE = "hull planes"
ATTACK = FabOptions(steps=8, restarts=0)
MOST_NEURONS = 6_000
"""Undecided ones; with more the programs take too long."""
FIRST_TRY = 2.0
"""Seconds for the goal at first, and for any ball before there is anything to go by."""
FIRST_SHARE = 0.6
"""Where the next ball lies between one that holds and the goal, or one that was given up, as long as balls are easy."""
EASY = 0.5
"""Seconds of search up to which a ball says nothing about the next one."""
GROWTH = 3.0
"""How much longer than the last ball the next one is expected to take."""
PATIENCE = 3.0
"""How much longer than expected a ball may take until it is given up for a smaller one."""
LAST = 0.7
"""What part of the time left a ball may be expected to take."""
UNDECIDED = 4.0
"""How many times what has been spent on a ball in vain it is expected to take."""
SHARPER_STEPS, SHARPER_SHARE = 40, 0.25
"""Of the ascents for single neurons, and of a ball's time for all of them."""
ATTACK_SHARE = 0.15
"""Of the time, for descents between the balls."""
OFFER_SHARE = 0.1
"""Of the searches' time, for attacks from solutions of their relaxations."""
SHORTEST = 1.0
"""Seconds of descents that are worth the change."""
SMALLEST_STEP = 0.02
"""Tolerances up to which a ladder's step is not worth its start."""
FINISHED, ACCEPTED = 0.98, 0.9
"""How near to the nearest counterexample, in tolerances, the goal is; a search that has begun is kept up to the second."""


@dataclass
class Balls:
    """Searches by the radius of their balls; only those between the two numbers of the record are kept.

    held: radii and seconds of the balls that hold.  unsuitable: whether the network turned out to be too large for this.
    """

    question: Question
    record: Record
    generator: torch.Generator
    searches: dict[float, HullSplitting] = field(default_factory=dict)
    held: list[tuple[float, float]] = field(default_factory=list)
    unsuitable: bool = False
    _searched: float = 0.0
    _attacked: float = 0.0

    def forget(self) -> None:
        """Drop what is answered."""
        known, nearest = self.record.certified, self.record.adversarial
        kept = {r: search for r, search in self.searches.items() if known < r < nearest}
        self.searches = {r: search for r, search in kept.items() if not search.closed}

    def decide(self, radius: float, deadline: Deadline) -> bool:
        """Whether there is no counterexample in the ball; a search that does not end is kept."""
        record = self.record
        search = self.searches.get(radius)
        if search is None:
            search = self._search(radius, deadline)
            if search is None:
                self.unsuitable = True
                return False
            self.searches[radius] = search
        before = search.seconds
        closed = search.work(deadline, lambda: record.adversarial <= radius)
        self._searched += search.seconds - before
        if closed:
            record.raise_to(np.nextafter(min(radius, record.adversarial), 0.0), STAGE)
            self.held.append((radius, search.seconds))
        self.forget()
        return closed

    def seconds(self, radius: float) -> float | None:
        """How long a ball is expected to take, by the last two that held and by what has been spent on the next larger
        one in vain; None where they say nothing.
        """
        if not self.held or self.held[-1][1] < EASY:
            return None
        far, long = self.held[-1]
        rate = 0.0
        if len(self.held) > 1:
            near, short = self.held[-2]
            rate = np.log(long / max(short, EASY / 4)) / max(far - near, 1e-12)
        failed = self.failed
        if failed is not None:
            spent = UNDECIDED * self.searches[failed].seconds
            rate = max(rate, np.log(max(spent, EASY) / long) / (failed - far))
        return float(long * np.exp(min(max(rate, 0.0) * (radius - far), 50.0)))

    @property
    def failed(self) -> float | None:
        """The smallest ball that was not decided in its time."""
        return min(self.searches, default=None)

    def within(self, seconds: float, farthest: float) -> float:
        """The largest ball up to ``farthest`` that is expected to take no longer."""
        low, high = self.record.certified, farthest
        if (self.seconds(high) or 0.0) <= seconds:
            return high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if (self.seconds(middle) or 0.0) <= seconds else (low, middle)
        return low

    def _search(self, radius: float, deadline: Deadline) -> HullSplitting | None:
        network, ball = self.question.model.network, self.question.ball.shrunk(radius)
        nodes = ball_bounds(network, ball, deadline)
        undecided = sum(int(nodes[network.nodes[k].inputs[0]].unstable.sum()) for k in network.relus)
        if undecided > MOST_NEURONS or nodes[0].level is not Level.RIGOROUS or not encodable(network, nodes):
            return None
        lower, upper = ball.box()
        program = triangle_program(network, lower.numpy(), upper.numpy(), nodes)
        if program.level is not Level.RIGOROUS or not fits(program):
            return None
        hull, signs = HullAscent(program).sharper(deadline.share(SHARPER_SHARE), SHARPER_STEPS)
        return HullSplitting(hull, self.question.rows.outputs.numpy(), signs, self._attack, self._left(radius))

    def _left(self, radius: float) -> list[Leaf] | None:
        """What the next larger ball has left open."""
        larger = [r for r in self.searches if r > radius]
        return self.searches[min(larger)].leaves if larger else None

    def _attack(self, points: Array) -> None:
        """From the solution of a relaxation where the network is nearest to wrong, towards the boundary."""
        if self._attacked > OFFER_SHARE * self._searched + 0.2:
            return
        begun = time.monotonic()
        question, incumbent = self.question, self.record.incumbent
        with torch.no_grad():
            margins = question.margin(question.model.network.forward(torch.from_numpy(points)).numpy())
        best = points[[int(margins.argmin())]]
        incumbent.offer(best)
        fab(question, incumbent, Deadline.never(), ATTACK, self.generator, best)
        self.record.see(STAGE)
        self._attacked += time.monotonic() - begun


def decide_balls(
    question: Question,
    record: Record,
    deadline: Deadline,
    tolerance: float,
    generator: torch.Generator,
    enough: Callable[[], bool],
) -> None:
    """Raise what is certified, and bring down what is attained, until ``enough`` or the time is over."""
    balls = Balls(question, record, generator)
    begun, attacked = record.seconds, 0.0
    while not deadline.expired and not enough() and not balls.unsuitable and np.isfinite(record.adversarial):
        balls.forget()
        radius, seconds = _next(balls, tolerance, deadline.remaining)
        if radius in balls.searches and balls.searches[radius].stuck:
            return
        pause = ATTACK_SHARE * (record.seconds - begun + seconds) - attacked
        if pause > SHORTEST:
            before = record.seconds
            descend(
                question, record.incumbent, deadline.within(pause), generator, DescentOptions(),
                lambda: record.see("attack"),
            )  # fmt: skip
            attacked += max(record.seconds - before, SHORTEST)
            continue
        balls.decide(radius, deadline.within(seconds))


def _next(balls: Balls, tolerance: float, left: float) -> tuple[float, float]:
    """The next ball and the seconds for it, of those that are left."""
    known, nearest = balls.record.certified, balls.record.adversarial
    goal = max(known, nearest - FINISHED * tolerance)
    goal = min([r for r in balls.searches if goal <= r <= nearest - ACCEPTED * tolerance], default=goal)
    if not balls.searches and not balls.held:
        return goal, FIRST_TRY
    failed = balls.failed
    most = goal if failed is None else min(failed, goal)
    expected = balls.seconds(most)
    if expected is None:
        radius = known + FIRST_SHARE * (most - known)
        if most - known > tolerance / 4:
            return radius, FIRST_TRY
        return most, max(FIRST_TRY, left / 4)
    if failed is not None and balls.searches[failed].stuck:
        return (known + failed) / 2 if failed - known > tolerance / 8 else failed, left
    budget = min(LAST * left, GROWTH * balls.held[-1][1])
    radius = balls.within(budget, most)
    if radius - known < SMALLEST_STEP * tolerance:
        return most, left
    return radius, PATIENCE * max(1.0, balls.seconds(radius) or 0.0)
