"""The engines under test, each as a function of a query and a deadline that gives an ``Answer``."""

from __future__ import annotations

from collections.abc import Callable

from fuzz.fuzzer import LARGER, Engine
from fuzz.judge import Answer
from support.searches import Outcome, box_splitting, refining_splitting, relu_splitting
from verifier.bounds.margins import margin_bounds
from verifier.deadline import Deadline
from verifier.options import Trust
from verifier.pipeline import Options, solve
from verifier.query import Query
from verifier.search.input_split import SplitOptions, applicable, split
from verifier.search.mip import CONFIDENCE
from verifier.verdict import DisjunctBounds, EvidenceLevel, Verdict, Witness

TIE_SECONDS, LARGER_SECONDS = 5.0, 20.0
"""Longer than any tiny case, or larger one, needs that is no tie; at a tie an engine may search until its time is over.
"""
SEARCH_SECONDS = 2.0
"""For searches that promise no answer: what they claim by then is judged."""


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
    outcome = split(query, deadline.within(SEARCH_SECONDS), options)
    return answer_of(outcome.witness, outcome.bounds)


def pipeline(*stages: str, trust: Trust = Trust.SOLVER, decides: bool = False) -> Engine:
    """The pipeline, or only some of its stages; ``decides``: whether these promise an answer."""
    options = Options(stages=stages or Options().stages, trust=trust)

    def engine(query: Query, deadline: Deadline) -> Answer:
        neurons = sum(query.network.nodes[k].size for k in query.network.relus)
        result = solve(query, deadline.within(LARGER_SECONDS if neurons > LARGER else TIE_SECONDS), options)
        level = result.evidence.level if result.evidence is not None else None
        band = milp_band(query) if result.verdict is Verdict.UNKNOWN else 0.0
        return Answer(result.verdict, result.witness, result.bounds, level, decides, band)

    return engine


def milp_band(query: Query) -> float:
    """Margins that the MILP leaves open: ``CONFIDENCE``, on the scale of its root bounds, which beat those of CROWN."""
    found = margin_bounds(query.network, query.disjuncts, Deadline.never())
    return CONFIDENCE * (1 + max((abs(lower) for group in found for lower in group.margins), default=0.0))


def alone(search: Callable[[Query, Deadline], Outcome]) -> Engine:
    """One search that needs no other stage."""

    def engine(query: Query, deadline: Deadline) -> Answer:
        return answer_of(*search(query, deadline.within(SEARCH_SECONDS)))

    return engine


ENGINES: dict[str, Engine] = {
    "pipeline": pipeline(decides=True),
    "rigorous pipeline": pipeline(trust=Trust.RIGOROUS),
    "crown": crown,
    "attack": pipeline("attack"),
    "input splitting": input_splitting,
    "box splitting": alone(box_splitting),
    "relu splitting": alone(relu_splitting),
    "refining relu splitting": alone(refining_splitting),
    "milp": pipeline("milp", decides=True),
    "crown and milp": pipeline("bound", "milp", decides=True),
}
