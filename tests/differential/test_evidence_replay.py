"""Evidence of every search on random networks, replayed by the independent checker, and its bounds against points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import networks
from support.evidence import impossible, recorded, recorded_boxes
from support.oracle import minimum_margin
from support.queries import query_of
from verifier.bounds.crown import intermediate_bounds
from verifier.deadline import Deadline
from verifier.evidence.affine import matrices_of
from verifier.evidence.boxes import Boxes, Tree
from verifier.evidence.check import check_evidence
from verifier.evidence.linear import Backward, crown, lines
from verifier.evidence.regions import Regions
from verifier.verdict import Verdict

KINDS = {
    "dense": lambda rng: networks.dense(rng, (3, 6, 5, 2)),
    "deep": lambda rng: networks.dense(rng, (2, 4, 4, 4, 2)),
    "residual": networks.residual,
    "convolutional": networks.convolutional,
}


@pytest.mark.parametrize("engine", ["plain", "optimised", "refining"])
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(3))
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


@pytest.mark.parametrize("sizes", [(2, 6, 5, 2), (3, 8, 7, 2), (4, 5, 5, 5, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_what_input_splitting_closes_is_replayed(sizes, seed, tmp_path):
    rng = np.random.default_rng([seed, *sizes])
    query = impossible(rng, networks.dense(rng, sizes), gap=0.02, radius=2.0)
    path = tmp_path / "evidence.npz"
    result = recorded_boxes(query, path)
    assert result.verdict is Verdict.UNSAT
    found = check_evidence(query, path, Deadline.after(60))
    assert found.verdict == "unsat"
    assert not found.open
    assert result.recorded is not None
    assert found.leaves == result.recorded.leaves


BRANCHING = {
    "residual": networks.residual,
    "twins": lambda rng: networks.twins(rng, 3, 5, 2),
    "leaky": lambda rng: networks.leaky(rng, 3, 5, 2),
}


@pytest.mark.parametrize("kind", sorted(BRANCHING))
@pytest.mark.parametrize("seed", range(4))
def test_what_splitting_boxes_of_other_networks_closes_is_replayed(kind, seed, tmp_path):
    rng = np.random.default_rng([seed, len(kind)])
    query = impossible(rng, BRANCHING[kind](rng), count=3, gap=0.02, radius=2.0)
    path = tmp_path / "evidence.npz"
    result = recorded_boxes(query, path)
    assert result.verdict is Verdict.UNSAT
    found = check_evidence(query, path, Deadline.after(60))
    assert found.verdict == "unsat"
    assert not found.open
    assert result.recorded is not None
    assert found.leaves == result.recorded.leaves


def test_boxes_that_a_search_left_open_are_open_in_its_evidence(tmp_path):
    """Cut short at many moments: what it claims to have closed is replayed, the rest is counted."""
    rng = np.random.default_rng(5)
    query = impossible(rng, networks.residual(rng), count=2, gap=0.002, radius=3.0)
    path = tmp_path / "evidence.npz"
    for seconds in (0.0, 0.02, 0.05, 0.1):
        result = recorded_boxes(query, path, seconds)
        found = check_evidence(query, path, Deadline.after(60))
        assert set(found.open) == {i for i, bound in enumerate(result.bounds) if bound.level is None}
        assert all(left is not None for left in found.open.values())


@pytest.mark.parametrize("seed", range(6))
def test_boxes_of_the_checker_contain_every_solution_they_came_from(seed):
    """Clipping and zonotopes against sampled points: nothing that satisfies a disjunct may be cut off or closed."""
    rng = np.random.default_rng([seed, 11])
    query = query_of(rng, networks.dense(rng, (3, 7, 6, 2)), 3)
    first = query.disjuncts[0]
    nodes = matrices_of(query.network)
    codes, cuts = np.array([seed % 6, -2, -2], np.int16), np.array([0.5 * (first.lower + first.upper)[seed % 3]])
    replay = Boxes(nodes, crown(nodes, first.lower, first.upper), query.disjuncts, Tree.read(codes, cuts, 3))
    points = first.lower + rng.uniform(size=(4000, 3)) * (first.upper - first.lower)
    values = query.network.values(torch.from_numpy(points))
    margins = np.stack(
        [
            (values[-1].flatten(1).numpy() @ d.constraints.outputs.T + points @ d.constraints.inputs.T
             - d.constraints.bounds).max(1)
            for d in query.disjuncts
        ]
    )  # fmt: skip
    seen = []
    whole = replay._bounded

    def watched(batch):
        known, score = whole(batch)
        seen.append(known)
        return known, score

    replay._bounded = watched
    list(replay.run())
    root = seen[0]
    inside = np.all((points >= root.low[0]) & (points <= root.high[0]), axis=1)
    for k, (low, high) in root.ends.items():
        pre = values[query.network.nodes[k].inputs[0]].flatten(1).numpy()[inside]
        assert (pre >= low[0]).all()
        assert (pre <= high[0]).all()
    for d, margin in enumerate(margins):
        satisfied = margin <= 0
        if satisfied.any():
            assert root.live[0, d]
            assert inside[satisfied].all()
            assert replay.open[d] > 0
    # The box of the root is clipped in most cases, and then there is something to see.
    assert len(seen) == 2 or not root.live.any()


@pytest.mark.parametrize("kind", ["dense", "deep", "residual"])
def test_bounds_of_replayed_regions_contain_the_points_in_them(kind, tmp_path, monkeypatch):
    rng = np.random.default_rng([1 if kind == "dense" else 0, len(kind)])
    query = impossible(rng, KINDS[kind](rng))
    first = query.disjuncts[0]
    points = first.lower + rng.uniform(size=(20_000, query.network.n_inputs)) * (first.upper - first.lower)
    values = query.network.values(torch.from_numpy(points))
    recorded(query, "refining", tmp_path / "evidence.npz")
    seen = []
    close = Regions._close

    def watched(self, region, signs, low, high, spaces):
        neurons = zip(self._neurons.node.tolist(), self._neurons.place.tolist(), strict=True)
        pre = np.stack([values[query.network.nodes[k].inputs[0]].flatten(1)[:, p].numpy() for k, p in neurons], 1)
        inside = np.all(pre * signs >= 0, axis=1)
        seen.append(int(inside.sum()))
        assert (pre[inside] >= low).all()
        assert (pre[inside] <= high).all()
        for coefficients, constant in zip(spaces.coefficients, spaces.constants, strict=True):
            assert (points[inside] @ coefficients + constant >= -1e-12).all()
        close(self, region, signs, low, high, spaces)

    monkeypatch.setattr(Regions, "_close", watched)
    check_evidence(query, tmp_path / "evidence.npz", Deadline.after(60))
    assert len(seen) >= 3
    assert sum(count > 0 for count in seen) >= 3


def test_the_queries_take_splitting(tmp_path):
    """Otherwise the tests above would show nothing."""
    leaves = 0
    for kind in ("deep", "dense"):
        rng = np.random.default_rng([1 if kind == "dense" else 0, len(kind)])
        query = impossible(rng, KINDS[kind](rng))
        result = recorded(query, "plain", tmp_path / "evidence.npz")
        assert all(minimum_margin(query.network, disjunct)[0] > 0 for disjunct in query.disjuncts)
        assert result.recorded is not None
        leaves += sum(result.recorded.leaves.values())
    assert leaves >= 20


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
