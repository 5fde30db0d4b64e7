"""What a verification run answers, and on what the answer rests.

The *margin* of a disjunct at a point is the largest of ``inputs @ x + outputs @ y - bounds`` over its rows:
the disjunct holds there exactly when its margin is <= 0 (and < 0 on strict rows).  A disjunct is impossible
when a lower bound on its margin over the box is positive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Verdict(StrEnum):
    SAT = "sat"
    UNSAT = "unsat"
    TIMEOUT = "timeout"
    UNKNOWN = "unknown"
    ERROR = "error"


class EvidenceLevel(StrEnum):
    """What an ``unsat`` rests on, strongest first."""

    RIGOROUS = "rigorous"
    """Every closing bound was evaluated in float64 with all rounding errors covered."""
    PROOF = "proof"
    """A proof file that an independent checker accepted."""
    SOLVER = "solver"
    """A MILP, SAT or CP solver's word, within its tolerances."""


@dataclass(frozen=True, eq=False)
class Witness:
    """An input that breaks the property, as onnxruntime saw it.

    x: (n_inputs,), C order; exactly representable in the model's input type.
    y: (n_outputs,), what onnxruntime computed at ``x``.
    disjunct: index of a disjunct of the spec that holds there with zero tolerance.
    margin: the margin of that disjunct at the witness, <= 0.
    """

    x: Array
    y: Array
    disjunct: int
    margin: float


@dataclass(frozen=True)
class DisjunctBounds:
    """What is known of one disjunct's smallest margin over its box.

    lower: no point has a smaller margin (-inf when nothing is known); positive means impossible.
    upper: a point with this margin was seen (inf when none was tried).
    closed_by: the method that proved it impossible, "" while open.
    level: what that proof rests on, None while open.
    """

    lower: float = -np.inf
    upper: float = np.inf
    closed_by: str = ""
    level: EvidenceLevel | None = None


@dataclass(frozen=True)
class Evidence:
    """On what an ``unsat`` rests: the weakest level among the disjuncts, and the methods used."""

    level: EvidenceLevel
    methods: tuple[str, ...]


@dataclass(frozen=True)
class SearchStatistics:
    """What one search did.

    seconds: spent in it.  visited: regions bounded.  open: left at the end.  closed: how many regions, by what closed
    them.  spilled: regions that had to wait on disk.
    """

    seconds: float = 0.0
    visited: int = 0
    open: int = 0
    closed: dict[str, int] = field(default_factory=dict)
    spilled: int = 0

    @property
    def rate(self) -> float:
        """Regions per second."""
        return self.visited / self.seconds if self.seconds else 0.0

    def then(self, later: SearchStatistics) -> SearchStatistics:
        """Both together, where ``later`` went on with what this one left."""
        names = (*self.closed, *(name for name in later.closed if name not in self.closed))
        closed = {name: self.closed.get(name, 0) + later.closed.get(name, 0) for name in names}
        return SearchStatistics(
            self.seconds + later.seconds,
            self.visited + later.visited,
            later.open,
            closed,
            self.spilled + later.spilled,
        )


@dataclass(frozen=True)
class Statistics:
    """seconds: wall time of the whole run; stages: by stage.  counts: work done, by name.  searches: by method."""

    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    searches: dict[str, SearchStatistics] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """The evidence file of a run.

    path, size: where it is, and its bytes.  leaves: closed regions in it, by the search that closed them.
    unexplained: disjuncts that rest on a solver's word, which no file can replay.  open: disjuncts nothing closed.
    """

    path: str
    size: int
    leaves: dict[str, int]
    unexplained: int
    open: int


@dataclass(frozen=True, eq=False)
class Result:
    """The answer.

    witness: set exactly when the verdict is ``sat``.
    evidence: set exactly when the verdict is ``unsat``.
    bounds: one entry per disjunct of the spec.
    recorded: the evidence file, where one was asked for.
    message: one sentence for ``unknown``, ``timeout`` and ``error``: what remained open, or what is wrong.
    """

    verdict: Verdict
    witness: Witness | None = None
    evidence: Evidence | None = None
    bounds: tuple[DisjunctBounds, ...] = ()
    statistics: Statistics = Statistics()
    message: str = ""
    recorded: Recorded | None = None
