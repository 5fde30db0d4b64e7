"""The engines under test, each as a function of a query and a deadline that gives an ``Answer``."""

from __future__ import annotations

from fuzz.fuzzer import Engine
from fuzz.judge import Answer
from verifier.bounds.margins import margin_bounds
from verifier.deadline import Deadline
from verifier.query import Query
from verifier.search.input_split import SplitOptions, applicable, split
from verifier.verdict import DisjunctBounds, EvidenceLevel, Verdict, Witness


def answer_of(witness: Witness | None, bounds: tuple[DisjunctBounds, ...], decides: bool = False) -> Answer:
    """What a stage's outcome amounts to as an answer to the whole query."""
    if witness is not None:
        return Answer(Verdict.SAT, witness, bounds)
    if all(one.closed_by for one in bounds):
        levels = [level for level in EvidenceLevel if any(one.level is level for one in bounds)]
        weakest = levels[-1] if levels else EvidenceLevel.RIGOROUS
        return Answer(Verdict.UNSAT, None, bounds, weakest, decides)
    return Answer(Verdict.UNKNOWN, None, bounds, decides=decides)


def crown(query: Query, deadline: Deadline) -> Answer:
    """Backward bounds on the margins, no search."""
    bounds = [DisjunctBounds()] * len(query.disjuncts)
    for found in margin_bounds(query.network, query.disjuncts, deadline):
        for position, lower in zip(found.group.positions, found.margins, strict=True):
            closed = lower > 0
            bounds[position] = DisjunctBounds(
                lower,
                closed_by="crown" if closed else "",
                level=EvidenceLevel.RIGOROUS if closed else None,
            )
    return answer_of(None, tuple(bounds))


def input_splitting(query: Query, deadline: Deadline) -> Answer | None:
    """The compiled kernel for few inputs."""
    options = SplitOptions()
    if not applicable(query.network, query, options):
        return None
    outcome = split(query, deadline.within(5.0), options)
    return answer_of(outcome.witness, outcome.bounds)


ENGINES: dict[str, Engine] = {"crown": crown, "input splitting": input_splitting}
