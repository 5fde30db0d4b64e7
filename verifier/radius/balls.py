"""Decide linf balls by branch and bound with hull planes: the last and strongest engine for ``linf``.

Every ball is a decision: is there a counterexample within this distance?  One search on ReLU phases
(``search.hull_split``) answers for all targets, over one relaxation.  Solutions of the relaxations are where the
network is nearly wrong, and good starts for an attack; descents (``descent``) come in turns with the balls.

The largest ball of interest is the goal: where it holds, the question is answered.  After a first try at the goal the
balls go up a ladder (``ladder``) until it is within reach.  No work is done twice: searches go on where they stopped,
and a smaller ball inherits what a larger one has left open.
"""

from __future__ import annotations

import math
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
from verifier.radius.ladder import Failed, Ladder
from verifier.radius.question import Question
from verifier.radius.record import Record
from verifier.search.hull_ascent import HullAscent, fits
from verifier.search.hull_split import HullOptions, HullSplitting, Leaf

Array = NDArray[np.float64]

STAGE = "hull planes"
ATTACK = FabOptions(steps=8, restarts=0)
MOST_NEURONS = 6_000
"""Undecided ones; with more the programs take too long."""
SHARPER_STEPS, SHARPER_SECONDS = 40, 0.5
"""Of the ascents for single neurons, and for all of them."""
ATTACK_SHARE = 0.15
"""Of the time, for descents between the balls; half as much after each that was in vain."""
OFFER_SHARE = 0.1
"""Of the searches' time, for attacks from solutions of their relaxations."""
STARTS = 32
"""Solutions of relaxations that are kept for the descents."""
SHORTEST = 1.0
"""Seconds of descents that are worth the change."""
FINISHED, ACCEPTED = 0.98, 0.9
"""How near to the nearest counterexample, in tolerances, the goal is; one begun stays the goal up to the second."""


@dataclass(frozen=True)
class Inherited:
    """What a ball need not do, as larger ones have done it.  seconds: that this took there.  share: of the ball."""

    seconds: float = 0.0
    share: float = 0.0

    def whole(self, own: float) -> float:
        """The seconds that the ball would have taken alone, given its own.

        No more than have been spent; much less where a larger ball has taken long over what is easy in this one.
        """
        return min(self.seconds + own, own / max(1 - self.share, 1e-9))


