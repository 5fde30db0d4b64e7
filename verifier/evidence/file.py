"""The container of an evidence file: a zip archive of ``header.json`` and NumPy arrays (see docs/evidence.md).

Arrays are columns of tables, written in chunks while a search runs: ``TABLE/CHUNK/COLUMN.npy.gz``.  All columns of a
chunk belong together; a ragged column holds the parts of all rows one after the other, and another column counts them.
While a run lasts the chunks wait in a file without a name, so that memory stays free whatever the search does.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from verifier.errors import OutputPathError, ProofError
from verifier.model.network import Network
from verifier.query import Query

FORMAT, VERSION = "nn-verifier evidence", 1
CROWN, OPTIMISED = "crown", "optimised bounds"
RELU_SPLITTING, REFINING_SPLITTING, INPUT_SPLITTING = "relu splitting", "refining relu splitting", "input splitting"
"""Kinds of sections."""
CHUNK_BYTES = 2**20
ENDING = ".npy.gz"
MOST_HEADER_BYTES = 2**26

Columns = Mapping[str, NDArray[Any]]


class Writer:
    """Tables on their way to a file.  Several threads may add.  Raises OutputPathError where there is no room."""

    def __init__(self) -> None:
        file = TemporaryFile()  # noqa: SIM115 (open for as long as the writer)
        self._archive = zipfile.ZipFile(file, "w")
        weakref.finalize(self, _close, self._archive, file)
        self._waiting: dict[str, list[Columns]] = {}
        self._chunks: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, table: str, columns: Columns) -> None:
        """Append rows to a table; columns are concatenated along their first axis."""
        with self._lock:
            waiting = self._waiting.setdefault(table, [])
            waiting.append(columns)
            if sum(column.nbytes for part in waiting for column in part.values()) >= CHUNK_BYTES:
                self._flush(table)

    def save(self, path: Path, header: Mapping[str, Any], wanted: Callable[[str], bool]) -> int:
        """Write the header and the tables that are wanted, in one step, and return the file's size in bytes.

        Nothing is compressed again, so this takes no longer than copying.  Raises OutputPathError.
        """
        with self._lock:
            for table in list(self._waiting):
                self._flush(table)
            scratch = path.with_name(path.name + ".part")
            text = json.dumps({"format": FORMAT, "version": VERSION, **header}, indent=1)
            try:
                with zipfile.ZipFile(scratch, "w") as archive:
                    archive.writestr("header.json", text)
                    for name in self._archive.namelist():
                        if wanted(name.rsplit("/", 2)[0]):
                            archive.writestr(name, self._archive.read(name))
                os.replace(scratch, path)
            except OSError as error:
                scratch.unlink(missing_ok=True)
                raise OutputPathError(f"{path} cannot be written ({error}); name another file") from None
            return path.stat().st_size

    def _flush(self, table: str) -> None:
        waiting = self._waiting.pop(table)
        number = self._chunks.get(table, 0)
        self._chunks[table] = number + 1
        for name in waiting[0]:
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.concatenate([part[name] for part in waiting]), allow_pickle=False)
            packed = gzip.compress(buffer.getbuffer(), compresslevel=3, mtime=0)
            try:
                self._archive.writestr(f"{table}/{number}/{name}{ENDING}", packed)
            except OSError as error:
                raise OutputPathError(
                    f"there is no room for the evidence of this run in {gettempdir()} ({error}); free some, set TMPDIR "
                    "to another folder, or run without evidence"
                ) from None


class Reader:
    """An evidence file, opened.  Raises ProofError, one sentence, for everything that can be wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
            with self._archive.open("header.json") as file:
                self.header: dict[str, Any] = json.loads(file.read(MOST_HEADER_BYTES))
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
            raise ProofError(
                f"{path} is no evidence file ({error}); name a file that verify --evidence wrote"
            ) from None
        known = isinstance(self.header, dict) and self.header.get("format") == FORMAT
        if not known or self.header.get("version") != VERSION:
            raise ProofError(f"{path} is not an evidence file of version {VERSION}; write it anew with this version")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def chunks(self, table: str) -> Iterator[Columns]:
        """The chunks of a table in order; none for a table that is not there."""
        numbers = {name.split("/")[-2] for name in self._archive.namelist() if name.startswith(f"{table}/")}
        try:
            for number in sorted(numbers, key=int):
                yield _chunk(self._archive, f"{table}/{number}")
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
            raise ProofError(f"{self._path}: the table {table} is damaged ({error}); write the file anew") from None

    def table(self, table: str) -> Columns:
        """All chunks of a table as one; empty for a table that is not there."""
        parts = list(self.chunks(table))
        return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _close(archive: zipfile.ZipFile, file: IO[bytes]) -> None:
    archive.close()
    file.close()


def _chunk(archive: zipfile.ZipFile, prefix: str) -> dict[str, NDArray[Any]]:
    found = {}
    for name in archive.namelist():
        if name.startswith(f"{prefix}/") and name.endswith(ENDING):
            with archive.open(name) as packed, gzip.open(packed) as file:
                array = np.lib.format.read_array(cast(IO[bytes], file), allow_pickle=False)
                found[name.rpartition("/")[2].removesuffix(ENDING)] = array
    return found


def network_digest(network: Network) -> str:
    """SHA-256 of the lowered network: operators, what they read, their shapes and parameters."""
    digest = hashlib.sha256()
    for node in network.nodes:
        digest.update(repr((type(node.operator).__name__, node.inputs, tuple(node.shape))).encode())
        record: Any = node.operator  # a frozen dataclass, which the protocol of affine operators cannot say
        for name in sorted(field.name for field in dataclasses.fields(record)):
            value = getattr(record, name)
            plain = np.ascontiguousarray(value.numpy()).tobytes() if hasattr(value, "numpy") else repr(value).encode()
            digest.update(name.encode() + b"=" + plain)
    return digest.hexdigest()


def property_digest(query: Query) -> str:
    """SHA-256 of the property's normal form: boxes, rows, bounds and strictness of every disjunct."""
    digest = hashlib.sha256()
    for disjunct in query.disjuncts:
        rows = disjunct.constraints
        inputs = np.broadcast_to(rows.inputs, (len(rows), len(disjunct.lower)))
        for array in (disjunct.lower, disjunct.upper, inputs, rows.outputs, rows.bounds, rows.strict):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
