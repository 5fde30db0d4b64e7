"""The pipeline as a whole: verdicts, evidence, deadlines, interruption, and refusing contradictions."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from support import networks
from support.oracle import minimum_margin
from support.replay import TorchReplay
from verifier import pipeline
from verifier.conclusion import conclude
from verifier.deadline import Deadline
from verifier.errors import SoundnessError
from verifier.model.network import build
from verifier.model.operators import Input, Linear
from verifier.options import Trust
from verifier.pipeline import Options, solve
from verifier.query import Query
from verifier.verdict import DisjunctBounds, EvidenceLevel, Statistics, Verdict, Witness
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec


def query_below(network, lower, upper, thresholds):
    """One disjunct ``y_0 <= threshold`` per threshold, over one box."""
    outputs = np.zeros((1, network.n_outputs))
    outputs[0, 0] = 1.0
    disjuncts = tuple(
        Disjunct(
            lower,
            upper,
            LinearConstraints(np.zeros((1, len(lower))), outputs, np.array([threshold]), np.zeros(1, bool)),
        )
        for threshold in thresholds
    )
    return Query.of(network, Spec(len(lower), network.n_outputs, disjuncts), TorchReplay(network))


@pytest.fixture(params=["dense", "residual", "convolutional"])
def case(request):
    """A network, a box, and the exact minimum of output 0 over it."""
    rng = np.random.default_rng(7)
    network = {
        "dense": lambda: networks.dense(rng, (2, 4, 3, 1)),
        "residual": lambda: networks.residual(rng, 2),
        "convolutional": lambda: networks.convolutional(rng),
    }[request.param]()
    lower, upper = networks.box(rng, network.n_inputs, 0.6)
    value, _ = minimum_margin(network, query_below(network, lower, upper, [0.0]).disjuncts[0])
    return network, lower, upper, value


def test_below_the_minimum_is_unsat_and_above_is_sat(case):
    network, lower, upper, least = case
    result = solve(query_below(network, lower, upper, [least - 1e-3, least - 1.0]), Deadline.after(30))
    assert result.verdict is Verdict.UNSAT
    assert result.evidence is not None
    for threshold, bound in zip((least - 1e-3, least - 1.0), result.bounds, strict=True):
        assert bound.level is not None
        assert bound.lower <= least - threshold + 1e-6
    result = solve(query_below(network, lower, upper, [least - 1.0, least + 1e-3]), Deadline.after(30))
    assert result.verdict is Verdict.SAT
    assert result.witness is not None
    assert result.witness.disjunct == 1
    assert result.witness.y[0] <= least + 1e-3


def test_milp_alone_decides(case):
    network, lower, upper, least = case
    for gap, verdict in ((-1e-3, Verdict.UNSAT), (1e-3, Verdict.SAT)):
        result = solve(query_below(network, lower, upper, [least + gap]), Deadline.after(30), Options(stages=("milp",)))
        assert result.verdict is verdict


def test_a_solvers_word_is_refused_where_rigour_is_asked_for():
    for trust, verdict in ((Trust.SOLVER, Verdict.UNSAT), (Trust.RIGOROUS, Verdict.UNKNOWN)):
        bounds = (
            DisjunctBounds(1.0, closed_by="crown", level=EvidenceLevel.RIGOROUS),
            DisjunctBounds(2.0, closed_by="milp", level=EvidenceLevel.SOLVER),
        )
        result = conclude(None, bounds, Statistics(), trust, interrupted=False, expired=False)
        assert result.verdict is verdict
        if verdict is Verdict.UNSAT:
            assert result.evidence is not None
            assert result.evidence.level is EvidenceLevel.SOLVER
            assert result.evidence.methods == ("crown", "milp")
        else:
            assert "rigorous" in result.message


def test_an_empty_property_is_unsat_rigorously(case):
    network, lower, upper, _ = case
    query = query_below(network, lower, upper, [])
    result = solve(query, Deadline.after(5))
    assert result.verdict is Verdict.UNSAT
    assert result.evidence is not None
    assert result.evidence.level is EvidenceLevel.RIGOROUS


def test_a_property_without_output_rows_is_sat(case):
    network, lower, upper, _ = case
    query = query_below(network, lower, upper, [0.0])
    empty = LinearConstraints(
        np.zeros((0, network.n_inputs)), np.zeros((0, network.n_outputs)), np.zeros(0), np.zeros(0, bool)
    )
    spec = replace(query.spec, disjuncts=(Disjunct(lower, upper, empty),))
    result = solve(replace(query, spec=spec), Deadline.after(10))
    assert result.verdict is Verdict.SAT


def test_a_constant_network_is_decided():
    network = build([(Input((1, 2)), ()), (Linear.zeros(2, 1), (0,))])
    lower, upper = -np.ones(2), np.ones(2)
    assert solve(query_below(network, lower, upper, [-0.5]), Deadline.after(10)).verdict is Verdict.UNSAT
    assert solve(query_below(network, lower, upper, [0.0]), Deadline.after(10)).verdict is Verdict.SAT


def test_an_expired_deadline_is_a_timeout_with_the_bounds_so_far(case):
    network, lower, upper, least = case
    result = solve(query_below(network, lower, upper, [least - 1e-9]), Deadline.after(-1))
    assert result.verdict is Verdict.TIMEOUT
    assert len(result.bounds) == 1
    assert result.message


def test_the_deadline_is_kept_on_a_hard_query():
    rng = np.random.default_rng(0)
    network = networks.dense(rng, (30, 60, 60, 60, 60, 1))
    lower, upper = -np.ones(30), np.ones(30)
    values = network.forward(torch.from_numpy(rng.uniform(-1, 1, size=(1000, 30))))
    deadline = Deadline.after(4)
    result = solve(query_below(network, lower, upper, [3 * float(values.min()) - float(values.max())]), deadline)
    assert time.monotonic() < deadline.end + 2.0
    if result.verdict is Verdict.TIMEOUT:
        assert result.bounds[0].lower <= result.bounds[0].upper


def test_ctrl_c_reports_what_is_known(case, monkeypatch):
    network, lower, upper, least = case

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "attack", interrupted)
    result = solve(query_below(network, lower, upper, [least + 1e-3]), Deadline.after(30))
    assert result.verdict is Verdict.UNKNOWN
    assert "interrupted" in result.message
    assert np.isfinite(result.bounds[0].lower)


def test_a_witness_against_a_closed_disjunct_is_a_defect(case):
    network, lower, _, _ = case
    bounds = (DisjunctBounds(1.0, closed_by="planted", level=EvidenceLevel.RIGOROUS),)
    witness = Witness(lower, np.zeros(network.n_outputs), 0, -1.0)
    with pytest.raises(SoundnessError, match="planted"):
        conclude(witness, bounds, Statistics(), Trust.SOLVER, interrupted=False, expired=False)


def test_a_run_is_repeatable(case):
    network, lower, upper, least = case
    query = query_below(network, lower, upper, [least + 0.05])
    first, second = (solve(query, Deadline.after(30), Options(seed=3)) for _ in range(2))
    assert first.verdict is second.verdict is Verdict.SAT
    assert first.witness is not None
    assert second.witness is not None
    assert (first.witness.x == second.witness.x).all()
