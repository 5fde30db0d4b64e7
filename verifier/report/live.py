"""Where a run stands, on stderr: stage, bounds, what is open, time left.

On a terminal one line that rich redraws four times a second from its own thread; the stages only leave their last event
here.  With ``verbose`` a plain line per stage, and per second within one, which a file can keep.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from verifier.deadline import Deadline
from verifier.progress import Event


class LiveLine:
    """A context manager; call it with events.  Silent where stderr is no terminal, unless ``verbose``."""

    def __init__(self, deadline: Deadline, verbose: bool = False) -> None:
        self._deadline, self._verbose = deadline, verbose
        self._event = Event("reading the files")
        self._printed: tuple[str, int] | None = None
        console = Console(stderr=True)
        self._live = Live(self, console=console, transient=True) if console.is_terminal and not verbose else None

    def __call__(self, event: Event) -> None:
        self._event = event
        moment = (event.stage, int(time.monotonic()))
        if self._verbose and moment != self._printed:
            self._printed = moment
            print(self.__rich__().plain, file=sys.stderr, flush=True)

    def __enter__(self) -> LiveLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich__(self) -> Text:
        event = self._event
        line = Text.assemble((event.stage, "bold"))
        if event.lower is not None:
            line.append(f"  margin >= {event.lower:.4g}")
        if event.upper is not None:
            line.append(f"  <= {event.upper:.4g}")
        if event.open is not None:
            line.append(f"  open {event.unit} {event.open:,}")
        if event.rate is not None:
            line.append(f"  {event.unit}/s {event.rate:,.0f}")
        line.append(f"  {self._deadline.remaining:.0f} s left", "dim")
        return line
