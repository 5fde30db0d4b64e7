"""Many inputs at once: on several processes, with a progress bar, into a CSV file that loses no row."""

from __future__ import annotations

import hashlib
import inspect
import math
import time
import traceback
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from verifier.errors import OptionError
from verifier.model.read import Model, load
from verifier.radius.certify import RadiusOptions
from verifier.radius.entry import certified_radius
from verifier.radius.question import parse_norm, question
from verifier.radius.record import Radius
from verifier.radius.rows import csv_text, row_of
from verifier.radius.table import RadiusTable
from verifier.radius.workers import spread
from verifier.report.outputs import append_text, check_writable, write_whole
from verifier.verdict import EvidenceLevel

QUESTION = ("target", "norm", "bounds", "weights", "fixed", "group")
"""The options of ``certified_radius`` that say what is asked."""
DIGITS = 16
"""Of a question's digest, in a row."""


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
    csv: str | Path | None = None,
    known: RadiusTable | None = None,
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
    csv: a file that gets a row after each input, so that a run that is killed loses none, and all in their order in the
        end.  known: of an earlier run with the same question, as from ``RadiusTable.read_csv``: inputs with these
        indices are not run again, and the file keeps its other rows.
    Ctrl-C ends the run: inputs not begun have certified 0, adversarial inf and the reason "interrupted".  An input
    whose run fails, by a defect of ours or because its process died, has the same numbers, the reason "failed: ...",
    and its traceback in ``RadiusTable.defects``; the others go on.
    Raises OptionError for numbers that do not fit together, before the first input is run.
    """
    model = network if isinstance(network, Model) else load(network)
    batch = _checked(model, inputs, labels, indices, jobs)
    norm = str(parse_norm(options.get("norm", "linf")))
    predicted = tuple(int(np.argmax(model.replay.run(x.astype(np.float32).ravel()))) for x in batch)
    wanted = predicted if labels is None else tuple(int(label) for label in labels)
    names = tuple(indices if indices is not None else range(len(batch)))
    questions = _ask(model, batch, wanted, names, options)
    rows = _Rows(names, predicted, wanted, questions, norm, known, None if csv is None else Path(csv))
    missing = rows.missing
    with _Bar(len(missing), progress) as advance:

        def done(place: int, found: Radius | Exception) -> None:
            radius = rows.add(place, found)
            advance(radius)
            if each is not None:
                each(place, radius)
            if jobs == 1 and radius.reason.startswith("interrupted"):
                raise KeyboardInterrupt

        try:
            if jobs == 1 or not missing:
                for place in missing:
                    done(place, _attempt(model, batch[place], wanted[place], timeout, options))
            else:
                chosen, named = [batch[place] for place in missing], [wanted[place] for place in missing]
                spread(model.path, chosen, named, timeout, jobs, options, lambda k, found: done(missing[k], found))
        except KeyboardInterrupt:
            pass
    return rows.table()


class _Rows:
    """What is found, by place, in memory and in the CSV file."""

    def __init__(
        self,
        names: tuple[int, ...],
        predicted: tuple[int, ...],
        labels: tuple[int, ...],
        questions: tuple[str, ...],
        norm: str,
        known: RadiusTable | None,
        file: Path | None,
    ) -> None:
        self._names, self._predicted, self._labels, self._norm = names, predicted, labels, norm
        self._questions = questions
        earlier = _earlier(known, dict(zip(names, questions, strict=True)))
        self._results = [earlier.get(name) for name in names]
        self._defects: list[str] = []
        records = [] if known is None else known.records
        self._others = [row for row in records if row["index"] not in set(names)]
        self._file = file
        if file is not None:
            check_writable(file)
            if self._grows:
                write_whole(file, csv_text(records))

    @property
    def missing(self) -> list[int]:
        """The places without a result."""
        return [place for place, found in enumerate(self._results) if found is None]

    def add(self, place: int, found: Radius | Exception) -> Radius:
        """The result, or a row without one that says what went wrong."""
        if isinstance(found, Exception):
            self._defects.append(f"input {self._names[place]}:\n{''.join(traceback.format_exception(found))}")
            found = self._without(place, " ".join(f"failed: {type(found).__name__}: {found}".split()))
        self._results[place] = found
        if self._file is not None and self._grows:
            row = row_of(self._names[place], self._predicted[place], found, self._questions[place])
            append_text(self._file, csv_text([row], head=False))
        return found

    def table(self) -> RadiusTable:
        """Everything, in order; so is the file then."""
        radii = tuple(found or self._without(place, "interrupted") for place, found in enumerate(self._results))
        table = RadiusTable(self._names, self._predicted, radii, self._questions, tuple(self._defects))
        if self._file is not None:
            write_whole(self._file, csv_text(sorted(self._others + table.records, key=itemgetter("index"))))
        return table

    @property
    def _grows(self) -> bool:
        """Not /dev/stdout and its kin, which get the whole table in the end."""
        return self._file is not None and (self._file.is_file() or not self._file.exists())

    def _without(self, place: int, reason: str) -> Radius:
        """A result that claims nothing."""
        return Radius(
            0.0, math.inf, None, self._labels[place], None, self._norm, EvidenceLevel.RIGOROUS, reason, 0.0, ()
        )


def _checked(
    model: Model, inputs: ArrayLike, labels: Sequence[int] | np.ndarray | None, indices: Sequence[int] | None, jobs: int
) -> np.ndarray:
    """The inputs as one array, (N, ...); raises OptionError for numbers that do not fit together."""
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
    return batch


def _attempt(model: Model, x: np.ndarray, label: int, timeout: float, options: dict[str, Any]) -> Radius | Exception:
    """One input's result, or what went wrong: a defect costs that input, not the others."""
    try:
        return certified_radius(model, x, label, timeout=timeout, **options)
    except OptionError:
        raise
    except Exception as error:
        return error


def _ask(
    model: Model, batch: np.ndarray, labels: Sequence[int], names: Sequence[int], options: dict[str, Any]
) -> tuple[str, ...]:
    """Ask every question before the first one is answered: what is refused is refused at once.  Their digests."""
    inspect.signature(certified_radius).bind_partial(**options)
    tolerance = float(options.get("tolerance", RadiusOptions.tolerance))
    asked = {name: value for name, value in options.items() if name in QUESTION}
    found = []
    for x, label, name in zip(batch, labels, names, strict=True):
        try:
            one = question(model, x, label, **asked)
        except OptionError as error:
            raise OptionError(f"input {name}: {error}") from None
        # The tolerance says what counts as closed.
        text = f"{one.fingerprint} {tolerance!r}"
        found.append(hashlib.sha256(text.encode()).hexdigest()[:DIGITS])
    return tuple(found)


def _earlier(known: RadiusTable | None, questions: dict[int, str]) -> dict[int, Radius]:
    """What is known of the inputs, by index.  Raises OptionError where it answers another question."""
    if known is None:
        return {}
    found = {}
    for name, radius, asked in zip(known.indices, known.radii, known.questions, strict=True):
        if name in questions and questions[name] != asked:
            raise OptionError(
                f"what is known of input {name} answers another question: model, input, label, norm, bounds, tolerance "
                "or another argument differ; begin a new file, or ask as before"
            )
        if name in questions:
            found[name] = radius
    return found


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
