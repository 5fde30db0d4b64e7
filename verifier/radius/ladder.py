"""Which ball to decide next, and for how long: the time that balls take grows exponentially with their radius.

For the networks at hand tenfold within half a thousandth, so all balls before the last one cost little together where
each is expected to take a few times as long as the one before.  What is expected is extrapolated from the last ball
that held, the last one that took much less, and from what has been spent in vain on a larger one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST_TRY = 2.0
"""Seconds for the goal at first, and for any ball before there is anything to go by."""
FIRST_SHARE = 0.6
"""Where the next ball lies between one that holds and the goal, or one that was given up, as long as balls are easy."""
EASY = 0.5
"""Seconds of search up to which a ball says nothing about the next one."""
GROWTH = 3.0
"""How much longer than the last ball the next one is expected to take."""
SKIPPED = 2.0
"""A ball that is expected to take up to so many steps of that kind is taken at once, without the step before."""
PATIENCE = 2.0
"""How much longer than expected a ball may take until it is given up for a smaller one."""
UNDECIDED = 4.0
"""How many times what has been spent on a ball in vain it is expected to take."""
PROMISING = 1.5
"""A ball that was begun is gone on with as long as so many times what it seems to need still is left."""
TRUST = 4.0
"""That counts while PROMISING times what it seems to need is below so many times what has been spent: what is easy is
closed first, so promises made early are not kept."""
STRETCH = 0.12
"""Of what is left, after which it is judged anew."""
LAST = 0.7
"""What part of the time left a ball may be expected to take."""
SMALLEST_STEP, NO_ROOM = 0.02, 0.25
"""Tolerances: up to the first a step is not worth its start, up to the second easy balls are not tried in between."""
EASIER = 0.6
"""What part of a ball's time another one took at most that says something about the rate."""
STEEPEST = 50.0
"""Of exponents."""


@dataclass(frozen=True)
class Failed:
    """The smallest ball that was not decided in its time.

    stuck: whether more time would not help.  remaining: seconds that it seems to need still.  closed: the share of it
    that need not be looked at in smaller balls.
    """

    radius: float
    seconds: float
    stuck: bool
    remaining: float = math.inf
    closed: float = 0.0

    @property
    def promised(self) -> float:
        """The same where it is to be trusted, or else infinity."""
        return self.remaining if PROMISING * self.remaining < TRUST * self.seconds else math.inf


@dataclass(frozen=True)
class Ladder:
    """known: what is certified.  held: radii and seconds of the balls that were decided, in their order; what was spent
    on a larger ball whose open regions were all that was left to do counts.
    """

    known: float
    held: tuple[tuple[float, float], ...]
    failed: Failed | None

    def seconds(self, radius: float) -> float | None:
        """How long a ball is expected to take; None where there is nothing to go by."""
        if not self.held or self.held[-1][1] < EASY:
            return None
        far, long = self.held[-1]
        rate = 0.0
        easier = [(near, short) for near, short in self.held if near < far and short < EASIER * long]
        if easier:
            near, short = easier[-1]
            rate = math.log(long / max(short, EASY / 4)) / (far - near)
        if self.failed is not None:
            spent = max(self.failed.seconds + min(self.failed.remaining, (UNDECIDED - 1) * self.failed.seconds), EASY)
            rate = max(rate, math.log(spent / long) / max(self.failed.radius - far, 1e-12))
        return long * math.exp(min(max(rate, 0.0) * (radius - far), STEEPEST))

    def left(self, radius: float) -> float:
        """The same without what has been done already; 0 where there is nothing to go by."""
        seconds, failed = self.seconds(radius) or 0.0, self.failed
        if failed is None or radius > failed.radius:
            return seconds
        return (1 - failed.closed) * seconds if radius < failed.radius else min(seconds, failed.promised)

    def next(self, goal: float, tolerance: float, left: float) -> tuple[float, float]:
        """The next ball, up to ``goal``, and the seconds for it, of those that are left."""
        if self.failed is None and not self.held:
            return goal, FIRST_TRY
        most = goal if self.failed is None else min(self.failed.radius, goal)
        if self.seconds(most) is None:
            if most - self.known > NO_ROOM * tolerance:
                return self.known + FIRST_SHARE * (most - self.known), FIRST_TRY
            return most, max(FIRST_TRY, left / 4)
        if self.failed is not None and self.failed.stuck:
            room = self.failed.radius - self.known > NO_ROOM / 2 * tolerance
            return (self.known + self.failed.radius) / 2 if room else self.failed.radius, left
        if self.failed is not None and self.failed.radius <= goal and PROMISING * self.failed.promised < left:
            return self.failed.radius, max(FIRST_TRY, min(STRETCH * left, PATIENCE * self.failed.promised))
        step = GROWTH * self.held[-1][1]
        # What was given up for its time is no reason to stop short of a goal that is within reach now.
        for ball in (goal, most):
            if self.left(ball) <= min(LAST * left, SKIPPED * step):
                return ball, PATIENCE * max(1.0, self.left(ball))
        radius = self._within(min(LAST * left, step), most)
        if radius - self.known < SMALLEST_STEP * tolerance:
            return most, left
        if most - radius < SMALLEST_STEP * tolerance:
            radius = most
        return radius, PATIENCE * max(1.0, self.left(radius))

    def _within(self, seconds: float, farthest: float) -> float:
        """The largest ball up to ``farthest`` that is expected to take no longer."""
        low, high = self.known, farthest
        if self.left(high) <= seconds:
            return high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.left(middle) <= seconds else (low, middle)
        return low
