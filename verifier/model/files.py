"""Bytes from disk: plain or gzip-compressed model files, and the files that hold external data.

Standard library only, so that a wrong path is reported before any heavy import.  Expansion of ``.gz`` files
is bounded (a few kilobytes can expand to terabytes), and external data must lie inside the model's folder:
a model file from elsewhere must not be able to read ``/etc/passwd`` into its weights.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from verifier.errors import ModelError

GZIP_MAGIC = b"\x1f\x8b"
PICKLE_HINTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
DEFAULT_LIMIT = 4 * 2**30
_GZIP_FORMAT = 31  # zlib's code for: gzip header and trailer, checksum verified


def read_file(path: Path) -> bytes:
    """All bytes of a file as they are on disk.  Raises ModelError when that is not possible."""
    if not os.path.lexists(path):
        raise ModelError(f"{path}: there is no such file; check the path of the model")
    if path.is_dir():
        raise ModelError(f"{path}: this is a folder; give the path of an .onnx or .onnx.gz file")
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: this is not an ordinary file; give the path of an .onnx or .onnx.gz file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not data:
        raise ModelError(f"{path}: the file is empty; export or download the model again")
    return data


def expand(data: bytes, path: Path, limit: int = DEFAULT_LIMIT) -> bytes:
    """The model's bytes: ``data`` itself, or what it expands to when it is gzip-compressed.

    limit: bytes; a file that expands to more raises ModelError, as does a broken one.
    """
    if not data.startswith(GZIP_MAGIC):
        return data
    parts: list[bytes] = []
    size = 0
    rest = data
    while rest:  # a file may consist of several compressed members
        stream = zlib.decompressobj(wbits=_GZIP_FORMAT)
        try:
            part = stream.decompress(rest, limit - size + 1)
        except zlib.error as error:
            raise ModelError(f"{path}: the gzip data is damaged ({error}); copy or download the file again") from None
        size += len(part)
        if size > limit:
            raise ModelError(
                f"{path}: expands to more than {limit} bytes; expand it with gunzip and check what it is, or "
                "raise the limit"
            )
        if not stream.eof:
            raise ModelError(f"{path}: the gzip data is cut off; copy or download the file again")
        parts.append(part)
        rest = stream.unused_data.lstrip(b"\0")  # some archivers pad with zeros
    if not size:
        raise ModelError(f"{path}: the compressed file is empty; export or download the model again")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def external_file(location: str, folder: Path, path: Path, tensor: str) -> Path:
    """The file that holds a tensor's external data; ``location`` is what the model says.

    Raises ModelError when the file is missing or, links followed, lies outside ``folder``.
    """
    what = f"{path}: tensor {tensor!r} has its data in the file {location!r}"
    if not location:
        raise ModelError(f"{path}: tensor {tensor!r} has external data but names no file; export it again")
    target = folder / location
    inside = folder.resolve()
    resolved = target.resolve()
    if Path(location).is_absolute() or "\\" in location or not resolved.is_relative_to(inside):
        raise ModelError(f"{what}, which is outside the model's folder; move it there and use a plain name")
    if not resolved.is_file():
        raise ModelError(f"{what}, which does not exist in {folder}; put it beside the model")
    return resolved


def read_slice(file: Path, offset: int, length: int | None, path: Path, tensor: str) -> bytes:
    """``length`` bytes (all the rest when None) of an external data file from ``offset`` on."""
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read() if length is None else stream.read(length)
    except (OSError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: the data of tensor {tensor!r} cannot be read from {file}: {error}") from None
    if length is not None and len(data) != length:
        raise ModelError(
            f"{path}: the data of tensor {tensor!r} should be {length} bytes at {offset} of {file}, which "
            f"has only {len(data)} there; copy or export the file again"
        )
    return data
