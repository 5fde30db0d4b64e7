"""The last line of defence for ``--timeout``: a thread that ends the process when a stage overstays.

Every stage looks at its deadline, and every solver gets a time limit; what this covers is one call into compiled
code that takes longer than anybody foresaw.  It reports ``timeout`` through the callback it was given and exits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

from verifier.deadline import Deadline

GRACE = 1.2
"""Seconds past the deadline before it acts; the promise is two."""


class Watchdog:
    """A context manager; ``report`` is called from another thread if the deadline is overrun by ``GRACE``."""

    def __init__(self, deadline: Deadline, report: Callable[[], None]) -> None:
        self._report = report
        self._timer = threading.Timer(deadline.remaining + GRACE, self._act)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._over = False

    def __enter__(self) -> Watchdog:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
        self._timer.cancel()

    def _act(self) -> None:
        with self._lock:
            if self._over:
                return
            self._report()
            os._exit(0)
