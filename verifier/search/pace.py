"""How fast a search goes, and how many regions it takes at once."""

from __future__ import annotations

import math
import time


class Pace:
    """Regions per second.  Restarted with every turn, since the time between turns is not the search's."""

    def __init__(self) -> None:
        self._begun, self._before = time.monotonic(), 0

    def start(self, regions: int) -> None:
        """A turn begins with this many regions visited."""
        self._begun, self._before = time.monotonic(), regions

    def rate(self, regions: int) -> float:
        """Regions per second in this turn, when this many have been visited in all."""
        return (regions - self._before) / max(time.monotonic() - self._begun, 1e-9)


class BatchSize:
    """Twice as many regions at once for as long as that bounds more of them per second, and half where it takes long.

    first, most: at first and at most.  longest: seconds that a batch should not exceed.
    """

    def __init__(self, first: int, most: int, longest: float = math.inf) -> None:
        self._most, self._longest = max(1, most), longest
        self.count = min(first, self._most)
        self._rate = 0.0

    def learn(self, count: int, seconds: float) -> None:
        """A batch of so many regions took so long."""
        rate = count / max(seconds, 1e-9)
        if seconds > self._longest:
            self.count = max(1, self.count // 2)
        elif count == self.count and rate > 1.05 * self._rate:
            self._rate = rate
            self.count = min(2 * self.count, self._most)
