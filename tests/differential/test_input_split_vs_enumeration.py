"""Input splitting against exhaustive enumeration of activation patterns, and against sampled points."""

from __future__ import annotations

import time

import numpy as np
import pytest

from support import networks
from support.oracle import minimum_margin
from support.replay import TorchReplay
from verifier.deadline import Deadline
from verifier.model.network import build
from verifier.model.operators import Conv, Input, Relu, Reshape
from verifier.query import Query
from verifier.search.dense_chain import dense_chain, is_dense_chain
from verifier.search.input_split import SplitOptions, applicable, split
from verifier.verdict import EvidenceLevel
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

TOLERANCE = 1e-6


def convolution_chain(rng):
    """Convolutions and moves in a chain, which the dense composition must flatten."""
    nodes = [
        (Input((1, 1, 2, 2)), ()),
        (Conv(networks._tensor(rng, 2, 1, 2, 2), networks._tensor(rng, 2), (1, 1), (0, 1, 0, 0)), (0,)),
        (Relu(), (1,)),
        (Reshape((1, 4)), (2,)),
        (networks.linear(rng, 4, 3), (3,)),
        (Relu(), (4,)),
        (networks.linear(rng, 3, 2), (5,)),
    ]
    return build(nodes)


KINDS = {
    "dense": lambda rng: networks.dense(rng, (2, 4, 3, 2)),
    "deep": lambda rng: networks.dense(rng, (3, 3, 3, 3, 2)),
    "convolutions": convolution_chain,
}


def disjuncts(rng, network, count):
    """Random conjunctions over two boxes, mixed X and Y rows among them."""
    boxes = [networks.box(rng, network.n_inputs, 1.0) for _ in range(2)]
    found = []
    for d in range(count):
        rows = int(rng.integers(1, 4))
        inputs = rng.normal(size=(rows, network.n_inputs)) * (rng.random() < 0.3)
        constraints = LinearConstraints(
            inputs, rng.normal(size=(rows, network.n_outputs)), rng.normal(size=rows), np.zeros(rows, bool)
        )
        found.append(Disjunct(*boxes[d % 2], constraints))
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(12))
def test_verdicts_agree_with_enumeration(kind, seed):
    rng = np.random.default_rng([seed, len(kind)])
    network = KINDS[kind](rng)
    wanted = disjuncts(rng, network, 3)
    query = Query.of(network, Spec(network.n_inputs, network.n_outputs, tuple(wanted)), TorchReplay(network))
    assert applicable(query, SplitOptions())
    truths = [minimum_margin(network, disjunct)[0] for disjunct in wanted]
    outcome = split(query, Deadline.after(20))
    if outcome.witness is not None:
        witness = outcome.witness
        assert wanted[witness.disjunct].holds_exactly(witness.x, witness.y)
        assert truths[witness.disjunct] <= TOLERANCE
        return
    for truth, bound in zip(truths, outcome.bounds, strict=True):
        assert bound.lower <= truth + TOLERANCE
        if bound.level is not None:
            assert bound.level is EvidenceLevel.RIGOROUS
            assert truth > -TOLERANCE
        elif abs(truth) > TOLERANCE:
            assert truth <= 0, "a closable disjunct stayed open"


@pytest.mark.parametrize("seed", range(10))
def test_a_threshold_a_hair_above_the_minimum_is_never_closed(seed):
    """The margin's minimum is barely negative: an engine without rounding control would close it now and then."""
    rng = np.random.default_rng(seed)
    network = networks.dense(rng, (2, 5, 4, 1))
    lower, upper = networks.box(rng, 2, 1.0)
    rows = LinearConstraints(np.zeros((1, 2)), np.ones((1, 1)), np.zeros(1), np.zeros(1, bool))
    value, point = minimum_margin(network, Disjunct(lower, upper, rows))
    output = TorchReplay(network).run(point)[0]
    rows = LinearConstraints(rows.inputs, rows.outputs, np.array([max(value, output) + 1e-12]), rows.strict)
    query = Query.of(network, Spec(2, 1, (Disjunct(lower, upper, rows),)), TorchReplay(network))
    outcome = split(query, Deadline.after(2))
    assert outcome.witness is not None or outcome.bounds[0].level is None


def test_branching_networks_are_left_to_other_stages():
    network = networks.residual(np.random.default_rng(0))
    assert not is_dense_chain(network)
    with pytest.raises(ValueError, match="chain"):
        dense_chain(network)


def test_the_deadline_is_obeyed_and_open_boxes_are_reported():
    rng = np.random.default_rng(3)
    network = networks.dense(rng, (8, 60, 60, 60, 1))
    lower, upper = -np.ones(8), np.ones(8)
    rows = LinearConstraints(np.zeros((1, 8)), np.ones((1, 1)), np.array([-60.0]), np.zeros(1, bool))
    query = Query.of(network, Spec(8, 1, (Disjunct(lower, upper, rows),)), TorchReplay(network))
    split(query, Deadline.after(0.1))  # compiles
    deadline = Deadline.after(0.5)
    outcome = split(query, deadline)
    assert time.monotonic() < deadline.end + 2.0
    if outcome.bounds[0].level is None:
        assert outcome.open > 0
