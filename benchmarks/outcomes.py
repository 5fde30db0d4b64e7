"""Results to be compared, whoever wrote them: our journals, the competition's CSV files, lists of known verdicts.

    journal NAME.jsonl              all there is to know
    results.csv of the competition  category,onnx,vnnlib,prepare seconds,result,seconds; no header
    reference.csv                   a header with onnx, vnnlib, verdict, and perhaps category and seconds
    a folder                        every reference.csv, or else every results.csv, below it

Names of files decide which instances are the same, folders and ``.gz`` left out; the category only where names alone
are not unique, for everybody calls categories by other names.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier.benchmarks.instances import short_name
from verifier.benchmarks.journal import read_journal
from verifier.benchmarks.record import Record
from verifier.errors import BatchError

DECIDED = ("sat", "unsat")
COMPETITION_WORDS = {
    "holds": "unsat",
    "violated": "sat",
    "no_result_in_file": "unknown",
    "run_instance_timeout": "timeout",
    "prepare_instance_timeout": "timeout",
}
COMPETITION_STARTS = {"prepare_instance_error": "error", "error": "error"}

Names = tuple[str, str]
"""Model and property by name."""


@dataclass(frozen=True)
class Outcome:
    """One instance in one run.

    verdict: a status of ours; seconds: None where the file does not say.  timeout: likewise.
    doubtful: those who gave the verdict did not agree among themselves ("sat?", "disputed").
    record: all there is, where it comes from a journal.
    """

    category: str
    onnx: str
    vnnlib: str
    verdict: str
    seconds: float | None = None
    timeout: float | None = None
    message: str = ""
    doubtful: bool = False
    record: Record | None = None

    @property
    def names(self) -> Names:
        return short_name(self.onnx), short_name(self.vnnlib)

    @property
    def decided(self) -> bool:
        return self.verdict in DECIDED

    def __str__(self) -> str:
        return " ".join((self.category, *self.names))


class Run:
    """All outcomes of one file; look up those of another run's instances with ``find``."""

    def __init__(self, name: str, outcomes: Sequence[Outcome]) -> None:
        self.name = name
        self.outcomes = tuple(outcomes)
        self._exact = {(outcome.category, outcome.names): outcome for outcome in outcomes}
        self._by_names: dict[Names, list[Outcome]] = {}
        for outcome in self._exact.values():
            self._by_names.setdefault(outcome.names, []).append(outcome)

    def find(self, other: Outcome) -> Outcome | None:
        """This run's outcome of the same instance; None where it has none, or several and no category fits."""
        exact = self._exact.get((other.category, other.names))
        if exact is not None:
            return exact
        candidates = self._by_names.get(other.names, [])
        return candidates[0] if len(candidates) == 1 else None

    @property
    def has_seconds(self) -> bool:
        return any(outcome.seconds is not None for outcome in self.outcomes)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """One run per path, named by its file where that tells them apart.  Raises BatchError."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [Run(name, read_outcomes(path)) for name, path in zip(names, paths, strict=True)]


def read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes of a file or folder; of an instance that occurs twice the last one.  Raises BatchError."""
    if path.is_dir():
        files = sorted(path.rglob("reference.csv")) or sorted(path.rglob("results.csv"))
        if not files:
            raise BatchError(f"{path} holds no reference.csv and no results.csv; name a file with results")
        found = [outcome for file in files for outcome in read_outcomes(file)]
    elif path.suffix == ".csv":
        found = list(_read_csv(path))
    else:
        found = [of_record(record) for record in read_journal(path).values()]
    return list({(outcome.category, outcome.names): outcome for outcome in found}.values())


def of_record(record: Record) -> Outcome:
    return Outcome(
        record.category,
        record.onnx,
        record.vnnlib,
        str(record.status),
        record.seconds,
        record.timeout,
        record.message,
        record=record,
    )


def _read_csv(path: Path) -> Iterator[Outcome]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no CSV file"
        raise BatchError(f"{path} cannot be read: {reason}; name a journal or a CSV file with results") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    if {"onnx", "vnnlib"} <= set(header):
        column = next((name for name in ("verdict", "result") if name in header), None)
        if column is None:
            raise BatchError(f"{path} has no column verdict; add it, or name a file with results")
        for row in rows[1:]:
            values = dict(zip(header, row, strict=False))
            yield _outcome(values, values.get(column, ""), values.get("category") or path.resolve().parent.name)
        return
    for number, row in enumerate(rows, 1):
        if len(row) < 6:
            raise BatchError(
                f"{path}:{number}: this is no row of results; the competition writes "
                "category,onnx,vnnlib,prepare seconds,result,seconds"
            )
        values = dict(zip(("category", "onnx", "vnnlib", "prepared", "result", "seconds"), row, strict=False))
        yield _outcome(values, values["result"], values["category"])


def _outcome(values: Mapping[str, str], word: str, category: str) -> Outcome:
    word = word.strip().lower()
    doubtful = word.endswith("?") or word == "disputed"
    word = word.removesuffix("?")
    for start, meaning in COMPETITION_STARTS.items():
        if word.startswith(start):
            word = meaning
    verdict = "unknown" if word in ("disputed", "") else COMPETITION_WORDS.get(word, word)
    return Outcome(
        category,
        values["onnx"],
        values["vnnlib"],
        verdict,
        _number(values.get("seconds")),
        _number(values.get("timeout")),
        values.get("message", ""),
        doubtful,
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
