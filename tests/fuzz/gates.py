"""Random tiny programs of gates, every engine on them, and enumeration of all levels as the judge.

    PYTHONPATH=tests python -m fuzz.gates --count 10000

Engines run in this process here, CP-SAT in one of its own.  A mismatch is a verdict that enumeration contradicts, a
solution that does not satisfy the program, or a proof that its checker refuses.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import itertools
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from verifier.binarised.lazy import LazyOptions, search_lazily
from verifier.binarised.patterns import PatternOptions, search_patterns
from verifier.deadline import Deadline
from verifier.encodings.milp.gates import gate_milp
from verifier.encodings.sat.cardinality import COUNTERS
from verifier.encodings.sat.gates import gate_formula
from verifier.encodings.sat.program import Program, Rows
from verifier.encodings.sat.pseudo_boolean import PSEUDO_BOOLEAN
from verifier.proofs.file import Section, check_section, fingerprint
from verifier.solve import cnf_run, cp_sat_run, exact_run
from verifier.solve.gate_engines import ENGINES, GateAnswer, Task
from verifier.solve.highs import minimise
from verifier.solve.outcome import Status

SECONDS = 30.0


def random_program(seed: int) -> Program:
    """1 to 4 levels of up to 3, 1 to 3 layers of up to 5 gates with weights up to 2, 1 or 2 asserted rows."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, rng.integers(1, 5))
    layers, width, sizes = [], len(counts), counts
    for _ in range(int(rng.integers(1, 4))):
        rows = random_rows(rng, int(rng.integers(1, 6)), width, sizes)
        layers.append(rows)
        width, sizes = len(rows), np.ones(len(rows), np.int64)
    return Program(counts, tuple(layers), random_rows(rng, int(rng.integers(1, 3)), width, sizes))


def random_rows(rng: np.random.Generator, count: int, width: int, sizes: np.ndarray) -> Rows:
    weights = rng.choice((-2, -1, -1, 0, 1, 1, 2), (count, width)).astype(np.int64)
    low, high = np.minimum(weights, 0) @ sizes, np.maximum(weights, 0) @ sizes
    return Rows(sp.csr_array(weights), rng.integers(low, high + 2))


def satisfiable(program: Program) -> bool:
    """By trying all levels."""
    points = np.array(list(itertools.product(*(range(count + 1) for count in program.counts.tolist()))))
    return bool(program.holds(points).any())


def by_patterns(program: Program) -> GateAnswer:
    """Small blocks, so that the search has a head."""
    outcome = search_patterns(program, Deadline.after(SECONDS), PatternOptions(block=2, samples=1))
    if outcome.answer.sat is False and outcome.rigorous:
        section = Section(0, fingerprint(program), outcome.conflicts, outcome.order)
        assert check_section(section, program, Deadline.never()) == ""
    return outcome.answer


def by_lazy(program: Program) -> GateAnswer:
    options = LazyOptions()
    outcome = search_lazily(program, Deadline.after(SECONDS), options)
    if outcome.answer.sat is False and outcome.rigorous:
        clauses = [*outcome.formula.clauses, *(conflict.clause for conflict in outcome.conflicts)]
        request = cnf_run.Request(solver=options.solver, clauses=clauses, assumed_phases=[], proof=True)
        steps = tuple(cnf_run.run(request)["steps"] or ())
        section = Section(0, fingerprint(program), outcome.conflicts, None, False, options.counter, steps)
        assert check_section(section, program, Deadline.never()) == ""
    return outcome.answer


def by_cp_sat(program: Program) -> GateAnswer:
    engine = ENGINES["cp-sat"]
    process = cp_sat_process()
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump(engine.request(program, Task(SECONDS)), process.stdin)
    process.stdin.flush()
    answer = engine.answer(pickle.load(process.stdout), program)
    assert answer is not None
    return answer


@functools.cache
def cp_sat_process() -> subprocess.Popen[bytes]:
    """One for all programs; it ends when this process closes its end of the pipe."""
    command = [sys.executable, "-P", str(Path(cp_sat_run.__file__))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(process.communicate)
    return process


def by_exact(program: Program) -> GateAnswer:
    engine = ENGINES["exact"]
    answer = engine.answer(exact_run.run(engine.request(program, Task(SECONDS, proof=True))), program)
    assert answer is not None
    if answer.sat is False:
        section = Section(0, fingerprint(program), (), None, True, PSEUDO_BOOLEAN, answer.steps or ())
        assert check_section(section, program, Deadline.never()) == ""
    return answer


def by_highs(program: Program) -> GateAnswer:
    outcome = minimise(gate_milp(program), Deadline.after(SECONDS))
    if outcome.point is not None:
        return GateAnswer(True, np.rint(outcome.point[: len(program.counts)]).astype(np.int64))
    return GateAnswer(False if outcome.status is Status.INFEASIBLE else None)


def by_clauses(counter: str) -> Callable[[Program], GateAnswer]:
    def decide(program: Program) -> GateAnswer:
        formula = gate_formula(program, counter)
        request = cnf_run.Request(solver="glucose4", clauses=formula.clauses, assumed_phases=[], proof=True)
        answer = cnf_run.run(request)
        if answer["status"] == "sat":
            assert answer["model"] is not None
            return GateAnswer(True, formula.decode(answer["model"]))
        section = Section(0, fingerprint(program), (), None, True, counter, tuple(answer["steps"] or ()))
        assert check_section(section, program, Deadline.never()) == ""
        return GateAnswer(False)

    return decide


DECIDERS: dict[str, Callable[[Program], GateAnswer]] = {
    "patterns": by_patterns,
    "lazy": by_lazy,
    "cp-sat": by_cp_sat,
    "highs": by_highs,
    **({"exact": by_exact} if ENGINES["exact"].available else {}),
    **{counter: by_clauses(counter) for counter in COUNTERS},
}


def mismatches(seed: int) -> Iterator[str]:
    """What is wrong on one program, a sentence per engine."""
    program = random_program(seed)
    expected = satisfiable(program)
    for name, decide in DECIDERS.items():
        answer = decide(program)
        if answer.sat is not expected:
            yield f"seed {seed}: {name} says {answer.sat}, enumeration {expected}"
        elif answer.sat:
            levels = answer.levels
            inside = levels is not None and bool(np.all((levels >= 0) & (levels <= program.counts)))
            if levels is None or not inside or not program.holds(levels[None])[0]:
                yield f"seed {seed}: {name} returns levels that are no solution"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = 0
    seen: Counter[bool] = Counter()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        if (seed - arguments.seed) % 500 == 499:
            print(f"seeds {arguments.seed} to {seed - 1}: {wrong} mismatches", flush=True)
        seen[satisfiable(random_program(seed))] += 1
        for sentence in mismatches(seed):
            wrong += 1
            print(sentence, flush=True)
    kinds = f"{seen[True]} sat, {seen[False]} unsat"
    print(f"{arguments.count} programs ({kinds}), {len(DECIDERS)} engines, {wrong} mismatches")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
