"""One run of Exact, a pseudo-Boolean solver that learns by cutting planes, in a process of its own.

Exact is under the AGPL: it is used where a user has installed it (extra ``exact``), by this file alone, which
is run as a script and imported nowhere for its solver.

Exact writes its proof to a file.  The file is opened again and removed as soon as it is there, so that nothing is left
behind by a run that is ended.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
import tempfile
from pathlib import Path
from typing import TypedDict

SMALL = (("bits-overflow", "31"), ("bits-reduced", "15"))
"""Coefficients stay in the range of 64-bit checkers; no slower than with the larger ones that Exact allows itself."""


class Request(TypedDict):
    """variables: 1 to this.  constraints: (coefficients, literals, degree), ``sum a l >= degree``.

    hint: values of the first variables to try first, None without.  proof: whether to return the steps of one.
    """

    variables: int
    constraints: list[tuple[tuple[int, ...], tuple[int, ...], int]]
    hint: list[int] | None
    seconds: float
    seed: int
    proof: bool


class Answer(TypedDict):
    """status: "sat" with values, "unsat" with the lines of a proof where it was asked for, "unknown" or "missing"."""

    status: str
    values: list[int] | None
    steps: list[str] | None
    detail: str


def run(request: Request) -> Answer:
    """Solve; what Exact does to the process's signal handlers, behind Python's back, is undone."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _solved(request)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _solved(request: Request) -> Answer:
    from exact import Exact

    options = [("seed", str(request["seed"] + 1)), ("verbosity", "0"), *SMALL]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "proof"
        if request["proof"]:
            options += [("proof-log", str(path)), ("proof-assumptions", "0")]
        solver = Exact(options)
        names = [f"x{variable}" for variable in range(1, request["variables"] + 1)]
        for name in names:
            solver.addVariable(name)
        log = None
        if request["proof"]:
            log = stack.enter_context(path.with_suffix(".proof").open(encoding="ascii"))
            with contextlib.suppress(OSError):  # Windows keeps open files; they go with the folder
                for file in path.parent.iterdir():
                    file.unlink()
        for coefficients, literals, degree in request["constraints"]:
            terms, needed = [], degree
            for a, literal in zip(coefficients, literals, strict=True):
                terms.append((a if literal > 0 else -a, names[abs(literal) - 1]))
                needed -= a if literal < 0 else 0
            solver.addConstraint(terms, True, needed)
        if request["hint"] is not None:
            solver.setSolutionHints(list(zip(names, request["hint"], strict=False)))
        status = solver.runFull(False, request["seconds"])
        if status == "SAT":
            return Answer(status="sat", values=solver.getLastSolutionFor(names), steps=None, detail="")
        if status != "UNSAT":
            return Answer(status="unknown", values=None, steps=None, detail=status.lower())
        # What is still in the stream's buffer is written when the solver goes.
        del solver
        return Answer(status="unsat", values=None, steps=None if log is None else log.read().splitlines(), detail="")


def main() -> None:
    request = pickle.load(sys.stdin.buffer)
    try:
        answer = run(request)
    except ModuleNotFoundError as error:
        answer = Answer(status="missing", values=None, steps=None, detail=str(error))
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
