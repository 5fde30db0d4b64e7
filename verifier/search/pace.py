"""How fast a search goes: regions per second since it was last set to work."""

from __future__ import annotations

import time


class Pace:
    """Restarted with every turn, since the time between turns is not the search's."""

    def __init__(self) -> None:
        self._begun, self._before = time.monotonic(), 0

    def start(self, regions: int) -> None:
        """A turn begins with this many regions visited."""
        self._begun, self._before = time.monotonic(), regions

    def rate(self, regions: int) -> float:
        """Regions per second in this turn, when this many have been visited in all."""
        return (regions - self._before) / max(time.monotonic() - self._begun, 1e-9)
