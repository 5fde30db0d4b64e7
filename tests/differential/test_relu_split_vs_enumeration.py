"""Branch and bound on ReLU phases against exhaustive enumeration of activation patterns, and sampled points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import networks
from support.oracle import minimum_margin
from support.queries import query_of, tensors
from support.replay import TorchReplay
from verifier.bounds.beta_crown import AscentOptions, Root, Rows, Splits, bound_regions
from verifier.bounds.crown import intermediate_bounds
from verifier.deadline import Deadline
from verifier.query import Query
from verifier.search.relu_split import ReluSplitting
from verifier.verdict import EvidenceLevel
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

TOLERANCE = 1e-6
KINDS = {
    "dense": lambda rng: networks.dense(rng, (3, 5, 4, 2)),
    "residual": networks.residual,
    "convolutional": networks.convolutional,
}


def nodes_of(query):
    first = query.disjuncts[0]
    return intermediate_bounds(query.network, *(side[None] for side in tensors(first.lower, first.upper)))


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(10))
def test_verdicts_agree_with_enumeration(kind, seed):
    rng = np.random.default_rng([seed, len(kind)])
    network = KINDS[kind](rng)
    query = query_of(rng, network, 3)
    truths = [minimum_margin(network, disjunct)[0] for disjunct in query.disjuncts]
    search = ReluSplitting(query, nodes_of(query))
    outcome = search.work(Deadline.after(10))
    if outcome.witness is not None:
        witness = outcome.witness
        assert query.disjuncts[witness.disjunct].holds_exactly(witness.x, witness.y)
        assert truths[witness.disjunct] <= TOLERANCE
        return
    for truth, bound in zip(truths, outcome.bounds, strict=True):
        assert bound.lower <= truth + TOLERANCE
        if bound.level is not None:
            assert bound.level is EvidenceLevel.RIGOROUS
            assert truth > -TOLERANCE


@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_points_of_a_region_have_margins_above_its_bound(kind, seed):
    """Any slopes, any multipliers, any splits: where the splits hold the bound holds."""
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    query = query_of(rng, network, 1, radius=1.5)
    first = query.disjuncts[0]
    nodes = nodes_of(query)
    root = Root(network, *(side[None] for side in tensors(first.lower, first.upper)), nodes)
    batch = 6
    signs = torch.from_numpy(rng.integers(-1, 2, size=(batch, root.size)).astype(np.int8))
    slopes = torch.from_numpy(rng.uniform(size=(batch, root.size)).astype(np.float32))
    multipliers = torch.from_numpy(rng.exponential(size=(batch, root.size)).astype(np.float32)) * (signs != 0)
    part = first.constraints
    rows = Rows(*(side[None].expand(batch, *side.shape) for side in tensors(part.outputs, part.inputs, part.bounds)))
    found = bound_regions(root, rows, Splits(signs, slopes, multipliers), AscentOptions(iterations=int(seed % 3) + 1))
    points = torch.from_numpy(first.lower + rng.uniform(size=(3000, network.n_inputs)) * (first.upper - first.lower))
    values = network.values(points)
    margins = (values[-1].flatten(1) @ rows.outputs[0].T + points @ rows.inputs[0].T - rows.bounds[0]).max(1).values
    pre = torch.cat([values[network.nodes[k].inputs[0]].flatten(1)[:, p] for k, p in root.places.items()], 1)
    for region in range(batch):
        inside = ((pre * signs[region]) >= 0).all(1)
        assert (margins[inside] >= found.lower[region]).all()


def test_splitting_makes_bounds_better_and_closes_what_crown_leaves_open():
    rng = np.random.default_rng(4)
    closed = 0
    for _ in range(8):
        network = networks.dense(rng, (4, 8, 8, 1))
        lower, upper = networks.box(rng, 4, 1.0)
        outputs, bound = np.ones((1, 1)), np.zeros(1)
        rows = LinearConstraints(np.zeros((1, 4)), outputs, bound, np.zeros(1, bool))
        nodes = intermediate_bounds(network, *(side[None] for side in tensors(lower, upper)))
        crown = float(nodes[-1].lower)
        value, _ = minimum_margin(network, Disjunct(lower, upper, rows))
        if value - crown < 1e-3:
            continue
        threshold = np.array([value - 0.1 * (value - crown)])
        spec = Spec(4, 1, (Disjunct(lower, upper, LinearConstraints(rows.inputs, outputs, threshold, rows.strict)),))
        outcome = ReluSplitting(Query.of(network, spec, TorchReplay(network)), nodes).work(Deadline.after(20))
        assert outcome.witness is None
        closed += outcome.bounds[0].level is EvidenceLevel.RIGOROUS
    assert closed >= 3


def test_a_box_without_undecided_neurons_is_decided_or_left_to_the_milp():
    """Nothing to split and nothing to ascend: found by the fuzzer as a crash of the ascent."""
    rng = np.random.default_rng(0)
    network = networks.dense(rng, (2, 3, 1))
    query = query_of(rng, network, 2, radius=0.0)
    outcome = ReluSplitting(query, nodes_of(query)).work(Deadline.after(5))
    assert outcome.open == 0
    for disjunct, bound in zip(query.disjuncts, outcome.bounds, strict=True):
        truth = minimum_margin(network, disjunct)[0]
        assert (bound.level is not None) == (truth > 0) or abs(truth) < TOLERANCE or outcome.witness is not None
