"""Clause learning on the later layers, linear programming on the first: lazy clause generation for what is reachable.

The layers behind the first become CNF over the first layer's bits; a solver proposes a pattern of these bits that
satisfies
the asserted rows; a linear program finds levels that reach it, or a conflict (see ``reach``), which becomes a clause.
This is the scheme of satisfiability modulo linear arithmetic (Ganzinger et al. 2004) with complete proposals only,
and logic-based Benders decomposition (Hooker and Ottosson 2003) by another name.

One proposal teaches several conflicts: after each, its first gate is let go and the rest asked again.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from verifier.binarised.reach import Reach, integer_levels
from verifier.deadline import Deadline
from verifier.encodings.sat.gates import GateFormula, later_formula
from verifier.encodings.sat.program import Program
from verifier.errors import OptionError, SolverError
from verifier.progress import Event, Progress, silent
from verifier.proofs.conflict import Conflict, pair_conflicts
from verifier.solve import cnf_run
from verifier.solve.gate_engines import GateAnswer
from verifier.solve.worker import Worker

Integers = NDArray[np.int64]

KEPT = 32
"""Points that are remembered."""
LOOK = 0.5
"""Seconds between looks at the clock while a process works."""


@dataclass(frozen=True)
class LazyOptions:
    """solver: of python-sat, one that takes clauses between calls.  budget: conflicts of the first call; later ones get
    what about ``pause`` seconds allow, between looks at the clock.

    counter: form of the cardinality constraints.  lessons: conflicts taken from one proposal at most.
    """

    solver: str = "glucose4"
    budget: int = 200
    pause: float = 0.3
    counter: str = "modulo"
    lessons: int = 12


@dataclass(frozen=True, eq=False)
class LazyOutcome:
    """answer, and for a rigorous "no" what a proof needs: the CNF and the conflicts added to it.

    points: real levels that the last proposals came to, rounded: near misses.
    rigorous: a "no" rests on checked conflicts, the CNF and the solver's clause learning alone.
    """

    answer: GateAnswer
    rigorous: bool
    formula: GateFormula
    conflicts: tuple[Conflict, ...]
    points: tuple[Integers, ...] = ()


def lazy_available() -> bool:
    """Whether python-sat is installed."""
    return find_spec("pysat") is not None


def refutation(outcome: LazyOutcome, options: LazyOptions, deadline: Deadline) -> tuple[str, ...] | None:
    """DRAT steps that refute the formula with the conflicts' clauses; None when time is over."""
    clauses = [*outcome.formula.clauses, *(conflict.clause for conflict in outcome.conflicts)]
    request = cnf_run.Request(solver=options.solver, clauses=clauses, assumed_phases=[], proof=True)
    with Worker("cnf_run.py", request) as worker:
        while not deadline.expired:
            try:
                message = worker.poll(min(LOOK, deadline.remaining))
            except EOFError as death:
                raise SolverError(f"{options.solver} was ended while it wrote a proof: {death}") from None
            if message is not None and message["status"] == "sat":
                raise SolverError(f"{options.solver} finds a model of clauses that it refuted before")
            if message is not None:
                return tuple(message["steps"] or ())
    return None


def search_lazily(
    program: Program,
    deadline: Deadline,
    options: LazyOptions | None = None,
    progress: Progress = silent,
    hint: Integers | None = None,
) -> LazyOutcome:
    """Decide the program.

    hint: levels whose pattern is proposed first.
    """
    if not lazy_available():
        raise OptionError(
            "the engine lazy needs the package python-sat; install it with: pip install 'nn-verifier[bnn]'"
        )
    from pysat.solvers import Solver

    options = options or LazyOptions()
    formula = later_formula(program, options.counter)
    first = program.layers[0]
    reach = Reach(first, program.counts)
    conflicts = pair_conflicts(program)
    points: deque[Integers] = deque(maxlen=KEPT)
    rigorous = True

    def done(answer: GateAnswer) -> LazyOutcome:
        return LazyOutcome(answer, rigorous, formula, tuple(conflicts), tuple(points))

    start = np.zeros(len(program.counts), np.int64) if hint is None else hint
    phases = first(start[None])[0]
    with Solver(options.solver, bootstrap_with=formula.clauses) as solver:
        for conflict in conflicts:
            solver.add_clause(conflict.clause)
        solver.set_phases([i + 1 if bit else -(i + 1) for i, bit in enumerate(phases.tolist())])
        budget = options.budget
        while True:
            solver.conf_budget(budget)
            begun = time.monotonic()
            found = solver.solve_limited()
            if found is None:
                budget = max(20, int(budget * min(2.0, options.pause / max(1e-3, time.monotonic() - begun))))
            if deadline.expired:
                return done(GateAnswer(None, None, "time"))
            if found is None:
                continue
            if not found:
                return done(GateAnswer(False))
            model = solver.get_model()
            pattern = {gate: model[gate] > 0 for gate in range(len(first))}
            lessons, levels = _lessons(reach, pattern, options.lessons, deadline)
            if levels is not None:
                points.append(np.rint(levels).astype(np.int64))
            if not lessons:
                bits = np.array([pattern[gate] for gate in range(len(first))])
                found_levels, decided = integer_levels(first, program.counts, bits, deadline)
                if found_levels is not None and program.holds(found_levels[None])[0]:
                    return done(GateAnswer(True, found_levels))
                if not decided:
                    return done(GateAnswer(None, None, "time"))
                rigorous = False
                solver.add_clause([-(gate + 1) if bit else gate + 1 for gate, bit in pattern.items()])
            for lesson in lessons:
                conflicts.append(lesson)
                solver.add_clause(lesson.clause)
            progress(Event("lazy", open=len(conflicts), unit="conflicts"))


def _lessons(
    reach: Reach, pattern: dict[int, bool], most: int, deadline: Deadline
) -> tuple[list[Conflict], NDArray[np.float64] | None]:
    """Conflicts within the pattern, each without some gate of those before; real levels that reach what is left."""
    left = dict(pattern)
    lessons: list[Conflict] = []
    while len(lessons) < most and left and not (lessons and deadline.expired):
        answer = reach.ask(left)
        if not isinstance(answer, Conflict):
            return lessons, answer
        lessons.append(answer)
        strongest = int(answer.gates[answer.multipliers.argmax()])
        del left[strongest]
    return lessons, None
