"""A batch's results in the form of the verification competition: one CSV file, and the counterexamples.

Rows are ``category,onnx,vnnlib,prepare seconds,result,run seconds`` without a header; counterexamples lie in
``CATEGORY/MODEL_PROPERTY.counterexample``.  The competition has no word for some of our failures: a worker that was
ended is ``timeout``, every other failure ``error``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from verifier.benchmarks.instances import short_name
from verifier.benchmarks.record import Record, Status
from verifier.errors import OutputPathError
from verifier.report.outputs import write_whole
from verifier.vnnlib.counterexample import counterexample_text

RESULTS = {Status.HANG: "timeout", Status.CRASHED: "error", Status.MEMORY: "error"}


def csv_text(records: Iterable[Record]) -> str:
    """The CSV file; preparation is part of the run, so its seconds are 0."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for record in records:
        result = RESULTS.get(record.status, str(record.status))
        writer.writerow([record.category, record.onnx, record.vnnlib, "0.0", result, f"{record.seconds:.3f}"])
    return text.getvalue()


def counterexample_path(folder: Path, record: Record) -> Path:
    """Where the counterexample of a record belongs, in a folder for all of them."""
    name = f"{short_name(record.onnx)}_{short_name(record.vnnlib)}.counterexample"
    return folder / record.category / name


def write_counterexample(folder: Path, record: Record) -> None:
    """Write the counterexample of a ``sat`` record.  Raises OutputPathError."""
    if record.witness is None:
        return
    path = counterexample_path(folder, record)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputPathError(
            f"{path} cannot be written: {error.strerror}; move away what stands in its place"
        ) from None
    x, y = (np.array(record.witness[name], np.float64) for name in "xy")
    write_whole(path, counterexample_text(x, y))


def write_results(path: Path, records: Iterable[Record]) -> None:
    """Write the CSV file whole.  Raises OutputPathError."""
    write_whole(path, csv_text(records))
