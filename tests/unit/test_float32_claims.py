"""The ascent runs in float32 and may claim what is not so; only the evaluation in float64 closes a region."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import networks, planted
from support.oracle import minimum_margin
from support.searches import refining_splitting, relu_splitting
from verifier.bounds import beta_crown
from verifier.bounds.ascent import Bound, Gradients
from verifier.bounds.beta_crown import AscentOptions, Root, Splits, bound_regions
from verifier.bounds.crown import intermediate_bounds
from verifier.deadline import Deadline
from verifier.model.network import Network, build
from verifier.model.operators import Input, Relu
from verifier.options import Trust
from verifier.pipeline import Options, solve
from verifier.query import Query
from verifier.search.candidates import rows_of
from verifier.verdict import Verdict
from verifier.vnnlib.spec import Disjunct

BIG = 2.0**20
LOST = float(np.float32(0.025))
"""Less than half of float32's spacing just below ``BIG``: taking it away there changes nothing."""
LAYERS, UNDECIDED = 6, 3


def cancelling() -> Network:
    """y = (BIG - 7/8) - big + (small - 6 LOST) + relu(u) / 1000 + ... through seven ReLU layers.

    A backward pass carries the constant BIG - 7/8 along from the output and meets -LOST once per layer.
    """
    width = 2 + UNDECIDED
    identity = np.eye(width)
    offset = np.zeros(width)
    offset[1] = -LOST
    nodes: list[Any] = [(Input((1, width)), ()), (planted.linear(identity, np.zeros(width)), (0,))]
    for _ in range(LAYERS):
        nodes.append((Relu(), (len(nodes) - 1,)))
        nodes.append((planted.linear(identity, offset), (len(nodes) - 1,)))
    nodes.append((Relu(), (len(nodes) - 1,)))
    nodes.append((planted.linear([[-1.0, 1.0, *[1e-3] * UNDECIDED]], [BIG - 0.875]), (len(nodes) - 1,)))
    return build(nodes, "cancelling")


