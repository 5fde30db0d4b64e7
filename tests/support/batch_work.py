"""Work for the processes of a batch in tests: quick, and poisoned where an instance's name says so.

Named "module:name" where a pool is made, so the processes import it; ``QuickWork`` stays away from torch.
"""

from __future__ import annotations

import ctypes
import os
import time
import zlib
from pathlib import Path
from typing import Any

from verifier.benchmarks.instances import Instance
from verifier.benchmarks.job import Job
from verifier.progress import Event, Progress

QUICK = "support.batch_work:QuickWork"
POISONED_VERIFY = "support.batch_work:poisoned_verify"
SECONDS = 0.01


class QuickWork:
    """Takes a hundredth of a second and answers from the name; what follows ``poison-`` in it happens first."""

    def __call__(self, job: Job, progress: Progress) -> dict[str, Any]:
        progress(Event("thinking", lower=-1.0, open=3, unit="regions"))
        swallow(job)
        time.sleep(SECONDS)
        return {"status": verdict_of(job.vnnlib), "seconds": SECONDS, "message": ""}


def verdict_of(name: str) -> str:
    return "sat" if zlib.crc32(name.encode()) % 2 else "unsat"


def poisoned_verify() -> Any:
    """The real work, poisoned."""
    from verifier.benchmarks.work import VerifyWork

    class PoisonedVerify(VerifyWork):
        def _answer(self, job: Job, *rest: Any) -> None:
            swallow(job)
            super()._answer(job, *rest)

    return PoisonedVerify()


def swallow(job: Job) -> None:
    """What ``poison-WHAT`` in the name of the property means."""
    _, _, poison = job.vnnlib.partition("poison-")
    match poison.partition(".")[0]:
        case "":
            return
        case "segfault":
            ctypes.string_at(0)
        case "memory-error":
            raise MemoryError
        case "eater":
            kept = []
            while True:
                kept.append(bytearray(b"x") * 2**24)
                time.sleep(0.005)
        case "loop":
            while True:
                pass
        case "exit":
            os._exit(7)
        case "quiet-exit":
            os._exit(0)
        case "defect":
            raise ZeroDivisionError("a defect of ours")
        case "sleep":
            time.sleep(60)
        case "child":
            import subprocess

            child = subprocess.Popen(["sleep", "600"], start_new_session=True)
            Path(job.onnx_path).write_text(str(child.pid))
            time.sleep(60)
        case other:
            raise AssertionError(f"no such poison: {other}")


def write_list(path: Path, names: list[str], seconds: float = 10) -> Path:
    """A list of instances of one model with these properties; the files exist and are empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "m.onnx").touch()
    for name in names:
        (path.parent / name).touch()
    path.write_text("".join(f"m.onnx,{name},{seconds}\n" for name in names))
    return path


def names_of(count: int) -> list[str]:
    return [f"p{i:03}.vnnlib" for i in range(count)]


def expected(instances: list[Instance]) -> dict[tuple[str, str, str], str]:
    """What ``QuickWork`` answers."""
    return {instance.key: verdict_of(instance.vnnlib) for instance in instances}
