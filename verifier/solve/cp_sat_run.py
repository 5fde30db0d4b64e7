"""One run of CP-SAT on a program of gates: the only file that calls OR-tools.  Runs in a process of its own:
OR-tools and highspy carry versions of HiGHS that cannot be loaded side by side.

Levels are integer variables, gates Boolean ones, each with two reified linear constraints.  With
``linearization_level = 2`` every reified constraint also enters the linear relaxation: without it dense instances
that are decided in a tenth of a second run into any time limit.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray


class Request(TypedDict):
    """counts: (levels,).  layers: rows of every layer as (columns, weights, threshold) triples; asserted: the same.

    implied: of every layer, clauses of signed gates, from 1 on.

    hint: levels to start from, None without.  parameters: of CP-SAT, by name.
    """

    counts: NDArray[np.int64]
    layers: list[list[tuple[NDArray[np.int64], NDArray[np.int64], int]]]
    implied: list[list[list[int]]]
    asserted: list[tuple[NDArray[np.int64], NDArray[np.int64], int]]
    hint: NDArray[np.int64] | None
    seconds: float
    parameters: dict[str, Any]


class Answer(TypedDict):
    """status: "sat" with levels, "unsat", or "unknown"."""

    status: str
    levels: NDArray[np.int64] | None
    detail: str


def run(request: Request) -> Answer:
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    levels = [model.new_int_var(0, int(count), f"x{i}") for i, count in enumerate(request["counts"])]
    before: list[Any] = list(levels)
    for depth, (layer, implied) in enumerate(zip(request["layers"], request["implied"], strict=True)):
        bits = [model.new_bool_var(f"b{depth}_{j}") for j in range(len(layer))]
        for bit, (columns, weights, threshold) in zip(bits, layer, strict=True):
            total = cp_model.LinearExpr.weighted_sum([before[c] for c in columns], [int(w) for w in weights])
            model.add(total >= threshold).only_enforce_if(bit)
            model.add(total <= threshold - 1).only_enforce_if(~bit)
        for clause in implied:
            model.add_bool_or([bits[abs(gate) - 1] if gate > 0 else ~bits[abs(gate) - 1] for gate in clause])
        before = bits
    for columns, weights, threshold in request["asserted"]:
        model.add(
            cp_model.LinearExpr.weighted_sum([before[c] for c in columns], [int(w) for w in weights]) >= threshold
        )
    if request["hint"] is not None:
        for variable, value in zip(levels, request["hint"].tolist(), strict=True):
            model.add_hint(variable, value)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = request["seconds"]
    solver.parameters.num_workers = 1
    solver.parameters.linearization_level = 2
    for name, value in request["parameters"].items():
        setattr(solver.parameters, name, value)
    status = solver.solve(model)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        found = np.array([solver.value(variable) for variable in levels], np.int64)
        return Answer(status="sat", levels=found, detail="")
    if status == cp_model.INFEASIBLE:
        return Answer(status="unsat", levels=None, detail="")
    return Answer(status="unknown", levels=None, detail=str(solver.status_name(status)))


def main() -> None:
    """Answers pickled requests until the stream ends."""
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = run(request)
        except ImportError as error:
            answer = Answer(status="missing", levels=None, detail=str(error))
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
