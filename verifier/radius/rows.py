"""Radii as rows of a table, as lines of a CSV file, and read back from there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from verifier.errors import InputError
from verifier.radius.record import Radius
from verifier.verdict import EvidenceLevel

COLUMNS = (
    "index", "label", "predicted", "correct", "norm", "certified", "adversarial", "gap", "witness_class", "level",
    "seconds", "question", "reason",
)  # fmt: skip
UNFINISHED = ("interrupted", "failed:")
"""How the reasons begin of results that are no results yet."""


def row_of(index: int, predicted: int, found: Radius, question: str) -> dict[str, Any]:
    """One input's row, keys ``COLUMNS``.  predicted: the model's answer at the input itself.  question: a digest."""
    values = (
        index, found.label, predicted, predicted == found.label, found.norm, found.certified, found.adversarial,
        found.gap, found.predicted, str(found.level), round(found.seconds, 3), question, found.reason,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def csv_text(rows: Iterable[dict[str, Any]], head: bool = True) -> str:
    """Lines of a CSV file, with the names of the columns first unless ``head`` is false."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_rows(path: str | Path) -> dict[int, tuple[int, Radius, str]]:
    """What a CSV file of radii holds: by index, the model's answer there, the result, without witness and history, and
    the question's digest.

    Rows that say "interrupted" or "failed", and a last line that was cut off, are left out.
    Raises InputError for a file that is not there or is something else.
    """
    try:
        lines = Path(path).read_text().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table of radii: {error}; give another file") from None
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]
    rows = csv.DictReader(lines)
    if rows.fieldnames is None or tuple(rows.fieldnames) != COLUMNS:
        raise InputError(f"{path} is no table of radii: its columns are not {', '.join(COLUMNS)}; give another file")
    found: dict[int, tuple[int, Radius, str]] = {}
    for row in rows:
        try:
            if None in row or None in row.values():
                raise ValueError("too many values, or too few")
            index, predicted, one = int(row["index"]), int(row["predicted"]), _radius(row)
        except (TypeError, ValueError):
            raise InputError(f"{path}:{rows.line_num}: this is no row of a table of radii; mend or remove it") from None
        if not one.reason.startswith(UNFINISHED):
            found[index] = predicted, one, row["question"]
    return found


def _radius(row: dict[str, str]) -> Radius:
    winner = int(row["witness_class"]) if row["witness_class"] else None
    certified, adversarial, gap = (float(row[name]) for name in ("certified", "adversarial", "gap"))
    return Radius(
        certified, adversarial, None, int(row["label"]), winner, row["norm"], EvidenceLevel(row["level"]),
        row["reason"], float(row["seconds"]), (), 1.0 if gap < adversarial - certified else 0.0,
    )  # fmt: skip
