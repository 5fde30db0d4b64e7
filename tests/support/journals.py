"""Journals made up for tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from verifier.benchmarks.record import Record, Status

MACHINE = {"host": "here", "processor": "CPU", "cores": 2, "memory_gb": 8.0, "system": "Linux"}
VERSIONS = {"verifier": "0.1.0", "python": "3.11"}
STATUSES = (Status.UNSAT, Status.SAT, Status.TIMEOUT, Status.CRASHED)


def records(count: int, side: int = 8, seed: int = 0, category: str = "digits", images: bool = True) -> list[Record]:
    """Robustness properties of pictures with ``side`` pixels to a side; every fourth one each of four statuses."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        status = STATUSES[i % len(STATUSES)]
        witness = picture(rng, side) if status is Status.SAT and images else None
        found.append(
            Record(
                category,
                f"onnx/net_{i % 3}.onnx",
                f"vnnlib/image_{i:04}_eps_0.1.vnnlib",
                60.0,
                status,
                float(np.exp(rng.normal())),
                message="" if status in (Status.UNSAT, Status.SAT) else f"why it ended as {status}",
                finished="2026-01-01T00:00:00+00:00",
                asked={
                    "sentences": ["Every pixel may differ by up to 0.1.", "Looked for: another class than 3."],
                    "kind": "robustness",
                    "label": 3,
                    "epsilon": 0.1,
                },
                evidence={"level": "rigorous", "methods": ["crown"]} if status is Status.UNSAT else None,
                witness=witness,
                bounds=tuple(
                    {"lower": float(rng.normal()), "upper": None, "closed_by": "crown", "level": "rigorous"}
                    for _ in range(9)
                ),
                stages={"bound": 0.1, "attack": 0.2},
                counts={"regions": 12.0},
                files={"onnx": "ab" * 32, "vnnlib": "cd" * 32},
                options={"timeout": 60.0, "threads": 1, "seed": 0},
                versions=VERSIONS,
                machine=MACHINE,
                traceback="Fatal Python error: <b>Segmentation fault</b>" if status is Status.CRASHED else "",
            )
        )
    return found


def picture(rng: np.random.Generator, side: int) -> dict[str, Any]:
    """A witness: the original is read as 3, the counterexample as 8."""
    before = rng.uniform(0, 1, side * side)
    after = np.clip(before + rng.choice([-0.1, 0.0, 0.1], side * side), 0, 1)
    original, changed = np.zeros(10), np.zeros(10)
    original[3], changed[3], changed[8] = 2.0, 1.0, 1.5
    return {
        "x": after.tolist(),
        "y": changed.tolist(),
        "disjunct": 7,
        "margin": -0.5,
        "shape": [1, 1, side, side],
        "original_x": before.tolist(),
        "original_y": original.tolist(),
    }
