"""Evidence of every search on random networks, replayed by the independent checker, and its bounds against points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import networks
from support.evidence import impossible, recorded
from support.oracle import minimum_margin
from verifier.bounds.crown import intermediate_bounds
from verifier.deadline import Deadline
from verifier.evidence.affine import matrices_of
from verifier.evidence.check import check_evidence
from verifier.evidence.linear import Backward, crown, lines
from verifier.verdict import Verdict

KINDS = {
    "dense": lambda rng: networks.dense(rng, (3, 6, 5, 2)),
    "deep": lambda rng: networks.dense(rng, (2, 4, 4, 4, 2)),
    "residual": networks.residual,
    "convolutional": networks.convolutional,
}


@pytest.mark.parametrize("engine", ["plain", "optimised", "refining"])
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(5))
def test_what_a_search_closes_is_replayed(kind, engine, seed, tmp_path):
    rng = np.random.default_rng([seed, len(kind)])
    query = impossible(rng, KINDS[kind](rng))
    path = tmp_path / "evidence.npz"
    result = recorded(query, engine, path)
    found = check_evidence(query, path, Deadline.after(60))
    assert result.recorded is not None
    assert found.leaves == result.recorded.leaves
    assert sum(found.closed.values()) == sum(bound.level is not None for bound in result.bounds)
    assert set(found.open) == {i for i, bound in enumerate(result.bounds) if bound.level is None}
    assert result.verdict is Verdict.UNSAT or found.verdict == "timeout"


def test_the_queries_take_splitting():
    """Otherwise the tests above would show nothing."""
    leaves = {}
    for seed in range(5):
        for kind in KINDS:
            rng = np.random.default_rng([seed, len(kind)])
            query = impossible(rng, KINDS[kind](rng))
            for position, disjunct in enumerate(query.disjuncts):
                assert minimum_margin(query.network, disjunct)[0] > 0
                nodes = matrices_of(query.network)
                boxes = crown(nodes, disjunct.lower, disjunct.upper)
                leaves[seed, kind, position] = sum(int(boxes[k.sources[0]].undecided.sum()) for k in nodes if k.relu)
    assert sum(count >= 4 for count in leaves.values()) > len(leaves) / 2


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(5))
def test_the_checkers_own_bounds_hold_and_are_those_of_crown(kind, seed):
    rng = np.random.default_rng([seed, 7])
    network = KINDS[kind](rng)
    lower, upper = networks.box(rng, network.n_inputs, 1.0)
    nodes = matrices_of(network)
    boxes = crown(nodes, lower, upper)
    points = lower + rng.uniform(size=(500, network.n_inputs)) * (upper - lower)
    values = network.values(torch.from_numpy(points))
    theirs = intermediate_bounds(network, torch.from_numpy(lower)[None], torch.from_numpy(upper)[None])
    for box, value, bounds in zip(boxes, values, theirs, strict=True):
        flat = value.flatten(1).numpy()
        assert (flat >= box.low).all()
        assert (flat <= box.high).all()
        undecided = bounds.unstable.flatten().numpy()
        assert np.allclose(box.low[undecided], bounds.lower.flatten().numpy()[undecided], rtol=1e-9, atol=1e-9)
        assert np.allclose(box.high[undecided], bounds.upper.flatten().numpy()[undecided], rtol=1e-9, atol=1e-9)
    relus = {
        k: lines(boxes[n.sources[0]].low[None], boxes[n.sources[0]].high[None]) for k, n in enumerate(nodes) if n.relu
    }
    rows = rng.normal(size=(20, network.n_outputs))
    bound = Backward(nodes, boxes).run(len(nodes) - 1, rows, relus)
    margins = values[-1].flatten(1).numpy() @ rows.T
    assert (margins >= bound.least(lower, upper)).all()
    linear = points @ bound.coefficients.T + bound.constants
    assert (margins >= linear - bound.error - 1e-12).all()
