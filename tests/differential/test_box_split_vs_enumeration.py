"""Splitting boxes of networks that are no chains against exhaustive enumeration of activation patterns."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from support import networks
from support.evidence import impossible
from support.oracle import minimum_margin
from support.queries import query_of
from support.replay import TorchReplay
from support.searches import box_splitting
from verifier.bounds.interval import interval_bounds
from verifier.deadline import Deadline
from verifier.pipeline import Options, solve
from verifier.query import Query
from verifier.search.box_split import BoxOptions, BoxSplitting
from verifier.verdict import EvidenceLevel, Verdict
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

TOLERANCE = 1e-6


def few_vary(query, count):
    """The query with all inputs but the first ``count`` at the middle of their range."""
    found = []
    for disjunct in query.disjuncts:
        middle = (disjunct.lower + disjunct.upper) / 2
        lower, upper = (np.where(np.arange(len(middle)) < count, s, middle) for s in (disjunct.lower, disjunct.upper))
        found.append(replace(disjunct, lower=lower, upper=upper))
    return replace(query, spec=replace(query.spec, disjuncts=tuple(found)))


KINDS = {
    "residual": networks.residual,
    "twins": lambda rng: networks.twins(rng, 2, 4, 2),
    "leaky": lambda rng: networks.leaky(rng, 3, 4, 2),
    "convolution": networks.small_convolutional,
    "all operators": networks.convolutional,
    "dense": lambda rng: networks.dense(rng, (2, 5, 4, 2)),
}

OPTIONS = [
    BoxOptions(largest_batch=1),
    BoxOptions(largest_batch=7, most_rows=2),
    BoxOptions(most_rows=0, crowded=3),
    BoxOptions(frontier_bytes=1, largest_batch=2),
]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(12))
def test_verdicts_agree_with_enumeration(kind, seed):
    rng = np.random.default_rng([seed, len(kind)])
    query = few_vary(query_of(rng, KINDS[kind](rng), 3, 1.5), 3)
    # Margins near zero, on either side of it, are where search is needed.
    shift = (-0.1, -0.01, 0.01, 0.05)[seed % 4]
    truths = [minimum_margin(query.network, disjunct)[0] for disjunct in query.disjuncts]
    query = moved(query, [truth - shift for truth in truths])
    witness, bounds = box_splitting(query, Deadline.after(30), OPTIONS[seed % len(OPTIONS)])
    if witness is not None:
        assert query.disjuncts[witness.disjunct].holds_exactly(witness.x, witness.y)
        assert shift < 0
        return
    assert shift > 0, "a reachable disjunct was not found"
    for bound in bounds:
        assert bound.level is EvidenceLevel.RIGOROUS, "a closable disjunct stayed open"


def moved(query, amounts):
    """With the bounds of each disjunct's rows raised."""
    disjuncts = [
        replace(d, constraints=replace(d.constraints, bounds=d.constraints.bounds + amount))
        for d, amount in zip(query.disjuncts, amounts, strict=True)
    ]
    return replace(query, spec=replace(query.spec, disjuncts=tuple(disjuncts)))


@pytest.mark.parametrize("kind", ["residual", "twins", "leaky"])
@pytest.mark.parametrize("seed", range(4))
def test_a_threshold_a_hair_above_the_minimum_is_never_closed(kind, seed):
    """The margin's minimum is barely negative: an engine without rounding control would close it now and then."""
    rng = np.random.default_rng([seed, 5])
    network = KINDS[kind](rng)
    lower, upper = networks.box(rng, network.n_inputs, 1.0)
    weights = rng.normal(size=(1, network.n_outputs))
    rows = LinearConstraints(np.zeros((1, network.n_inputs)), weights, np.zeros(1), np.zeros(1, bool))
    value, point = minimum_margin(network, Disjunct(lower, upper, rows))
    output = float(weights[0] @ TorchReplay(network).run(point))
    rows = replace(rows, bounds=np.array([max(value, output) + 1e-12]))
    spec = Spec(network.n_inputs, network.n_outputs, (Disjunct(lower, upper, rows),))
    witness, bounds = box_splitting(Query.of(network, spec, TorchReplay(network)), Deadline.after(2))
    assert witness is not None or bounds[0].level is None


@pytest.mark.parametrize("seed", range(6))
def test_work_goes_on_where_it_stopped_and_bounds_hold_all_the_time(seed):
    rng = np.random.default_rng([seed, 8])
    query = few_vary(impossible(rng, networks.residual(rng), count=3, gap=0.05, radius=2.0), 2)
    truths = [minimum_margin(query.network, disjunct)[0] for disjunct in query.disjuncts]
    first = query.disjuncts[0]
    nodes = interval_bounds(query.network, *(tensor(side) for side in (first.lower, first.upper)))
    search = BoxSplitting(query, nodes, BoxOptions(largest_batch=2))
    worst = -np.inf
    for _ in range(10_000):
        outcome = search.work(Deadline.after(0.003))
        assert outcome.witness is None
        assert search.worst >= worst
        worst = search.worst
        for truth, bound in zip(truths, outcome.bounds, strict=True):
            assert bound.lower <= truth + TOLERANCE
        if search.exhausted:
            break
    assert all(bound.level is EvidenceLevel.RIGOROUS for bound in outcome.bounds)
    assert sum(search.closed.values()) <= search.regions


def tensor(side):
    return torch.from_numpy(side)[None].double()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_pipeline_splits_boxes_of_networks_that_are_no_chains(threads):
    """A skip connection around many layers: hard for ReLU splitting, easy for two inputs."""
    rng = np.random.default_rng(4)
    query = impossible(rng, networks.residual(rng), count=2, gap=0.01, radius=3.0)
    query = few_vary(query, 2)
    truths = [minimum_margin(query.network, disjunct)[0] for disjunct in query.disjuncts]
    query = moved(query, [truth - 0.01 for truth in truths])
    result = solve(query, Deadline.after(30), Options(stages=("branch",), threads=threads))
    assert result.verdict is Verdict.UNSAT
    assert result.statistics.searches["input splitting"].visited > 0


def test_the_deadline_is_obeyed_and_open_boxes_are_reported():
    rng = np.random.default_rng(3)
    network = networks.twins(rng, 8, 60, 1)
    lower, upper = -np.ones(8), np.ones(8)
    rows = LinearConstraints(np.zeros((1, 8)), np.ones((1, 1)), np.zeros(1), np.zeros(1, bool))
    disjunct = Disjunct(lower, upper, rows)
    points = lower + rng.random((4000, 8)) * 2
    low = float(network.forward(tensor(points)[0]).min())
    disjunct = replace(disjunct, constraints=replace(rows, bounds=np.array([low - 0.4 * abs(low)])))
    query = Query.of(network, Spec(8, 1, (disjunct,)), TorchReplay(network))
    nodes = interval_bounds(network, tensor(lower), tensor(upper))
    deadline = Deadline.after(0.5)
    outcome = BoxSplitting(query, nodes).work(deadline)
    assert time.monotonic() < deadline.end + 2.0
    if outcome.bounds[0].level is None:
        assert outcome.open > 0
        assert outcome.bounds[0].lower <= 0
