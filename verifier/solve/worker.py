"""One request to one engine script in a process of its own, which can be ended at any moment.

The script reads a pickled request from standard input and writes pickled messages to standard output.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any

FOLDER = Path(__file__).parent


class Worker:
    """Starts at once; a context manager, the process ends with the block.

    script: name of a file beside this one.  request: its request.
    """

    def __init__(self, script: str, request: Any) -> None:
        # -P: the script's folder must not shadow anything.  A session of its own: Ctrl-C is for the parent.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(FOLDER / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = (
            threading.Thread(target=_write, args=(self._process.stdin, request), daemon=True),
            threading.Thread(target=_read, args=(self._process.stdout, self._messages), daemon=True),
        )
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def poll(self, seconds: float = 0.0) -> Any:
        """The next message, waiting at most so long; None while there is none.  Raises EOFError when it is gone."""
        try:
            message = self._messages.get(timeout=seconds) if seconds > 0 else self._messages.get_nowait()
        except queue.Empty:
            return None
        if message is None:
            raise EOFError(f"the process ended (exit code {self._process.wait()})")
        return message

    def pause(self, paused: bool) -> None:
        """Stop the process, or let it go on."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            (process.suspend if paused else process.resume)()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _write(stream: IO[bytes], request: Any) -> None:
    with contextlib.suppress(OSError):  # died already: the reader will say so
        pickle.dump(request, stream, protocol=pickle.HIGHEST_PROTOCOL)
        stream.close()


def _read(stream: IO[bytes], messages: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            messages.put(pickle.load(stream))
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        messages.put(None)
