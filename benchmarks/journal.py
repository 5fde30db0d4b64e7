"""The journal of a batch: one line of JSON per finished instance, appended, never rewritten.

A line goes to disk by one ``write`` to a file opened for appending, followed by ``fsync``; so whatever ends the
program, the journal holds whole lines and at most one torn one at its end, which the next run cuts off.  An advisory
lock, which the system drops when its holder dies, keeps two runs from writing to one journal.  Where an instance has
several lines (``--retry``) the last one counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from verifier.benchmarks.record import Key, Record, read_line
from verifier.errors import BatchError, OutputPathError

try:
    import fcntl
except ImportError:  # Windows: two runs on one journal are then the user's to avoid
    fcntl = None  # type: ignore[assignment]


def read_journal(path: Path) -> dict[Key, Record]:
    """The records of a journal, the last of every instance, in the order in which instances first appear.

    A torn last line is passed over.  Raises BatchError for a file that is no journal.
    """
    return {record.key: record for record in read_records(path)}


def read_records(path: Path) -> Iterator[Record]:
    """All records, in the order in which they were written.  Raises BatchError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {error.strerror}; name a journal of `verify bench`") from None
    lines = text.split(b"\n")
    torn = lines.pop()  # empty when the file ends as it should
    for number, line in enumerate(lines, 1):
        yield read_line(line.decode("utf-8", "replace"), f"{path}:{number}")
    if torn and not lines:
        # Not one whole line: a journal's first moment, or no journal at all.
        if not torn.startswith(b'{"format":'[: len(torn)]):
            read_line(torn.decode("utf-8", "replace"), f"{path}:1")
    elif torn:
        with contextlib.suppress(BatchError):
            yield read_line(torn.decode("utf-8", "replace"), str(path))


class Journal:
    """A journal open for appending; a context manager.

    ``records`` are those it held when it was opened, the last of every instance.
    Raises BatchError when the file is no journal or another run writes to it, OutputPathError when it cannot
    be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise OutputPathError(f"{path} cannot be written: {error.strerror}; choose another place") from None
        try:
            self._lock()
            self.records = read_journal(path)
            self._repair()
        except BaseException:
            os.close(self._file)
            raise

    def append(self, record: Record) -> None:
        """Write one record to disk.  Raises OutputPathError when the disk does not take it."""
        self._write(record.line().encode())
        self.records[record.key] = record

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._file, data)
            if written == len(data):
                os.fsync(self._file)
                return
            reason = "the disk is full, most likely"
        except OSError as error:
            reason = error.strerror or str(error)
        raise OutputPathError(
            f"{self.path} cannot be written: {reason}; make room and start the same command again, it continues"
        )

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchError(
                f"another run writes to {self.path} at this moment; wait for it, or give --results another file"
            ) from None
        except OSError:
            return  # a file system without locks

    def _repair(self) -> None:
        """End the file with a newline: complete a last line that lacks only that, cut off a torn one."""
        text = self.path.read_bytes()
        end = text.rfind(b"\n") + 1
        if end == len(text):
            if not text:
                self._remember_name()
            return
        try:
            read_line(text[end:].decode("utf-8", "replace"), str(self.path))
        except BatchError:
            os.ftruncate(self._file, end)
            os.fsync(self._file)
        else:
            self._write(b"\n")

    def _remember_name(self) -> None:
        """Bring the directory entry of a new file to disk as well."""
        with contextlib.suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def merge(paths: Iterable[Path]) -> list[Record]:
    """One record per instance from several journals, sorted by instance.

    Of an instance that several journals have, a decided record is taken before an undecided one, an undecided one
    before a failed one, and among equals the one that finished last.  Raises BatchError where one journal says
    ``sat`` and another ``unsat``.
    """
    chosen: dict[Key, tuple[Record, Path]] = {}
    for path in paths:
        for record in read_journal(path).values():
            other, where = chosen.setdefault(record.key, (record, path))
            if record.decided and other.decided and record.status != other.status:
                raise BatchError(
                    f"{' '.join(record.key)} is {other.status} in {where} and {record.status} in {path}: one is wrong; "
                    "look at both with `verify compare` and remove the wrong line"
                )
            if _rank(record) > _rank(other):
                chosen[record.key] = record, path
    return [record for record, _ in sorted(chosen.values(), key=lambda pair: pair[0].key)]


def _rank(record: Record) -> tuple[bool, bool, str]:
    return record.decided, not record.failed, record.finished
