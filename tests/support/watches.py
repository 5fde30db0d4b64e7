"""What a test puts into ``watch``, in a module that worker processes can import."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

EXIT_CODE = 7


@dataclass(frozen=True)
class DieOnce:
    """Ends the process that calls it first; marker: a path that is not there yet."""

    marker: Path

    def __call__(self, moment: object) -> None:
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return
        os._exit(EXIT_CODE)
