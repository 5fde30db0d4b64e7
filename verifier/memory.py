"""How much memory a run may use, and how much it uses."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

from verifier.errors import OptionError

DEFAULT_SHARE = 0.6
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_bytes() -> int:
    """The machine's memory, or a container's share of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            total = min(total, int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file here, or the word "max"
            continue
    return total


def parse_memory(text: str) -> int:
    """Bytes from ``60%`` (of the machine), ``8G``, ``500M`` or a number of gigabytes; OptionError for the rest."""
    word = text.strip().lower().removesuffix("b")
    share = word.endswith("%")
    unit = UNITS.get(word[-1:], 0)
    try:
        number = float(word[:-1] if share or unit else word)
    except ValueError:
        number = 0.0
    size = number / 100 * machine_bytes() if share else number * (unit or UNITS["g"])
    if not 2**20 <= size < float("inf"):
        raise OptionError(f"the memory limit {text!r} is neither a share like 60% nor a size like 8G or 500M")
    return int(size)


def give_back() -> None:
    """Return what was freed to the system, where the C library can: freed blocks between used ones pile up else."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # not the GNU library
        return


def resident_bytes(pid: int | None = None) -> int:
    """Memory that a process (this one by default) holds now; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{'self' if pid is None else pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        if pid is not None:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