@dataclass
class Balls:
    """Searches by the radius of their balls; only those between the two numbers of the record are kept.

    held: radii and seconds of the balls that hold.  unsuitable: whether the network is too large for this.  starts:
    solutions of relaxations, (K, n_inputs), where the network is nearest to wrong.
    """

    question: Question
    record: Record
    generator: torch.Generator
    searches: dict[float, HullSplitting] = field(default_factory=dict)
    held: list[tuple[float, float]] = field(default_factory=list)
    unsuitable: bool = False
    starts: Array = field(default_factory=lambda: np.zeros((0, 0)))
    _margins: Array = field(default_factory=lambda: np.zeros(0))
    _inherited: dict[float, Inherited] = field(default_factory=dict)
    _searched: float = 0.0
    _attacked: float = 0.0

    def forget(self) -> None:
        """Drop what is answered."""
        known, nearest = self.record.certified, self.record.adversarial
        kept = {r: search for r, search in self.searches.items() if known < r < nearest}
        self.searches = {r: search for r, search in kept.items() if not search.closed}

    def decide(self, radius: float, seconds: float, deadline: Deadline) -> bool:
        """Whether there is no counterexample in the ball; a search that does not end in so many seconds is kept."""
        record, turn = self.record, deadline.within(seconds)
        search = self.searches.get(radius)
        if search is None:
            search = self.search(radius, deadline)
            if search is None:
                self.unsuitable = True
                return False
            self._inherited[radius] = self._inheritance(radius)
            self.searches[radius] = search
            if turn.expired:
                turn = deadline.within(seconds)
        before = search.seconds
        closed = search.work(turn, lambda: record.adversarial <= radius)
        self._searched += search.seconds - before
        # No other region leads there.
        for point in search.dead_ends:
            self._approach(point)
        if closed:
            # Not cut at the nearest counterexample: one inside the ball is a contradiction, which is raised.
            record.raise_to(math.nextafter(radius, 0.0), STAGE)
            self.held.append((radius, self._inherited[radius].whole(search.seconds)))
        self.forget()
        return closed

    @property
    def targets(self) -> list[int]:
        """Those that are not refuted in the largest ball that has been begun, which is nearly as large as can be."""
        targets, radius = self.question.targets, max(self.searches, default=None)
        if self.question.joint or radius is None:
            return list(targets)
        return [targets[d] for d in self.searches[radius].undecided]

    @property
    def ladder(self) -> Ladder:
        """What is known of the time that balls take."""
        radius = min(self.searches, default=None)
        failed = None
        if radius is not None:
            search, inherited = self.searches[radius], self._inherited[radius]
            spent = inherited.seconds + search.seconds
            failed = Failed(radius, spent, search.stuck, search.remaining, search.closed_share)
        return Ladder(self.record.certified, tuple(self.held), failed)

    def search(self, radius: float, deadline: Deadline) -> HullSplitting | None:
        """For a ball, with what a larger one has left open; None where the network is too large."""
        network, ball = self.question.model.network, self.question.ball.shrunk(radius)
        nodes = ball_bounds(network, ball, deadline)
        undecided = sum(int(nodes[network.nodes[k].inputs[0]].unstable.sum()) for k in network.relus)
        if undecided > MOST_NEURONS or nodes[0].level is not Level.RIGOROUS or not encodable(network, nodes):
            return None
        lower, upper = ball.box()
        program = triangle_program(network, lower.numpy(), upper.numpy(), nodes)
        if program.level is not Level.RIGOROUS or not fits(program):
            return None
        hull, signs = HullAscent(program).sharper(deadline.within(SHARPER_SECONDS), SHARPER_STEPS)
        rows, options = self.question.rows.outputs.numpy(), HullOptions(threads=torch.get_num_threads())
        return HullSplitting(hull, rows, signs, self._attack, self._left(radius), options)

    def _larger(self, radius: float) -> float | None:
        """The next larger ball that has been begun."""
        return min((r for r in self.searches if r > radius), default=None)

    def _left(self, radius: float) -> list[Leaf] | None:
        """What it has left open."""
        larger = self._larger(radius)
        return None if larger is None else self.searches[larger].leaves

    def _inheritance(self, radius: float) -> Inherited:
        larger = self._larger(radius)
        if larger is None:
            return Inherited()
        search, before = self.searches[larger], self._inherited[larger]
        seconds = before.seconds + search.closed_share * search.seconds
        return Inherited(seconds, _share(before.share, search.closed_share))

    def _attack(self, points: Array) -> None:
        """From the solution of a relaxation where the network is nearest to wrong, as long as there is time for it."""
        if self._attacked > OFFER_SHARE * self._searched + 0.2:
            return
        begun, question = time.monotonic(), self.question
        with torch.no_grad():
            margins = question.margin(question.model.network.forward(torch.from_numpy(points)).numpy())
        everywhere = np.vstack([self.starts.reshape(-1, points.shape[1]), points])
        least = np.concatenate([self._margins, margins])
        chosen = np.argsort(least, kind="stable")[:STARTS]
        self.starts, self._margins = everywhere[chosen], least[chosen]
        self._approach(points[int(margins.argmin())])
        self._attacked += time.monotonic() - begun

    def _approach(self, point: Array) -> None:
        """Look for a counterexample at the point (n_inputs,), and from there towards the boundary."""
        incumbent = self.record.incumbent
        incumbent.offer(point[None])
        fab(self.question, incumbent, Deadline.never(), ATTACK, self.generator, point[None])
        self.record.see(STAGE)


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
    begun, attacked, share = record.seconds, 0.0, ATTACK_SHARE
    while not deadline.expired and not enough() and not balls.unsuitable and math.isfinite(record.adversarial):
        balls.forget()
        radius, seconds = balls.ladder.next(_goal(balls, tolerance), tolerance, deadline.remaining)
        if radius in balls.searches and balls.searches[radius].stuck:
            return
        pause = share * (record.seconds - begun + seconds) - attacked
        if pause > SHORTEST:
            before, nearest = record.seconds, record.adversarial
            descend(
                question, record.incumbent, deadline.within(pause), generator, DescentOptions(),
                lambda: record.see("attack"), balls.starts, balls.targets,
            )  # fmt: skip
            attacked += max(record.seconds - before, SHORTEST)
            share = ATTACK_SHARE if record.adversarial < nearest else share / 2
            continue
        balls.decide(radius, seconds, deadline)


def _share(before: float, of_the_rest: float) -> float:
    """What is closed of a whole, if so much was before and so much is of what was left."""
    return 1 - (1 - before) * (1 - of_the_rest)


def _goal(balls: Balls, tolerance: float) -> float:
    """The ball that answers the question; one that has been begun rather than another."""
    nearest = balls.record.adversarial
    goal = max(balls.record.certified, nearest - FINISHED * tolerance)
    return min([r for r in balls.searches if goal <= r <= nearest - ACCEPTED * tolerance], default=goal)
