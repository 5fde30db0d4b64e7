"""Descents on programs of gates, and engines that take turns."""

from __future__ import annotations

import numpy as np
import pytest

from fuzz.gates import random_program, satisfiable
from verifier.binarised.descents import Descents
from verifier.binarised.portfolio import Portfolio
from verifier.deadline import Deadline
from verifier.solve.gate_engines import ENGINES, GateEngine, Task

ENGINE_NAMES = [name for name in ("cp-sat", "exact", "highs") if ENGINES[name].available]


def test_descents_return_solutions_only_and_find_most() -> None:
    """On tiny programs nearly every solution is found at once, and never one that is none."""
    found, possible = 0, 0
    for seed in range(60):
        program = random_program(seed)
        descents = Descents(program, seed)
        levels = descents.search(Deadline.after(0.1))
        possible += satisfiable(program)
        if levels is not None:
            found += 1
            assert np.all((levels >= 0) & (levels <= program.counts))
            assert program.holds(levels[None])[0]
        else:
            assert np.all((descents.best >= 0) & (descents.best <= program.counts))
    assert found >= 0.9 * possible > 10


@pytest.mark.parametrize("threads", [1, 2])
def test_engines_that_take_turns_agree_with_enumeration(threads: int) -> None:
    for seed in range(4):
        program = random_program(seed)
        engines = [ENGINES[name] for name in ENGINE_NAMES]
        answers = []
        deadline = Deadline.after(60)
        with Portfolio(engines, program, lambda: Task(60.0), threads) as portfolio:
            while not portfolio.over and not deadline.expired:
                answers += [answer.sat for _, answer in portfolio.poll(deadline.within(0.5))]
        assert answers == [satisfiable(program)] * len(engines)


def test_a_paused_engine_does_nothing_until_it_goes_on() -> None:
    program = random_program(1)
    engine = ENGINES["highs"]
    with Portfolio([engine], program, lambda: Task(60.0)) as portfolio:
        assert list(portfolio.poll(Deadline.after(0.0))) == []
        portfolio.pause(True)
        assert list(portfolio.poll(Deadline.after(1.5))) == []
        portfolio.pause(False)
        deadline, answers = Deadline.after(60), []
        while not answers and not deadline.expired:
            answers = [answer.sat for _, answer in portfolio.poll(deadline.within(0.5))]
        assert answers == [satisfiable(program)]


def test_the_first_engine_gets_the_longest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines that never answer, a clock that jumps: who runs for how long."""
    now = [0.0]
    monkeypatch.setattr("verifier.binarised.portfolio.time.monotonic", lambda: now[0])

    class Endless:
        def __init__(self, engine: GateEngine, *_: object) -> None:
            self.engine, self.paused = engine, False

        def poll(self, seconds: float) -> None:
            now[0] += 0.1
            spent[self.engine.name] += 0.1

        def pause(self, paused: bool) -> None:
            self.paused = paused

        def end(self) -> None:
            pass

    monkeypatch.setattr("verifier.binarised.portfolio.Run", Endless)
    spent = {"highs": 0.0, "glucose": 0.0}
    with Portfolio([ENGINES["highs"], ENGINES["glucose"]], random_program(0), lambda: Task(60.0)) as portfolio:
        for _ in range(2000):
            assert list(portfolio.poll(Deadline.never())) == []
    assert 2.0 < spent["highs"] / spent["glucose"] < 4.0
