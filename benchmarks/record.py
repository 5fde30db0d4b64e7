"""What a batch knows of one instance after running it: one ``Record``, one line of JSON in the journal.

A record stands alone.  With it go the files' digests, the options, the versions, the machine, and for ``sat`` both
the counterexample and the point its box was drawn around with the network's answers to both: reports and competition
files are made from records, long after models and properties are gone.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from verifier.errors import BatchError

FORMAT = 1


class Status(StrEnum):
    """The verdicts of ``Verdict``, and the ways in which a run can end without any."""

    SAT = "sat"
    UNSAT = "unsat"
    TIMEOUT = "timeout"
    UNKNOWN = "unknown"
    ERROR = "error"
    """The files cannot be used, or a defect of ours raised an exception; ``message`` says which."""
    CRASHED = "crashed"
    """The worker process died: a fault in compiled code, or somebody killed it."""
    MEMORY = "out-of-memory"
    HANG = "hang"
    """The worker did not come back long after its limit and was ended."""


DECIDED = frozenset({Status.SAT, Status.UNSAT})
FAILED = frozenset({Status.ERROR, Status.CRASHED, Status.MEMORY, Status.HANG})

Key = tuple[str, str, str]
"""Category, model and property as they stand in the list."""


@dataclass(frozen=True)
class Record:
    """One instance, answered or failed.

    timeout: its limit in seconds.  seconds: wall time, reading the files included.
    finished: UTC, ISO 8601.  asked: what ``verifier.report.words`` says of it.
    evidence, witness, bounds, stages, counts: as in ``Result``; infinite numbers are None.
    seen: the last progress event of a worker that did not come back.
    files: sha256 of model and property.  output: why a file made from this record could not be written.
    """

    category: str
    onnx: str
    vnnlib: str
    timeout: float
    status: Status
    seconds: float
    message: str = ""
    finished: str = ""
    asked: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] | None = None
    witness: Mapping[str, Any] | None = None
    bounds: tuple[Mapping[str, Any], ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    seen: Mapping[str, Any] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    traceback: str = ""
    output: str = ""

    @property
    def key(self) -> Key:
        return self.category, self.onnx, self.vnnlib

    @property
    def decided(self) -> bool:
        return self.status in DECIDED

    @property
    def failed(self) -> bool:
        return self.status in FAILED

    def line(self) -> str:
        """The record as one line of JSON, newline included; empty fields are left out."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        kept = {name: value for name, value in values.items() if value or isinstance(value, float)}
        return json.dumps({"format": FORMAT, **kept}, allow_nan=False, separators=(",", ":")) + "\n"


def read_line(line: str, place: str) -> Record:
    """The record of a line.  place: what a message calls it.  Raises BatchError."""
    try:
        values = json.loads(line)
    except ValueError:
        raise BatchError(f"{place}: this line is no record of a journal; restore the file from a copy") from None
    if not isinstance(values, dict) or "format" not in values:
        raise BatchError(f"{place}: this line is no record of a journal; name a file that `verify bench` wrote")
    if values.pop("format") != FORMAT:
        raise BatchError(f"{place}: the record has another format than {FORMAT}; use the version that wrote it")
    known = {f.name for f in dataclasses.fields(Record)}
    try:
        values["status"] = Status(values["status"])
        values["bounds"] = tuple(values.get("bounds", ()))
        record = Record(**{name: value for name, value in values.items() if name in known})
    except (KeyError, ValueError, TypeError) as error:
        raise BatchError(f"{place}: the record is incomplete ({error}); restore the file from a copy") from None
    return record


def finite(value: float) -> float | None:
    """The number, or None where JSON has none for it."""
    return float(value) if math.isfinite(value) else None
