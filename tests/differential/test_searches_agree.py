"""One verdict whatever the memory for the frontier and the number of threads, and that of enumeration."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from support import networks
from support.oracle import minimum_margin
from support.replay import TorchReplay
from verifier.bounds.alpha_crown import AlphaOptions, optimised_bounds
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.reduce import without_inactive
from verifier.deadline import Deadline
from verifier.pipeline import Options, solve
from verifier.query import Query
from verifier.search.refining_split import RefineOptions, RefiningSplitting
from verifier.search.relu_split import BranchOptions, ReluSplitting
from verifier.side_by_side import side_by_side
from verifier.verdict import EvidenceLevel, Verdict
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec


def query_near(seed, share, count=3):
    """Disjuncts ``y_0 <= threshold``, with thresholds a share of CROWN's gap below the minimum, or above it."""
    rng = np.random.default_rng(seed)
    network = networks.dense(rng, (3, 7, 7, 1))
    lower, upper = networks.box(rng, 3, 1.0)
    nodes = intermediate_bounds(network, torch.from_numpy(lower)[None], torch.from_numpy(upper)[None])
    disjuncts = []
    for i in range(count):
        rows = LinearConstraints(np.zeros((1, 3)), np.ones((1, 1)), np.zeros(1), np.zeros(1, bool))
        least = minimum_margin(network, Disjunct(lower, upper, rows))[0]
        gap = max(0.1, (least - float(nodes[-1].lower)) * (i + 1) / count)
        threshold = least - share * gap
        disjuncts.append(Disjunct(lower, upper, replace(rows, bounds=np.array([threshold]))))
    return Query.of(network, Spec(3, 1, tuple(disjuncts)), TorchReplay(network)), nodes


def searches(query, nodes, frontier_bytes):
    better = optimised_bounds(query.network, nodes, Deadline.never(), AlphaOptions(iterations=1))
    network, reduced = without_inactive(query.network, better.nodes)
    options = RefineOptions(frontier_bytes=frontier_bytes)
    yield RefiningSplitting(replace(query, network=network), reduced, better.slopes, options)
    yield ReluSplitting(query, nodes, BranchOptions(frontier_bytes=frontier_bytes, largest_batch=4))


@pytest.mark.parametrize("share", [0.6, 0.5])
def test_a_frontier_on_disk_changes_no_verdict(share):
    query, nodes = query_near(0, share)
    spilled = 0
    for search in searches(query, nodes, frontier_bytes=1):
        outcome = search.work(Deadline.after(30))
        assert search.exhausted
        assert outcome.open == 0
        assert all(bound.level is EvidenceLevel.RIGOROUS for bound in outcome.bounds)
        spilled += search.spilled
    assert spilled > 0


def test_bounds_of_regions_on_disk_count():
    query, nodes = query_near(1, 0.05)
    for search in searches(query, nodes, frontier_bytes=1):
        search.work(Deadline.after(0))
        while not search.spilled and not search.exhausted:
            search.work(Deadline.after(0.02))
        outcome = search.work(Deadline.after(0))
        waiting = search._frontier.on_disk
        assert search.worst <= min(waiting.values(), default=np.inf)
        for position, lower in waiting.items():
            assert outcome.bounds[position].level is None
            assert outcome.bounds[position].lower <= lower


def test_forgotten_disjuncts_stay_forgotten_on_disk():
    query, nodes = query_near(2, 0.6)
    for search in searches(query, nodes, frontier_bytes=1):
        search.work(Deadline.after(0))
        search.forget([0, 1])
        search.work(Deadline.after(30))
        assert search.exhausted


@pytest.mark.parametrize("seed", range(2))
def test_two_threads_give_the_verdict_of_one(seed):
    for shift in (0.6, -0.1):
        query, _ = query_near(seed, shift)
        options = Options(stages=("bound", "branch"))
        verdicts = [solve(query, Deadline.after(30), replace(options, threads=threads)).verdict for threads in (1, 2)]
        assert verdicts == [Verdict.UNSAT if shift > 0 else Verdict.SAT] * 2
    assert torch.get_num_threads() >= 1


def test_statistics_count_what_the_searches_did():
    query, _ = query_near(0, 0.4)
    result = solve(query, Deadline.after(30), Options(stages=("branch",)))
    assert result.verdict is Verdict.UNSAT
    total = sum(search.visited for search in result.statistics.searches.values())
    closed = sum(sum(search.closed.values()) for search in result.statistics.searches.values())
    assert total > 3
    assert 0 < closed <= total
    assert all(search.rate > 0 for search in result.statistics.searches.values())


def test_work_side_by_side_ends_when_one_piece_is_enough():
    def quick(deadline):
        return "enough"

    def slow(deadline):
        while not deadline.expired:
            time.sleep(0.01)
        return "stopped"

    started = time.monotonic()
    assert side_by_side([quick, slow], Deadline.after(60), lambda found: found == "enough") == ["enough", "stopped"]
    assert time.monotonic() - started < 30


def test_an_exception_in_one_piece_ends_the_others_and_comes_out():
    ended = threading.Event()

    def broken(deadline):
        raise RuntimeError("broken piece")

    def slow(deadline):
        while not deadline.expired:
            time.sleep(0.01)
        ended.set()

    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken piece"):
        side_by_side([broken, slow], Deadline.after(60), lambda found: False)
    assert ended.is_set()
    assert torch.get_num_threads() == threads
