"""What a run amounts to: the result from a witness, the bounds of all disjuncts and how the run ended."""

from __future__ import annotations

from verifier.errors import SoundnessError
from verifier.options import Trust
from verifier.verdict import DisjunctBounds, Evidence, EvidenceLevel, Result, Statistics, Verdict, Witness


def conclude(
    witness: Witness | None,
    bounds: tuple[DisjunctBounds, ...],
    statistics: Statistics,
    trust: Trust,
    interrupted: bool,
    expired: bool,
) -> Result:
    """Raises SoundnessError for a witness of a disjunct that was closed."""
    if witness is not None:
        closed = bounds[witness.disjunct]
        if closed.level is not None:
            raise SoundnessError(
                f"disjunct {witness.disjunct} was closed by {closed.closed_by} "
                "but onnxruntime confirms a counterexample to it"
            )
        return Result(Verdict.SAT, witness, None, bounds, statistics)
    count = sum(bound.level is None for bound in bounds)
    if not count:
        return _closed(bounds, statistics, trust)
    still = f"{count} of {len(bounds)} disjuncts remain open"
    if interrupted:
        return Result(Verdict.UNKNOWN, None, None, bounds, statistics, f"interrupted; {still}")
    if expired:
        return Result(Verdict.TIMEOUT, None, None, bounds, statistics, still)
    message = f"every engine gave up before the time was over; {still}"
    return Result(Verdict.UNKNOWN, None, None, bounds, statistics, message)


def _closed(bounds: tuple[DisjunctBounds, ...], statistics: Statistics, trust: Trust) -> Result:
    levels = {bound.level for bound in bounds}
    weakest = EvidenceLevel.SOLVER if EvidenceLevel.SOLVER in levels else EvidenceLevel.RIGOROUS
    methods = tuple(sorted({bound.closed_by for bound in bounds})) or ("the property contradicts itself",)
    evidence = Evidence(weakest, methods)
    if weakest is EvidenceLevel.SOLVER and trust is Trust.RIGOROUS:
        message = "unsat by the word of a MILP solver only, which --trust rigorous does not accept"
        return Result(Verdict.UNKNOWN, None, None, bounds, statistics, message)
    return Result(Verdict.UNSAT, None, evidence, bounds, statistics)
