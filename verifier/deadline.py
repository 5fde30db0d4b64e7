"""One deadline on the monotonic clock, passed down to every loop and every solver call."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Deadline:
    """A moment on ``time.monotonic()``; ``Deadline.after(90)`` ends 90 seconds from now.

    stop: where given, setting it makes the deadline pass at once, for work in other threads.
    """

    end: float
    stop: threading.Event | None = None

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @classmethod
    def never(cls) -> Deadline:
        return cls(math.inf)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return 0.0 if self._stopped else max(0.0, self.end - time.monotonic())

    @property
    def expired(self) -> bool:
        return self._stopped or time.monotonic() >= self.end

    @property
    def _stopped(self) -> bool:
        return self.stop is not None and self.stop.is_set()

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and ``seconds`` from now."""
        return replace(self, end=min(self.end, time.monotonic() + seconds))

    def share(self, fraction: float) -> Deadline:
        """A deadline that leaves all but ``fraction`` of the remaining time to later stages."""
        return self.within(fraction * self.remaining)
