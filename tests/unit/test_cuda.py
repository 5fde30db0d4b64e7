"""The same code on a GPU; skipped where torch sees none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import networks
from support.replay import TorchReplay
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.level import Level
from verifier.deadline import Deadline
from verifier.falsify.attack import AttackOptions, attack
from verifier.pipeline import Options, solve
from verifier.query import Query
from verifier.verdict import EvidenceLevel, Verdict
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")

KINDS = {
    "dense": lambda rng: networks.dense(rng, (3, 7, 6, 2)),
    "residual": networks.residual,
    "convolutional": networks.convolutional,
}


@pytest.fixture(params=sorted(KINDS))
def case(request):
    rng = np.random.default_rng(11)
    network = KINDS[request.param](rng)
    lower, upper = networks.box(rng, network.n_inputs, 0.5)
    return network, lower, upper


def query(network, lower, upper, threshold):
    outputs = np.zeros((1, network.n_outputs))
    outputs[0, 0] = 1.0
    rows = LinearConstraints(np.zeros((1, len(lower))), outputs, np.array([threshold]), np.zeros(1, bool))
    spec = Spec(len(lower), network.n_outputs, (Disjunct(lower, upper, rows),))
    return Query.of(network, spec, TorchReplay(network))


def test_bounds_equal_those_of_the_cpu_and_are_estimates(case):
    network, lower, upper = case
    box = [torch.from_numpy(side)[None] for side in (lower, upper)]
    here = intermediate_bounds(network, *box)
    there = intermediate_bounds(network.to(torch.float64, "cuda"), *(side.cuda() for side in box))
    for cpu, gpu in zip(here, there, strict=True):
        assert gpu.level is Level.ESTIMATE
        torch.testing.assert_close(gpu.lower.cpu(), cpu.lower, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gpu.upper.cpu(), cpu.upper, rtol=1e-6, atol=1e-6)


def test_the_attack_finds_what_it_finds_on_the_cpu(case):
    network, lower, upper = case
    middle = float(network.forward(torch.from_numpy((lower + upper) / 2)[None])[0, 0])
    outcome = attack(query(network, lower, upper, middle), Deadline.after(20), AttackOptions(device="cuda"))
    assert outcome.witness is not None


def test_verdicts_are_those_of_the_cpu_and_closings_stay_rigorous(case):
    network, lower, upper = case
    low = float(intermediate_bounds(network, *(torch.from_numpy(s)[None] for s in (lower, upper)))[-1].lower.min())
    result = solve(query(network, lower, upper, low - 1.0), Deadline.after(20), Options(device="cuda"))
    assert result.verdict is Verdict.UNSAT
    assert result.evidence is not None
    assert result.evidence.level is EvidenceLevel.RIGOROUS
