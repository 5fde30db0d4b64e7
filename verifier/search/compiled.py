"""How the loops of input splitting are compiled by numba.

Sums may be reassociated and contracted: every error bound in these files holds for any order of summation.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


def stamp(modules: Iterable[ModuleType]) -> int:
    """A number that changes with the text of the modules.

    numba's cache notices a change in the file of a function, not one in the files of the functions that it calls.
    As a closure variable of the caller the stamp becomes part of the cache's key.
    """
    return zlib.crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in modules))
