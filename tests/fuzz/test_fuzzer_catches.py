"""The fuzzer can fail: engines broken on purpose are caught, and what is stored is small and fails again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fuzz.engines import crown
from fuzz.fuzzer import Engine, examine, fuzz
from fuzz.generate import random_case
from fuzz.judge import Answer
from fuzz.stored import load
from verifier.deadline import Deadline
from verifier.model.network import Network
from verifier.query import Query
from verifier.verdict import DisjunctBounds, EvidenceLevel, Verdict, Witness


def proves_everything(query: Query, deadline: Deadline) -> Answer:
    """Takes whatever it cannot decide for impossible."""
    return Answer(Verdict.UNSAT, level=EvidenceLevel.RIGOROUS)


def optimistic_bounds(query: Query, deadline: Deadline) -> Answer:
    """Bounds a little above the sound ones, as from rounding the wrong way, at the size of a tenth."""
    answer = crown(query, deadline)
    raised = tuple(dataclasses.replace(one, lower=one.lower + 0.1) for one in answer.bounds)
    return Answer(Verdict.UNKNOWN, bounds=raised)


def unchecked_witness(query: Query, deadline: Deadline) -> Answer:
    """Calls the middle of the box a counterexample without running the model."""
    disjunct = query.disjuncts[0]
    x = query.replay.representable((disjunct.lower + disjunct.upper) / 2, disjunct.lower, disjunct.upper)
    return Answer(Verdict.SAT, Witness(x, query.replay.run(x), 0, -1.0))


def gives_up(query: Query, deadline: Deadline) -> Answer:
    """Promises an answer and gives none."""
    return Answer(Verdict.UNKNOWN, decides=True)


def falls_over(query: Query, deadline: Deadline) -> Answer:
    """Has a defect where two disjuncts meet."""
    if len(query.disjuncts) > 1:
        raise IndexError("list index out of range")
    return Answer(Verdict.UNKNOWN)


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        (proves_everything, "unsat"),
        (optimistic_bounds, "lower bound"),
        (unchecked_witness, "witness false"),
        (gives_up, "undecided"),
        (falls_over, "crash IndexError"),
    ],
)
def test_broken_engine_is_caught_shrunk_and_stored(engine: Engine, kind: str, tmp_path: Path) -> None:
    name = engine.__name__
    tally = fuzz({name: engine}, range(100, 140), Deadline.after(60), tmp_path, shrink_seconds=30, say=lambda _: None)
    failure = next(failure for failure in tally.failures if failure.complaint.kind == kind)
    assert failure.file.parent == tmp_path
    stored = load(failure.file)
    assert stored.engine == name
    assert stored.complaint.startswith(kind)
    assert [complaint.kind for _, complaint in examine(stored.case, {name: engine})] == [kind]
    assert len(stored.case.spec.disjuncts) == (2 if engine is falls_over else 1)
    assert sum(len(d.constraints) for d in stored.case.spec.disjuncts) <= 2
    assert stored.case.network.n_inputs <= 2
    assert len(stored.case.network.nodes) <= 3
    assert all(np.array_equal(node * 1024 % 1, np.zeros_like(node)) for node in parameters(stored.case.network))


def parameters(network: Network) -> list[np.ndarray]:
    values = [value for node in network.nodes for value in vars(node.operator).values()]
    return [value.numpy() for value in values if isinstance(value, torch.Tensor)]


def test_a_sound_engine_passes(tmp_path: Path) -> None:
    tally = fuzz({"crown": crown}, range(5), Deadline.after(60), tmp_path)
    assert tally.cases == sum(tally.answers.values()) == 5
    assert not tally.failures
    assert not list(tmp_path.iterdir())


def test_missing_evidence_is_a_complaint() -> None:
    def no_evidence(query: Query, deadline: Deadline) -> Answer:
        closed = tuple(DisjunctBounds(1e9, closed_by="a guess") for _ in query.disjuncts)
        return Answer(Verdict.UNKNOWN, bounds=closed)

    assert [c.kind for _, c in examine(random_case(0), {"e": no_evidence})] == ["evidence missing"]
