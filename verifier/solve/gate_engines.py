"""The engines that decide programs of gates, each in a killable process: CP-SAT, Exact, HiGHS, and CNF solvers.

What an engine says is checked here: levels that it returns must satisfy the program, in integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.encodings.milp.gates import gate_milp
from verifier.encodings.sat.gates import gate_formula
from verifier.encodings.sat.program import Program, Rows
from verifier.encodings.sat.pseudo_boolean import PSEUDO_BOOLEAN, gate_constraints
from verifier.errors import OptionError, SolverError
from verifier.solve import cnf_run, cp_sat_run, exact_run, highs_run
from verifier.solve.arrays import program as arrays
from verifier.solve.worker import Worker

Integers = NDArray[np.int64]

COUNTER = "modulo"
"""The form in which CNF solvers get cardinality constraints; the smallest, and the fastest of four where compared."""


@dataclass(frozen=True, eq=False)
class GateAnswer:
    """sat: True with levels (levels,), False, or None where the engine gave up for the reason ``detail``.

    steps: of a proof about the formula that the engine was given, from engines that make one when asked to.
    """

    sat: bool | None
    levels: Integers | None = None
    detail: str = ""
    steps: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """hint: levels (levels,) to start from, None without.  proof: whether steps are wanted with a "no"."""

    seconds: float
    hint: Integers | None = None
    seed: int = 0
    proof: bool = False


@dataclass(frozen=True)
class GateEngine:
    """needs: the module to import, the package that has it, and our extra that installs it ("" for none).

    form: that of the formula, as proof files name it; "" for engines without proofs.
    """

    name: str
    script: str
    needs: tuple[str, str, str]
    request: Callable[[Program, Task], Any]
    answer: Callable[[Any, Program], GateAnswer | None]
    form: str = ""

    @property
    def available(self) -> bool:
        return find_spec(self.needs[0]) is not None

    @property
    def remedy(self) -> str:
        """What to do where it is not available."""
        return f"pip install 'nn-verifier[{self.needs[2]}]'" if self.needs[2] else f"pip install {self.needs[1]}"


class Run:
    """One engine at work on one program."""

    def __init__(self, engine: GateEngine, program: Program, task: Task) -> None:
        self.engine, self.program = engine, program
        self._worker = Worker(engine.script, engine.request(program, task))

    def poll(self, seconds: float) -> GateAnswer | None:
        """The answer, or None while there is none.  Raises SolverError for levels that are no solution."""
        try:
            message = self._worker.poll(seconds)
        except EOFError as death:
            return GateAnswer(None, None, str(death))
        if message is None:
            return None
        answer = self.engine.answer(message, self.program)
        if answer is not None and answer.sat:
            assert answer.levels is not None
            if not self.program.holds(answer.levels[None])[0]:
                raise SolverError(f"{self.engine.name} returned levels that do not satisfy the program")
        return answer

    def pause(self, paused: bool) -> None:
        """Stop the process, or let it go on: engines take turns on one core."""
        self._worker.pause(paused)

    def end(self) -> None:
        self._worker.end()


def gate_engine(name: str) -> GateEngine:
    """Raises OptionError for an unknown name, or an engine that is not installed."""
    if name not in ENGINES:
        raise OptionError(f"unknown engine {name!r}; use one of {', '.join(('auto', 'patterns', 'lazy', *ENGINES))}")
    engine = ENGINES[name]
    if not engine.available:
        raise OptionError(f"the engine {name} needs the package {engine.needs[1]}; install it with: {engine.remedy}")
    return engine


def _rows(rows: Rows) -> list[tuple[Integers, Integers, int]]:
    return [rows.row(i) for i in range(len(rows))]


def _cp_sat_request(program: Program, task: Task) -> cp_sat_run.Request:
    return cp_sat_run.Request(
        counts=program.counts,
        layers=[_rows(layer) for layer in program.layers],
        implied=[clauses.tolist() for clauses in program.implications],
        asserted=_rows(program.asserted),
        hint=task.hint,
        seconds=task.seconds,
        parameters={"random_seed": task.seed},
    )


def _plain_answer(message: Any, program: Program) -> GateAnswer:
    verdict = {"sat": True, "unsat": False}.get(message["status"])
    return GateAnswer(verdict, message["levels"], message["detail"])


def _highs_request(program: Program, task: Task) -> highs_run.Request:
    return highs_run.Request(
        program=arrays(gate_milp(program)),
        options={"threads": 1, "random_seed": task.seed},
        seconds=task.seconds,
        start=None,
        stop_above=np.inf,
        period=1.0,
        points=True,
    )


def _highs_answer(message: Any, program: Program) -> GateAnswer | None:
    """Points are rounded and tried in integers; only ``kInfeasible`` is an answer about all points."""
    point = message.get("point")
    if point is not None:
        levels = np.rint(point[: len(program.counts)]).astype(np.int64)
        if np.all((levels >= 0) & (levels <= program.counts)) and program.holds(levels[None])[0]:
            return GateAnswer(True, levels)
    if "status" not in message:
        return None
    if message["refused"]:
        raise SolverError(message["refused"])
    if message["status"] == "kInfeasible":
        return GateAnswer(False)
    return GateAnswer(None, None, message["status"])


def _cnf_request(solver: str) -> Callable[[Program, Task], cnf_run.Request]:
    def request(program: Program, task: Task) -> cnf_run.Request:
        formula = gate_formula(program, COUNTER)
        phases = []
        for order, level in zip(formula.levels, _listed(task.hint), strict=task.hint is not None):
            phases += [literal if j < level else -literal for j, literal in enumerate(order)]
        return cnf_run.Request(solver=solver, clauses=formula.clauses, assumed_phases=phases, proof=task.proof)

    return request


def _listed(hint: Integers | None) -> list[int]:
    return [] if hint is None else hint.tolist()


def _cnf_answer(message: Any, program: Program) -> GateAnswer:
    if message["status"] == "unsat":
        return GateAnswer(False, steps=None if message["steps"] is None else tuple(message["steps"]))
    if message["status"] == "sat":
        return GateAnswer(True, gate_formula(program, COUNTER).decode(message["model"]))
    return GateAnswer(None, None, message["detail"])


def _exact_request(program: Program, task: Task) -> exact_run.Request:
    formula = gate_constraints(program)
    hint = None
    if task.hint is not None:
        # The order variables of the levels are the formula's first.
        hint = [int(j < level) for count, level in zip(program.counts, task.hint, strict=True) for j in range(count)]
    return exact_run.Request(
        variables=formula.variables,
        constraints=[(row.coefficients, row.literals, row.degree) for row in formula.constraints],
        hint=hint,
        seconds=task.seconds,
        seed=task.seed,
        # It costs next to nothing, and makes the answer one that need not be believed.
        proof=True,
    )


def _exact_answer(message: Any, program: Program) -> GateAnswer:
    if message["status"] == "unsat":
        return GateAnswer(False, steps=None if message["steps"] is None else tuple(message["steps"]))
    if message["status"] == "sat":
        return GateAnswer(True, gate_constraints(program).decode(message["values"]))
    return GateAnswer(None, None, message["detail"])


_PYSAT = ("pysat", "python-sat", "bnn")

ENGINES = {
    engine.name: engine
    for engine in (
        GateEngine("cp-sat", "cp_sat_run.py", ("ortools", "ortools", "bnn"), _cp_sat_request, _plain_answer),
        GateEngine("exact", "exact_run.py", ("exact", "exact", "exact"), _exact_request, _exact_answer, PSEUDO_BOOLEAN),
        GateEngine("glucose", "cnf_run.py", _PYSAT, _cnf_request("glucose4"), _cnf_answer, COUNTER),
        GateEngine("cadical", "cnf_run.py", _PYSAT, _cnf_request("cadical153"), _cnf_answer, COUNTER),
        GateEngine("highs", "highs_run.py", ("highspy", "highspy", ""), _highs_request, _highs_answer),
    )
}
