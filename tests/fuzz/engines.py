"""The engines under test, each as a function of a query and a deadline that gives an ``Answer``."""

from __future__ import annotations

from fuzz.fuzzer import Engine
from fuzz.judge import Answer
from verifier.bounds.margins import margin_bounds
from verifier.deadline import Deadline
from verifier.options import Trust
from verifier.pipeline import Options, solve
from verifier.query import Query
from verifier.search.input_split import SplitOptions, applicable, split
from verifier.verdict import DisjunctBounds, EvidenceLevel, Verdict, Witness

TIE_SECONDS = 5.0
"""Longer than any tiny case needs that is no tie; at a tie an engine may search until its time is over."""


def answer_of(witness: Witness | None, bounds: tuple[DisjunctBounds, ...]) -> Answer:
    """What a stage's outcome amounts to as an answer to the whole query."""
    if witness is not None:
        return Answer(Verdict.SAT, witness, bounds)
    if all(one.closed_by for one in bounds):
        used = [level for level in EvidenceLevel if any(one.level is level for one in bounds)]
        return Answer(Verdict.UNSAT, None, bounds, used[-1] if used else EvidenceLevel.RIGOROUS)
    return Answer(Verdict.UNKNOWN, None, bounds)


def crown(query: Query, deadline: Deadline) -> Answer:
    """Backward bounds on the margins, no search."""
    bounds = [DisjunctBounds()] * len(query.disjuncts)
    for found in margin_bounds(query.network, query.disjuncts, deadline):
        for position, lower in zip(found.group.positions, found.margins, strict=True):
            closed = lower > 0
            level = EvidenceLevel.RIGOROUS if closed else None
            bounds[position] = DisjunctBounds(lower, closed_by="crown" if closed else "", level=level)
    return answer_of(None, tuple(bounds))


def input_splitting(query: Query, deadline: Deadline) -> Answer | None:
    """The compiled kernel for few inputs."""
    options = SplitOptions()
    if not applicable(query, options):
        return None
    outcome = split(query, deadline.within(TIE_SECONDS), options)
    return answer_of(outcome.witness, outcome.bounds)


def pipeline(*stages: str, trust: Trust = Trust.SOLVER, decides: bool = False) -> Engine:
    """The pipeline, or only some of its stages; ``decides``: whether these promise an answer."""
    options = Options(stages=stages or Options().stages, trust=trust)

    def engine(query: Query, deadline: Deadline) -> Answer:
        result = solve(query, deadline.within(TIE_SECONDS), options)
        level = result.evidence.level if result.evidence is not None else None
        return Answer(result.verdict, result.witness, result.bounds, level, decides)

    return engine


ENGINES: dict[str, Engine] = {
    "pipeline": pipeline(decides=True),
    "rigorous pipeline": pipeline(trust=Trust.RIGOROUS),
    "crown": crown,
    "attack": pipeline("attack"),
    "input splitting": input_splitting,
    "milp": pipeline("milp", decides=True),
    "crown and milp": pipeline("bound", "milp", decides=True),
}
