"""A short run of the fuzzer of gate programs; the long one is ``python -m fuzz.gates --count 10000``."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fuzz import gates
from verifier.encodings.sat.program import Program, Rows
from verifier.solve.gate_engines import GateAnswer


def test_engines_agree_with_enumeration() -> None:
    found = [sentence for seed in range(20_000, 20_040) for sentence in gates.mismatches(seed)]
    assert not found, "\n".join(found)


def test_the_cases_are_of_both_kinds() -> None:
    verdicts = [gates.satisfiable(gates.random_program(seed)) for seed in range(100)]
    assert 20 < sum(verdicts) < 80


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_wrong_threshold_is_caught(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is given thresholds off by one is told from a correct one within a few programs."""

    def shifted(program: Program) -> GateAnswer:
        layer = program.layers[0]
        moved = Rows(layer.weights, layer.thresholds + shift)
        return gates.by_highs(dataclasses.replace(program, layers=(moved, *program.layers[1:])))

    monkeypatch.setattr(gates, "DECIDERS", {"wrong": shifted})
    assert any(True for seed in range(60) for _ in gates.mismatches(seed))


def test_enumeration_covers_all_levels() -> None:
    program = gates.random_program(3)
    assert np.all(program.counts >= 1)
    assert gates.satisfiable(program) in (True, False)
