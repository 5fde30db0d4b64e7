"""Parts of a frontier that do not fit in memory, on disk until their turn comes."""

from __future__ import annotations

import pickle
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any


@dataclass(frozen=True, eq=False)
class Chunk:
    """Regions in a file.  count: how many.  lowest: the least bound of each disjunct that is open among them."""

    file: IO[bytes]
    count: int
    lowest: Mapping[int, float]


class Spill:
    """A pile of chunks in files without a name, which the system removes however the process ends."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        weakref.finalize(self, _close, self._chunks)

    def __len__(self) -> int:
        return sum(chunk.count for chunk in self._chunks)

    @property
    def lowest(self) -> dict[int, float]:
        """The least bound of each disjunct that is open in some chunk."""
        found: dict[int, float] = {}
        for chunk in self._chunks:
            for disjunct, lower in chunk.lowest.items():
                found[disjunct] = min(lower, found.get(disjunct, lower))
        return found

    def push(self, regions: Any, count: int, lowest: Mapping[int, float]) -> None:
        """Write regions away.  Raises OSError when the disk is full."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 (open until the chunk is read back)
        self._chunks.append(Chunk(file, count, dict(lowest)))
        pickle.dump(regions, file, protocol=pickle.HIGHEST_PROTOCOL)

    def pop(self) -> Any:
        """Read back the chunk with the least bound.  Raises IndexError when there is none."""
        if not self._chunks:
            raise IndexError("nothing was spilled")
        chunk = min(self._chunks, key=lambda one: min(one.lowest.values()))
        self._chunks.remove(chunk)
        with chunk.file as file:
            file.seek(0)
            return pickle.load(file)


def _close(chunks: list[Chunk]) -> None:
    for chunk in chunks:
        chunk.file.close()
