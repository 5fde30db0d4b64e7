"""Engines side by side on one program: more of them alive than may run, each stopped while others have their turn.

No engine dominates the others: cutting planes close in seconds what a CP solver does not in minutes, and the other way
round.  The first of them gets three times as much as the others.  Turns grow geometrically, so that whatever an engine
needs it has within a constant factor.  Engines further down the list begin when one before them has given up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from verifier.deadline import Deadline
from verifier.encodings.sat.program import Program
from verifier.solve.gate_engines import GateAnswer, GateEngine, Run, Task

ALIVE = 2
"""Engines that share the threads' time, where there are fewer threads."""
TURN, GROWTH = 1.0, 1.3
"""Seconds of the first turn, and by how much each round's are longer."""
FAVOUR = 3.0
"""How much longer turns are for the first of the engines."""


class Portfolio:
    """A context manager; all processes end with the block, or with ``end``.

    task: what every engine is asked for, made when it starts.  threads: processes that run at a time.
    """

    def __init__(
        self, engines: Sequence[GateEngine], program: Program, task: Callable[[], Task], threads: int = 1
    ) -> None:
        self._waiting = deque(engines)
        self._favourite = engines[0].name if engines else ""
        self._program, self._task, self._threads = program, task, threads
        self._runs: deque[Run] = deque()
        self._running: list[Run] = []
        self._turn, self._turns, self._until = TURN, 0, 0.0

    def __enter__(self) -> Portfolio:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def end(self) -> None:
        """End all processes, whatever they are doing."""
        for run in self._runs:
            run.end()
        self._runs.clear()
        self._waiting.clear()
        self._running.clear()

    @property
    def over(self) -> bool:
        """Whether every engine has answered or given up."""
        return not self._runs and not self._waiting

    def poll(self, deadline: Deadline) -> Iterator[tuple[GateEngine, GateAnswer]]:
        """What has come in at the deadline or a little before; engines that answered are ended."""
        if not self._runs and not self._waiting:
            return
        self._take_turns()
        for run in list(self._running):
            answer = run.poll(deadline.remaining / len(self._running))
            if answer is None:
                continue
            self._runs.remove(run)
            self._running.remove(run)
            run.end()
            self._until = 0.0
            yield run.engine, answer

    def pause(self, paused: bool) -> None:
        """Stop whatever runs, or let it go on: for work of the caller's on the same core."""
        for run in self._running:
            run.pause(paused)

    def _take_turns(self) -> None:
        """The first ``threads`` of the queue run; when their turn is over they go to its end."""
        now = time.monotonic()
        if now < self._until:
            return
        if len(self._runs) > self._threads:
            for run in self._running:
                self._runs.remove(run)
                self._runs.append(run)
        while self._waiting and len(self._runs) < max(self._threads, ALIVE):
            self._runs.append(Run(self._waiting.popleft(), self._program, self._task()))
        for place, run in enumerate(self._runs):
            run.pause(place >= self._threads)
        self._running = list(self._runs)[: self._threads]
        self._turns += 1
        if self._turns % len(self._runs) == 0:
            self._turn *= GROWTH
        favoured = any(run.engine.name == self._favourite for run in self._running)
        self._until = now + self._turn * (FAVOUR if favoured else 1.0)
