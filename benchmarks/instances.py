"""Lists of instances as the competition has them: ``instances.csv`` with rows ``onnx,vnnlib,seconds``.

Paths are relative to the list; a file may lie there as it is named or with ``.gz`` appended.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier.benchmarks.record import Key
from verifier.errors import BatchError, OptionError


@dataclass(frozen=True)
class Instance:
    """category: what the row belongs to.  onnx, vnnlib: as they stand in the list.

    timeout: seconds.  folder: what the paths are relative to.
    """

    category: str
    onnx: str
    vnnlib: str
    timeout: float
    folder: Path

    @property
    def key(self) -> Key:
        return self.category, self.onnx, self.vnnlib

    @property
    def onnx_path(self) -> Path:
        return located(self.folder / self.onnx)

    @property
    def vnnlib_path(self) -> Path:
        return located(self.folder / self.vnnlib)

    def __str__(self) -> str:
        return f"{short_name(self.onnx)} {short_name(self.vnnlib)}"


def located(path: Path) -> Path:
    """The file itself, or its compressed form where only that exists."""
    zipped = path.with_name(f"{path.name}.gz")
    return zipped if not path.exists() and zipped.exists() else path


def short_name(path: str) -> str:
    """The file's name without folders, ``.gz`` and its ending."""
    name = re.split(r"[/\\]", path)[-1]
    return re.sub(r"(\.(onnx|vnnlib))?(\.gz)?$", "", name)


def file_digest(path: Path) -> str:
    """sha256 of a file as it is on disk.  Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_instances(path: Path, category: str = "", timeout: float | None = None) -> list[Instance]:
    """The rows of a list, each instance once.

    category: by default the name of the folder the list lies in.
    timeout: for every instance; by default the third column.  Raises BatchError, naming the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), 1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no CSV file"
        raise BatchError(f"{path} cannot be read: {reason}; give a list with rows onnx,vnnlib,seconds") from None
    folder = path.resolve().parent
    found: dict[Key, Instance] = {}
    for number, row in rows:
        place = f"{path}:{number}"
        if len(row) < 2 or not row[0] or not row[1]:
            raise BatchError(f"{place}: a row needs a model and a property; write onnx,vnnlib,seconds")
        if number == 1 and row[:2] == ["onnx", "vnnlib"]:
            continue  # a header, which some lists have
        seconds = timeout if timeout is not None else _seconds(row, place)
        instance = Instance(category or folder.name, row[0], row[1], seconds, folder)
        found.setdefault(instance.key, instance)
    if not found:
        raise BatchError(f"{path} lists no instance; give rows onnx,vnnlib,seconds")
    return list(found.values())


def _seconds(row: Sequence[str], place: str) -> float:
    try:
        seconds = float(row[2])
    except (IndexError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BatchError(f"{place}: the third column is no number of seconds; write one there or give --timeout")
    return seconds


def matching(instances: Sequence[Instance], pattern: str) -> list[Instance]:
    """Those in whose ``category onnx vnnlib`` the regular expression is found.  Raises OptionError."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise OptionError(f"--filter {pattern!r} is no regular expression ({error}); escape brackets") from None
    return [instance for instance in instances if wanted.search(" ".join(instance.key))]


def shard(instances: Sequence[Instance], text: str) -> list[Instance]:
    """The i-th of n parts of a list, ``text`` being "i/n" with 1 <= i <= n.  Raises OptionError.

    The parts take turns row by row: hard instances, which tend to stand together, are spread.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise OptionError(f"--shard {text!r} is not of the form i/n with 1 <= i <= n; write for example 2/8")
    return list(instances[int(match[1]) - 1 :: int(match[2])])
