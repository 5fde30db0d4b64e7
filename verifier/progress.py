"""What a long-running stage tells whoever watches: one small event, as often as it likes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """stage: its name, as in ``Statistics.stages``.

    lower, upper: best bounds on the smallest margin so far, None when the stage does not know.
    open: how much is left (regions, binaries, neurons), of the ``unit`` named.  rate: of these per second.
    """

    stage: str
    lower: float | None = None
    upper: float | None = None
    open: int | None = None
    unit: str = ""
    rate: float | None = None


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """A watcher that looks away."""