def cancelling_query(least: float | None = None) -> tuple[Query, float]:
    """``y <= 0`` on a box where the least y is 1/8 - 6 LOST, just below 0, or the given margin; with the true one."""
    network = cancelling()
    lower = np.array([BIG - 1, 1.0, *[-1.0] * UNDECIDED])
    upper = np.array([BIG, 2.0, *[1.0] * UNDECIDED])
    truth = 0.125 - LAYERS * LOST
    bound = 0.0 if least is None else truth - least
    return planted.query(network, planted.disjunct(lower, upper, [1.0], bound)), truth - bound


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The bounds that the ascents see, in the order in which they see them."""
    seen: list[float] = []
    true_ascend = beta_crown.ascend

    def ascend(choices: Any, bound: Bound, *others: Any) -> Any:
        def watched(values: list[torch.Tensor]) -> tuple[torch.Tensor, Gradients]:
            found, gradients = bound(values)
            assert found.dtype == torch.float32
            seen.extend(found.tolist())
            return found, gradients

        return true_ascend(choices, watched, *others)

    monkeypatch.setattr(beta_crown, "ascend", ascend)
    return seen


@pytest.mark.parametrize("search", [relu_splitting, refining_splitting])
def test_a_closing_claimed_in_float32_is_refused_and_the_region_split_on(search: Any, claims: list[float]) -> None:
    # Below zero by so little that onnxruntime, in float32 as well, confirms nothing: the search has to go on.
    query, truth = cancelling_query(-1e-9)
    assert -1e-8 < truth < 0
    assert minimum_margin(query.network, query.disjuncts[0])[0] == pytest.approx(truth, abs=1e-9)
    witness, bounds = search(query, Deadline.after(5))
    assert witness is None
    # Undivided, and then again in the regions that came out of the queue.
    assert len(claims) >= 3
    assert all(claim > 0.1 for claim in claims)
    assert bounds[0].level is None
    assert bounds[0].lower <= truth


def test_the_refused_bound_is_below_the_truth_the_claim_above_it(claims: list[float]) -> None:
    query, truth = cancelling_query()
    root = root_of(query, query.disjuncts[0])
    found = bound_regions(root, rows_of(query), root.undivided(), AscentOptions())
    assert claims[0] > 0 >= truth >= float(found.lower[0])


@pytest.mark.parametrize("least", [-1e-9, -1e-12, 0.0])
def test_a_hair_on_the_wrong_side_stays_open(least: float, claims: list[float]) -> None:
    """Margins that float64 itself cannot tell from positive ones among numbers of this size."""
    query, _ = cancelling_query(least)
    witness, bounds = relu_splitting(query, Deadline.after(5))
    assert max(claims) > 0.1
    assert witness is not None or bounds[0].level is None


def test_what_is_clearly_positive_is_closed() -> None:
    """The refusals above are not for want of trying."""
    query, _ = cancelling_query(1e-6)
    for search in (relu_splitting, refining_splitting):
        witness, bounds = search(query, Deadline.after(5))
        assert witness is None
        assert bounds[0].level is not None


@pytest.mark.parametrize("trust", list(Trust))
def test_the_verdict_is_no_false_unsat(trust: Trust) -> None:
    query, _ = cancelling_query()
    assert solve(query, Deadline.after(10), Options(trust=trust)).verdict is not Verdict.UNSAT


def root_of(query: Query, disjunct: Disjunct) -> Root:
    lower, upper = (torch.from_numpy(side)[None].double() for side in (disjunct.lower, disjunct.upper))
    return Root(query.network, lower, upper, intermediate_bounds(query.network, lower, upper))


@given(seed=st.integers(0, 2**32 - 1), slope=st.sampled_from([-1.0, 0.5, 2.0]), multiplier=st.sampled_from([-1.0, 0.5]))
@settings(max_examples=40, deadline=None)
def test_bounds_hold_from_any_start_and_with_any_step(seed: int, slope: float, multiplier: float) -> None:
    """Slopes outside [0, 1] and negative multipliers must never reach the evaluation, wherever they come from."""
    rng = np.random.default_rng(seed)
    network = networks.dense(rng, (3, 6, 5, 1))
    lower, upper = networks.box(rng, 3, 1.5)
    query = planted.query(network, planted.disjunct(lower, upper, [rng.choice([-1.0, 1.0])], 0.0))
    root = root_of(query, query.disjuncts[0])
    points = torch.from_numpy(lower + rng.random((3000, 3)) * (upper - lower))
    values = network.values(points)
    pre = torch.cat([values[network.nodes[k].inputs[0]].flatten(1)[:, at] for k, at in root.places.items()], 1)
    row = float(query.disjuncts[0].constraints.outputs[0, 0])
    # Regions of sampled points, each with a random choice of its neurons split.
    count = 12
    signs = torch.where(pre[:count] >= 0, 1, -1) * torch.from_numpy(rng.random((count, root.size)) < 0.5)
    splits = Splits(
        signs.to(torch.int8), torch.full((count, root.size), slope), torch.full((count, root.size), multiplier)
    )
    rows = rows_of(query).pick(torch.zeros(count, dtype=torch.long))
    found = bound_regions(root, rows, splits, AscentOptions(iterations=1 + seed % 4, slope_step=3.0, multiplier_step=3))
    assert bool((found.splits.slopes >= 0).all())
    assert bool((found.splits.slopes <= 1).all())
    assert bool((found.splits.multipliers >= 0).all())
    assert bool((found.splits.multipliers[signs == 0] == 0).all())
    for region in range(count):
        inside = (pre * signs[region] >= 0).all(1)
        assert float(found.lower[region]) <= float((row * values[-1].flatten(1)[inside, 0]).min())


def test_a_multiplier_of_the_wrong_sign_would_be_seen() -> None:
    """The test above can fail: with the splits' signs turned over, bounds rise above points of the regions."""
    broken = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        network = networks.dense(rng, (3, 6, 5, 1))
        lower, upper = networks.box(rng, 3, 1.5)
        query = planted.query(network, planted.disjunct(lower, upper, [1.0], 0.0))
        root = root_of(query, query.disjuncts[0])
        if not root.size:
            continue
        points = torch.from_numpy(lower + rng.random((500, 3)) * (upper - lower))
        values = network.values(points)
        pre = torch.cat([values[network.nodes[k].inputs[0]].flatten(1)[:, at] for k, at in root.places.items()], 1)
        signs = torch.where(pre >= 0, 1, -1).to(torch.int8)
        nothing = torch.zeros(len(points), root.size)
        rows = rows_of(query).pick(torch.zeros(len(points), dtype=torch.long))
        right = Splits(signs, nothing, nothing)
        lows = [
            bound_regions(root, rows, replace(right, signs=s), AscentOptions()).lower for s in (right.signs, -signs)
        ]
        assert bool((lows[0] <= values[-1].flatten(1)[:, 0]).all())
        broken += bool((lows[1] > values[-1].flatten(1)[:, 0]).any())
    assert broken >= 10
