"""Many inputs at once: a row of numbers per input, a progress bar, several processes."""

from __future__ import annotations

import csv
import io
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from verifier.errors import OptionError
from verifier.model.read import Model, load
from verifier.options import limit_threads
from verifier.radius.entry import certified_radius
from verifier.radius.question import parse_norm
from verifier.radius.record import Radius
from verifier.report.outputs import check_writable, write_whole
from verifier.verdict import EvidenceLevel

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "index", "label", "predicted", "correct", "norm", "certified", "adversarial", "gap", "witness_class", "level",
    "seconds", "reason",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RadiusTable:
    """One entry per input, in their order.

    indices: what the inputs are called.  predicted: the model's answer at the input itself.
    Iterating gives the ``Radius`` objects; ``records`` plain dictionaries, for pandas and CSV.
    """

    indices: tuple[int, ...]
    predicted: tuple[int, ...]
    radii: tuple[Radius, ...]

    def __len__(self) -> int:
        return len(self.radii)

    def __iter__(self) -> Iterator[Radius]:
        return iter(self.radii)

    def __getitem__(self, place: int) -> Radius:
        return self.radii[place]

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dictionary per input, keys ``COLUMNS``: ``pandas.DataFrame(table.records)``."""
        return [
            dict(
                zip(
                    COLUMNS,
                    (
                        index, found.label, predicted, predicted == found.label, found.norm, found.certified,
                        found.adversarial, found.gap, found.predicted, str(found.level), round(found.seconds, 3),
                        found.reason,
                    ),
                    strict=True,
                )
            )
            for index, predicted, found in zip(self.indices, self.predicted, self.radii, strict=True)
        ]  # fmt: skip

    def frame(self) -> pd.DataFrame:
        """A pandas table.  Raises OptionError where pandas is not installed."""
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise OptionError("tables need pandas; install it with: pip install 'nn-verifier[table]'") from None
        return pd.DataFrame(self.records, columns=list(COLUMNS)).set_index("index")

    def to_csv(self, path: str | Path) -> None:
        """Write all columns.  Raises OutputPathError."""
        check_writable(Path(path))
        text = io.StringIO()
        rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        rows.writeheader()
        rows.writerows(self.records)
        write_whole(Path(path), text.getvalue())

    def accuracy(self, epsilons: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Certified and adversarial accuracy at each distance: shares in [0, 1], of the shape of ``epsilons``.

        Certified: no counterexample within the distance (misclassified inputs have one at 0).  Adversarial: none is
        known there, an upper bound on the robust accuracy.  What lies between the two is undecided.
        """
        distances = np.asarray(epsilons, np.float64)[..., None]
        right = np.array([p == r.label and r.adversarial > 0 for p, r in zip(self.predicted, self.radii, strict=True)])
        certified = np.array([r.certified for r in self.radii])
        adversarial = np.array([r.adversarial for r in self.radii])
        # At distance 0 nothing but the input itself counts.
        safe = right & ((certified >= distances) | (distances == 0))
        return safe.mean(-1), (right & (adversarial > distances)).mean(-1)


def certified_radii(
    network: Model | str | Path,
    inputs: ArrayLike,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    indices: Sequence[int] | None = None,
    timeout: float = 60.0,
    jobs: int = 1,
    progress: bool = False,
    each: Callable[[int, Radius], None] | None = None,
    **options: Any,
) -> RadiusTable:
    """``certified_radius`` at every input.

    network: from ``load``, or the path of an ONNX file.
    inputs: (N, ...), the first axis counts them.
    labels: (N,), the classes that should win; by default the model's own answers.
    indices: names for the rows, by default 0, 1, ...
    timeout: seconds for each input.
    jobs: processes that share the inputs; more than one needs a network that lies in a file.
    progress: a bar on stderr.  each: called with the position and its result as they come, in any order.
    options: further arguments of ``certified_radius``, the same for all inputs.
    Ctrl-C ends the run: inputs not begun have certified 0, adversarial inf and the reason "interrupted".
    Raises OptionError for numbers that do not fit together.
    """
    model = network if isinstance(network, Model) else load(network)
    batch = np.asarray(inputs, np.float64)
    if batch.ndim < 2 or not len(batch):
        raise OptionError(f"the inputs have the shape {batch.shape}; the first axis must count them, at least one")
    if labels is not None and len(labels) != len(batch):
        raise OptionError(f"there are {len(labels)} labels for {len(batch)} inputs; give one for each")
    if indices is not None and len(indices) != len(batch):
        raise OptionError(f"there are {len(indices)} indices for {len(batch)} inputs; give one for each")
    if jobs < 1:
        raise OptionError(f"jobs is {jobs}; give at least 1")
    if jobs > 1 and not model.path.is_file():
        raise OptionError("jobs > 1 needs a network that lies in a file; this one was made from a torch module")
    if batch[0].size != model.network.n_inputs:
        raise OptionError(
            f"each input has {batch[0].size} values but the model takes {model.network.n_inputs}; the first axis "
            "counts the inputs"
        )
    norm = parse_norm(options.get("norm", "linf"))
    predicted = tuple(int(np.argmax(model.replay.run(x.astype(np.float32).ravel()))) for x in batch)
    wanted = predicted if labels is None else tuple(int(label) for label in labels)
    results: list[Radius | None] = [None] * len(batch)
    with _Bar(len(batch), progress) as advance:

        def done(place: int, found: Radius) -> None:
            results[place] = found
            advance(found)
            if each is not None:
                each(place, found)

        try:
            if jobs == 1:
                for place, x in enumerate(batch):
                    done(place, certified_radius(model, x, wanted[place], timeout=timeout, **options))
                    if results[place] is not None and "interrupted" in results[place].reason:  # type: ignore[union-attr]
                        raise KeyboardInterrupt
            else:
                _spread(model, batch, wanted, timeout, jobs, options, done)
        except KeyboardInterrupt:
            pass
    nothing = [
        found or Radius(0.0, math.inf, None, wanted[i], None, str(norm), EvidenceLevel.RIGOROUS, "interrupted", 0.0, ())
        for i, found in enumerate(results)
    ]
    return RadiusTable(tuple(indices if indices is not None else range(len(batch))), predicted, tuple(nothing))


_worker_model: list[Model] = []
"""In a worker process: the model, loaded once."""


def _start(path: str) -> None:
    limit_threads(1)
    _worker_model.append(load(path))


def _one(x: np.ndarray, label: int, timeout: float, options: dict[str, Any]) -> Radius:
    return certified_radius(_worker_model[0], x, label, timeout=timeout, **options)


def _spread(
    model: Model,
    batch: np.ndarray,
    labels: Sequence[int],
    timeout: float,
    jobs: int,
    options: dict[str, Any],
    done: Callable[[int, Radius], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(batch)), context, _start, (str(model.path),))
    try:
        waiting: dict[Future[Radius], int] = {
            pool.submit(_one, x, labels[place], timeout, options): place for place, x in enumerate(batch)
        }
        for future in as_completed(waiting):
            done(waiting[future], future.result())
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Bar:
    """A progress bar on stderr that says how many gaps are closed."""

    def __init__(self, total: int, wanted: bool) -> None:
        self._total, self._wanted = total, wanted
        self._closed, self._begun = 0, time.monotonic()
        self._progress: Any = None

    def __enter__(self) -> Callable[[Radius], None]:
        if self._wanted:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("radius"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task("", total=self._total)
            self._progress.start()
        return self._advance

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _advance(self, found: Radius) -> None:
        self._closed += found.closed
        if self._progress is not None:
            self._progress.update(self._task, advance=1, description=f"{self._closed} closed")
