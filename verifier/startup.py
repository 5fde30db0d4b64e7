"""Python's garbage collector while large libraries are imported."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection inside, and never any of what is alive at the end.

    Importing torch makes some 300,000 objects, nearly all of which stay; the collector would look through them again
    and again, a fifth of the start-up time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
