"""The order of the stages for binarised networks: this page is the data flow of one query, in code.

    attack      descents on integer levels, all disjuncts at once; onnxruntime confirms what they find
    presolve    exact interval reasoning closes disjuncts and makes the program small
    patterns    few open gates in the first layer: their reachable sign patterns are enumerated, rigorously
    climb       descents on the presolved program, from the best points so far
    relax       the linear relaxation bounds every disjunct, rigorously, and closes some
    sprint      where Exact is installed, the engines' first turns: it mostly needs no more
    clusters    second layers that read few bits at a time: tabulated shares bound every disjunct, rigorously
    lazy        clause learning on the later layers, linear programs for the first, rigorously
    targets     the first engine on one disjunct at a time, whose program is smaller, with growing budgets
    engines     Exact, CP-SAT, CNF solvers and HiGHS in processes that can be ended, in turns with the attack

A query is a conjunction of nothing: every box is a question of its own, and each stage sees only the disjuncts that are
still open.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from verifier.binarised.box_work import BoxWork
from verifier.binarised.query import Query, prepare
from verifier.binarised.state import Options, State, conclusion
from verifier.deadline import Deadline
from verifier.progress import Progress, silent
from verifier.verdict import DisjunctBounds, Result, Verdict

__all__ = ["Options", "Query", "prepare", "solve"]

GRACE = 0.2
"""Seconds kept back for ending processes and reporting."""


def solve(
    query: Query,
    deadline: Deadline,
    options: Options | None = None,
    progress: Progress = silent,
    attack_only: bool = False,
) -> Result:
    """Decide the query within the deadline.  Ctrl-C ends the run with what is known so far.

    attack_only: look for a counterexample for a moment, and leave the rest undecided.

    Raises SoundnessError when two of our own results contradict each other.
    """
    options = options or Options()
    state = State(query, deadline.within(max(0.0, deadline.remaining - GRACE)), options, progress, [])
    state.bounds = [DisjunctBounds() for _ in query.spec.disjuncts]
    started = time.monotonic()
    works: list[BoxWork] = []
    try:
        works += [BoxWork(state, number, box) for number, box in enumerate(query.boxes)]
        stages = (
            BoxWork.attack,
            BoxWork.presolve,
            BoxWork.patterns,
            BoxWork.climb,
            BoxWork.relax,
            BoxWork.sprint,
            BoxWork.clusters,
            BoxWork.lazy,
            BoxWork.targets,
            BoxWork.engines,
        )
        for stage in (BoxWork.attack, BoxWork.presolve, BoxWork.climb) if attack_only else stages:
            for number, work in enumerate(works):
                if state.witness is None and work.open and not state.deadline.expired:
                    share = state.deadline.share(1 / (len(works) - number))
                    state.timed(stage.__name__, lambda w=work, s=stage, d=share: s(w, d))  # type: ignore[misc]
    except KeyboardInterrupt:
        state.interrupted = True
    finally:
        for work in works:
            work.end()
    return conclusion(state, time.monotonic() - started)


def solve_all(
    queries: Iterable[Query], deadline: Deadline, options: Options | None = None, progress: Progress = silent
) -> tuple[Result, Query]:
    """The last query's answer, or an earlier one's ``sat``: each ``sat`` implies the next.

    All but the last are only attacked.
    """
    waiting = iter(queries)
    query = next(waiting)
    begun = time.monotonic()
    # The first wave of descents is all that many need; only then the next query is built.
    result = solve(query, deadline, options, progress, attack_only=True)
    for following in waiting:
        if result.verdict is Verdict.SAT:
            return result, query
        query = following
        result = solve(query, deadline, options, progress, attack_only=True)
    if result.verdict is not Verdict.SAT:
        result = solve(query, deadline, options, progress)
        result = replace(result, statistics=replace(result.statistics, seconds=time.monotonic() - begun))
    return result, query
