"""On what a result was computed: machine and versions, for the journal."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from verifier import __version__

LIBRARIES = ("torch", "onnxruntime", "numpy", "scipy", "highspy", "numba")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def machine() -> dict[str, Any]:
    """Host, processor, cores, memory in GB and system."""
    import psutil

    return {
        "host": platform.node(),
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(terse=True),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Of the toolkit (with the commit where it runs from a checkout), Python and the libraries that compute."""
    found = {"verifier": __version__, "commit": _commit(), "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {name: text for name, text in found.items() if text}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the checkout this file lies in, with ``+`` where it was changed; "" elsewhere."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return ""
    git = ["git", "-C", str(folder.parent)]
    try:
        run = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip() + ("+" if changed.stdout.strip() else "") if run.returncode == 0 else ""
