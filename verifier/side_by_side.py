"""Several pieces of work at once, a thread each: torch and the compiled kernels let go of the interpreter's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from verifier.deadline import Deadline

T = TypeVar("T")

LOOK_SECONDS = 0.1
"""How often a waiting main thread looks up, so that Ctrl-C reaches it."""


def side_by_side(work: Sequence[Callable[[Deadline], T]], deadline: Deadline, enough: Callable[[T], bool]) -> list[T]:
    """What each piece of work returns; the deadline that all are given passes once one returns ``enough``.

    An exception, Ctrl-C included, ends the others too and is raised when they have ended.  Within a piece torch uses
    one thread, or the threads of all pieces would fight over the cores.
    """
    stop = threading.Event()
    shared = Deadline(deadline.end, stop)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(len(work)) as pool:
            futures = [pool.submit(piece, shared) for piece in work]
            waiting = set(futures)
            try:
                while waiting:
                    done, waiting = wait(waiting, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                    if deadline.expired or any(enough(future.result()) for future in done):
                        stop.set()
            finally:
                stop.set()
        return [future.result() for future in futures]
    finally:
        torch.set_num_threads(threads)
