"""What is sent to a worker: one instance with its options, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from verifier.benchmarks.instances import short_name


@dataclass(frozen=True)
class Job:
    """number: of the instance in this run.  timeout, grace: seconds; a worker that has not come back ``grace``
    after its limit is ended.  memory: bytes that the worker and its own processes may have resident together.
    """

    number: int
    category: str
    onnx: str
    vnnlib: str
    onnx_path: str
    vnnlib_path: str
    timeout: float
    grace: float
    memory: int
    threads: int = 1
    seed: int = 0
    trust: str = "solver"
    device: str = "cpu"

    @property
    def name(self) -> str:
        """For displays."""
        return f"{short_name(self.onnx)} {short_name(self.vnnlib)}"

    @property
    def options(self) -> dict[str, Any]:
        """What a record says of how it was run."""
        return {
            "timeout": self.timeout,
            "memory_gb": round(self.memory / 2**30, 3),
            "threads": self.threads,
            "seed": self.seed,
            "trust": self.trust,
            "device": self.device,
        }
