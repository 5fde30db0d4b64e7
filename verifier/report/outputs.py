"""Files the user asked for: checked before the work starts, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from verifier.errors import OutputPathError


def check_writable(path: Path) -> None:
    """Raises OutputPathError, before any work is done, when ``path`` cannot be written."""
    folder = path.absolute().parent
    if path.is_dir():
        raise OutputPathError(f"{path} is a folder; give the name of a file")
    if not folder.is_dir():
        raise OutputPathError(f"{path} cannot be written: the folder {folder} does not exist; create it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise OutputPathError(f"{path} cannot be written: no permission; choose another place")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it never exists half-written.  Raises OutputPathError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text)  # a device or a pipe, such as /dev/stdout
            return
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputPathError(f"{path} cannot be written: {error.strerror or error}; choose another place") from None


def append_text(path: Path, text: str) -> None:
    """Add to the end of a file, at once.  Raises OutputPathError."""
    try:
        with path.open("a") as file:
            file.write(text)
    except OSError as error:
        raise OutputPathError(f"{path} cannot be written: {error.strerror or error}; choose another place") from None
