"""One deadline on the monotonic clock, passed down to every loop and every solver call."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """A moment on ``time.monotonic()``; ``Deadline.after(90)`` ends 90 seconds from now."""

    end: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @classmethod
    def never(cls) -> Deadline:
        return cls(math.inf)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.end - time.monotonic())

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.end

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and ``seconds`` from now."""
        return Deadline(min(self.end, time.monotonic() + seconds))

    def share(self, fraction: float) -> Deadline:
        """A deadline that leaves all but ``fraction`` of the remaining time to later stages."""
        return self.within(fraction * self.remaining)
