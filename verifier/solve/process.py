"""HiGHS in a process of its own, which can be ended at any moment.

HiGHS's presolve and root node look at the clock every few seconds at best (see ``highs_run``); ending the
process is the only way to keep a deadline.  The process is started at the first request, kept for the next
ones, and started again after it had to be ended.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from verifier.memory import resident_bytes
from verifier.solve.highs_run import Answer, Point, Report, Request

LOOK_SECONDS = 0.25
"""How often the process's memory is looked at."""
GRACE = 0.4
"""Seconds that HiGHS may take beyond its time limit to stop by itself and report its dual bound."""


class ProcessDiedError(Exception):
    """HiGHS crashed, or was ended for its memory."""


class HighsProcess:
    """A context manager; the process ends with the block.  most_bytes: that HiGHS may hold, None for any number."""

    def __init__(self, most_bytes: int | None = None) -> None:
        self._most_bytes = most_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @property
    def pid(self) -> int | None:
        """The operating system's number of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> HighsProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def answers(self, request: Request) -> Generator[Point | Report | Answer]:
        """What the process says: points and reports, and the answer last.

        Without an answer at the end the process was ended for taking longer than the request allows.
        Leaving the iteration early ends the process.  Raises ProcessDiedError when it dies by itself or needs
        more memory than it may.
        """
        self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        limit = time.monotonic() + request["seconds"] + GRACE
        finished = False
        try:
            with contextlib.suppress(BrokenPipeError):  # died already: the queue will say so
                pickle.dump(request, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
                process.stdin.flush()
            while not finished:
                left = limit - time.monotonic()
                try:
                    message = self._messages.get(timeout=max(0.0, min(left, LOOK_SECONDS)))
                except queue.Empty:
                    if left <= 0:
                        return
                    self._look_at_memory(process.pid)
                    continue
                if message is None:
                    raise ProcessDiedError(f"the HiGHS process died (exit code {process.wait()})")
                finished = "status" in message
                yield message
        finally:
            if not finished:
                self.end()

    def _look_at_memory(self, pid: int) -> None:
        if self._most_bytes is not None and resident_bytes(pid) > self._most_bytes:
            raise ProcessDiedError(f"HiGHS needed more than {self._most_bytes / 2**30:.1f} GB and was ended")

    def end(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if self._reader is not None:
            self._reader.join()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.end()
        # -P: the script's folder must not shadow anything.  A session of its own: Ctrl-C is for the parent.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("highs_run.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._messages = queue.SimpleQueue()
        self._reader = threading.Thread(
            target=_read, args=(self._process.stdout, self._messages), daemon=True, name="highs-answers"
        )
        self._reader.start()


def _read(stream: IO[bytes], messages: queue.SimpleQueue[Any]) -> None:
    """Everything the process says, and None when it is gone."""
    try:
        while True:
            messages.put(pickle.load(stream))
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        messages.put(None)
