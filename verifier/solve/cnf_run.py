"""One run of a CNF solver of python-sat, in a process of its own: CaDiCaL cannot be interrupted any other way."""

from __future__ import annotations

import pickle
import sys
from typing import TypedDict


class Request(TypedDict):
    """solver: python-sat's name.  assumed_phases: literals to try first.  proof: whether to return DRAT steps."""

    solver: str
    clauses: list[list[int]]
    assumed_phases: list[int]
    proof: bool


class Answer(TypedDict):
    """status: "sat" with a model, "unsat" with the steps of a proof where it was asked for, or "missing"."""

    status: str
    model: list[int] | None
    steps: list[str] | None
    detail: str


def run(request: Request) -> Answer:
    from pysat.solvers import Solver

    with Solver(request["solver"], bootstrap_with=request["clauses"], with_proof=request["proof"]) as solver:
        if request["assumed_phases"] and not request["solver"].startswith("cadical"):
            solver.set_phases(request["assumed_phases"])
        if solver.solve():
            return Answer(status="sat", model=solver.get_model(), steps=None, detail="")
        steps = solver.get_proof() if request["proof"] else None
        return Answer(status="unsat", model=None, steps=steps, detail="")


def main() -> None:
    request = pickle.load(sys.stdin.buffer)
    try:
        answer = run(request)
    except ModuleNotFoundError as error:
        answer = Answer(status="missing", model=None, steps=None, detail=str(error))
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
