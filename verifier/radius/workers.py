"""Inputs spread over several processes, of which one may die or hang without the others' results being lost.

pebble manages the processes: it ends one whose task overstays its limit and replaces one that died.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessPool

from verifier.errors import BatchError
from verifier.model.read import Model, load
from verifier.options import limit_threads
from verifier.radius.entry import certified_radius
from verifier.radius.record import Radius

GRACE = 60.0
"""Seconds past an input's time limit after which its process is ended: loading and compiling come on top of it."""


def spread(
    path: Path,
    inputs: Sequence[np.ndarray],
    labels: Sequence[int],
    timeout: float,
    jobs: int,
    options: dict[str, Any],
    done: Callable[[int, Radius | Exception], None],
) -> None:
    """``certified_radius`` of every input by the network at ``path``; ``done`` gets places and results as they come.

    What goes wrong with one input is its result, an exception.  Raises BatchError where no process can be started.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(min(jobs, len(inputs)), context=context, initializer=limit_threads, initargs=(1,))
    try:
        waiting: dict[Future[Radius], int] = {
            pool.schedule(_one, args=(path, x, labels[place], timeout, options), timeout=timeout + GRACE): place
            for place, x in enumerate(inputs)
        }
        for future in as_completed(waiting):
            done(waiting[future], _result(future))
    finally:
        pool.stop()
        pool.join()


def _result(future: Future[Radius]) -> Radius | Exception:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise BatchError(f"the worker processes do not start ({error}); run with one job") from None
    except TimeoutError:
        return TimeoutError(f"no answer {GRACE:g} s past the time limit; its process was ended")
    except ProcessExpired as death:
        return RuntimeError(f"its process died with exit code {death.exitcode}; it may have run out of memory")
    except Exception as error:
        return error


@functools.lru_cache(maxsize=1)
def _loaded(path: Path) -> Model:
    """A process reads the network once."""
    return load(path)


def _one(path: Path, x: np.ndarray, label: int, timeout: float, options: dict[str, Any]) -> Radius:
    return certified_radius(_loaded(path), x, label, timeout=timeout, **options)
