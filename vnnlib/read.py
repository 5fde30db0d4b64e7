"""Property files, plain or gzip, to ``Spec``.

Whether a file is gzip is decided by its first two bytes, not by its name.  Every way in which a file can fail
to be a property ends in a SpecError that says what is wrong and where.
"""

from __future__ import annotations

import gzip
import io
import zlib
from io import BufferedReader
from pathlib import Path

from verifier.errors import SpecError
from verifier.vnnlib.lexer import Words
from verifier.vnnlib.limits import ReadLimits
from verifier.vnnlib.normal_form import normal_form
from verifier.vnnlib.parser import parse
from verifier.vnnlib.spec import Spec

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 2**20


def read(path: str | Path, limits: ReadLimits | None = None) -> Spec:
    """The property in a VNN-LIB 1.0 file, plain or gzip.  Raises SpecError."""
    limits = limits or ReadLimits()
    return read_text(_decoded(_contents(Path(path), limits), path), str(path), limits)


def read_text(text: str, source: str = "", limits: ReadLimits | None = None) -> Spec:
    """The property in a VNN-LIB 1.0 text.  source: what messages call it.  Raises SpecError."""
    if not text.strip():
        raise SpecError("the file is empty; a property declares variables and asserts constraints", source or None)
    words = Words(text, source)
    return normal_form(parse(words), words, limits or ReadLimits())


def _contents(path: Path, limits: ReadLimits) -> bytes:
    """The bytes of the file, expanded if they are gzip."""
    try:
        with path.open("rb") as file:
            contents = _at_most(file, limits.expanded_bytes)
    except FileNotFoundError:
        raise SpecError("there is no such file; check the path of the property", path) from None
    except IsADirectoryError:
        raise SpecError("this is a directory; name a .vnnlib or .vnnlib.gz file in it", path) from None
    except PermissionError:
        raise SpecError("this file may not be read; check its permissions", path) from None
    except (OSError, ValueError) as error:
        raise SpecError(f"this file cannot be read: {error}", path) from None
    if contents.startswith(_GZIP_MAGIC) and len(contents) <= limits.expanded_bytes:
        contents = _expanded(contents, path, limits)
    if len(contents) > limits.expanded_bytes:
        sentence = f"the text is longer than the limit of {limits.expanded_bytes} bytes; raise the limit to read it"
        raise SpecError(sentence, path)
    return contents


def _at_most(file: BufferedReader | gzip.GzipFile, limit: int) -> bytes:
    """The rest of the file if it is no longer than ``limit`` bytes, else its beginning, longer than that."""
    chunks, length = [], 0
    while length <= limit and (chunk := file.read(_CHUNK)):
        chunks.append(chunk)
        length += len(chunk)
    return b"".join(chunks)


def _expanded(contents: bytes, path: Path, limits: ReadLimits) -> bytes:
    """What the gzip data hold, cut off somewhere behind the limit."""
    try:
        with gzip.open(io.BytesIO(contents)) as file:
            return _at_most(file, limits.expanded_bytes)
    except EOFError:
        raise SpecError("the gzip data ends too early; the file was cut off, copy it again", path) from None
    except (OSError, zlib.error) as error:
        raise SpecError(f"the gzip data is damaged ({error}); copy the file again", path) from None


def _decoded(contents: bytes, path: str | Path) -> str:
    try:
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = contents[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        sentence = f"the byte 0x{contents[error.start]:02x} is not UTF-8 text; a property is a plain text file"
        raise SpecError(sentence, path, line, column) from None
