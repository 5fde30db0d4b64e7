"""One run about a binarised network: what was asked for, what is known so far, and the answer that makes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from verifier.binarised.falsify import FalsifyOptions
from verifier.binarised.lazy import LazyOptions
from verifier.binarised.patterns import PatternOptions
from verifier.binarised.query import Query
from verifier.deadline import Deadline
from verifier.options import Trust
from verifier.progress import Event, Progress
from verifier.proofs.file import ProofFile, Section
from verifier.solve.gate_engines import gate_engine
from verifier.verdict import DisjunctBounds, Evidence, EvidenceLevel, Result, Statistics, Verdict, Witness

OWN = ("patterns", "lazy")
"""Engines of this folder, by the names that ``--engine`` takes."""


@dataclass(frozen=True)
class Options:
    """engine: "auto", "patterns", "lazy", or the name of one in ``verifier.solve.gate_engines``: the only exact one
    used.

    threads: engines that may run side by side.  seed: makes a run repeatable up to the time that engines take.
    keep_proof: called with the checked proof of an ``unsat``; where it is set, engines that prove go first.
    """

    engine: str = "auto"
    threads: int = 1
    seed: int = 0
    trust: Trust = Trust.SOLVER
    falsify: FalsifyOptions = field(default_factory=FalsifyOptions)
    patterns: PatternOptions = field(default_factory=PatternOptions)
    lazy: LazyOptions = field(default_factory=LazyOptions)
    keep_proof: Callable[[ProofFile], None] | None = None

    def __post_init__(self) -> None:
        if self.engine not in ("auto", *OWN):
            gate_engine(self.engine)


@dataclass(eq=False)
class State:
    """What is known so far; one entry of ``bounds`` per disjunct of the property."""

    query: Query
    deadline: Deadline
    options: Options
    progress: Progress
    bounds: list[DisjunctBounds]
    witness: Witness | None = None
    stages: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sections: dict[int, Section] = field(default_factory=dict)
    interrupted: bool = False
    begun: float = field(default_factory=time.monotonic)

    @property
    def open(self) -> list[int]:
        return [i for i, bound in enumerate(self.bounds) if bound.level is None]

    @property
    def decided(self) -> bool:
        return self.witness is not None or not self.open

    def close(self, positions: tuple[int, ...], method: str, level: EvidenceLevel) -> None:
        for position in positions:
            if self.bounds[position].level is None:
                self.bounds[position] = replace(self.bounds[position], closed_by=method, level=level)

    def timed(self, stage: str, action: Callable[[], None]) -> None:
        begun = time.monotonic()
        self.progress(Event(stage, open=len(self.open), unit="disjuncts"))
        try:
            action()
        finally:
            self.stages[stage] = self.stages.get(stage, 0.0) + time.monotonic() - begun


def conclusion(state: State, seconds: float) -> Result:
    """What the run has come to."""
    bounds = tuple(state.bounds)
    statistics = Statistics(seconds, state.stages, state.counts)
    if state.witness is not None:
        return Result(Verdict.SAT, state.witness, None, bounds, statistics)
    if not state.open:
        levels = {bound.level for bound in bounds}
        order = (EvidenceLevel.SOLVER, EvidenceLevel.PROOF, EvidenceLevel.RIGOROUS)
        weakest = next((level for level in order if level in levels), EvidenceLevel.RIGOROUS)
        methods = tuple(sorted({bound.closed_by for bound in bounds})) or ("the property contradicts itself",)
        if weakest is EvidenceLevel.SOLVER and state.options.trust is Trust.RIGOROUS:
            message = "unsat by the word of a solver only, which --trust rigorous does not accept"
            return Result(Verdict.UNKNOWN, None, None, bounds, statistics, message)
        if state.options.keep_proof is not None and weakest is not EvidenceLevel.SOLVER:
            state.options.keep_proof(ProofFile(state.query.model.sha256, state.sections))
        return Result(Verdict.UNSAT, None, Evidence(weakest, methods), bounds, statistics)
    still = "; ".join([f"{len(state.open)} of {len(bounds)} disjuncts remain open", *dict.fromkeys(state.notes)])
    if state.interrupted:
        return Result(Verdict.UNKNOWN, None, None, bounds, statistics, f"interrupted; {still}")
    if state.deadline.expired:
        return Result(Verdict.TIMEOUT, None, None, bounds, statistics, still)
    return Result(
        Verdict.UNKNOWN, None, None, bounds, statistics, f"every engine gave up before the time was over; {still}"
    )
