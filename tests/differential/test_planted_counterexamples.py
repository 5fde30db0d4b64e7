"""Counterexamples hidden where searches cut: near corners of the input box and of regions, seen only close by.

Each property holds (for the attacker) in a tiny neighbourhood of one known point: a corner of the box, or a point at
which as many ReLU inputs as possible are nearly zero, so that every split passes by it.  No search may close such a
property, nor bound its margin above the margin that the point has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fuzz import exact
from fuzz.case import Array, Case, spec_of
from fuzz.larger import larger_box, larger_network
from fuzz.query import query_of
from support.searches import box_splitting, refining_splitting, relu_splitting
from verifier.bounds.beta_crown import AscentOptions
from verifier.deadline import Deadline
from verifier.model.network import Network
from verifier.pipeline import Options, solve
from verifier.search.box_split import BoxOptions
from verifier.search.input_split import SplitOptions, applicable, split
from verifier.search.refining_split import RefineOptions
from verifier.search.relu_split import BranchOptions
from verifier.verdict import DisjunctBounds, Verdict, Witness
from verifier.vnnlib.spec import Disjunct, LinearConstraints

SPECS, PARTS = 200, 10
SECONDS = 0.06
"""For one search: long enough for hundreds of regions of these networks, which is where false closings show."""
SLACKS = (0.0, 1e-9, 1e-7, 1e-5, 1e-3)
"""How far below zero the point's margin lies, against the outputs there; 0: onnxruntime may see either side."""
TRIES = 12
EXACT = 1e-12
"""Rounding of the point's margin when the thresholds are set, relative to the outputs."""


@dataclass(frozen=True, eq=False)
class Planted:
    """A case, its point, and the exact margin of the point, never positive."""

    case: Case
    point: Array
    margin: float


def kink(rng: np.random.Generator, network: Network, lower: Array, upper: Array) -> Array:
    """A point of the box, float32, moved from a corner to where the nearest of the ReLU inputs are zero together."""
    corner = np.where(rng.random(len(lower)) < 0.5, lower, upper)
    start = corner + rng.uniform(0, 0.3, len(lower)) * ((lower + upper) / 2 - corner)
    low, high, x = (torch.from_numpy(part) for part in (lower, upper, start))
    chosen: list[int] = []
    for iteration in range(20):
        leaf = x.clone().requires_grad_(True)
        values = network.values(leaf[None])
        inputs = torch.cat([values[network.nodes[k].inputs[0]].flatten() for k in network.relus])
        if iteration % 7 == 0:
            rows = [torch.autograd.grad(z, leaf, retain_graph=True)[0] * (high - low) for z in inputs]
            distances = inputs.detach().abs() / torch.stack(rows).norm(dim=1).clamp(min=1e-9)
            chosen = torch.argsort(distances)[: max(1, network.n_inputs // 2)].tolist()
        slopes = torch.stack([torch.autograd.grad(inputs[i], leaf, retain_graph=True)[0] for i in chosen])
        free = ((x > low) & (x < high)) if iteration % 7 else torch.ones_like(x, dtype=torch.bool)
        step = torch.linalg.pinv(slopes * free) @ -inputs[chosen].detach()
        x = torch.clamp(x + step, low, high)
    return np.clip(x.numpy().astype(np.float32).astype(float), lower, upper)


def planted(seed: int) -> Planted:
    """Random rows that all just hold at the point: of many tries those that hold at the fewest other points."""
    rng = np.random.default_rng([seed, 2])
    network = larger_network(rng)
    lower, upper = larger_box(rng, network.n_inputs)
    corner = np.where(rng.random(len(lower)) < 0.5, lower, upper)
    point = corner if seed % 4 == 0 else kink(rng, network, lower, upper)
    y = np.array([float(v) for v in exact.outputs(network, point)])
    size = 1.0 + float(np.abs(y).max())
    tries = [_rows(rng, network, point, lower, upper) for _ in range(TRIES)]
    others = lower + rng.random((300, len(lower))) * (upper - lower)
    moves = network.forward(torch.from_numpy(others)).numpy() - y
    shares = [float(((moves @ o.T + (others - point) @ i.T).max(1) <= 0).mean()) for i, o in tries]
    inputs, outputs = tries[int(np.argmin(shares))]
    slack = float(rng.choice(SLACKS)) * size
    bounds = outputs @ y + inputs @ point + slack + EXACT * size * (1 + np.abs(inputs).sum())
    constraints = LinearConstraints(inputs, outputs, bounds, np.zeros(len(bounds), bool))
    disjunct = Disjunct(lower, upper, constraints)
    margin, holds = exact.margin(network, disjunct, point)
    assert holds
    return Planted(Case(network, spec_of(network, (disjunct,)), seed), point, float(margin))


def _rows(rng: np.random.Generator, network: Network, point: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """One to three rows, input part and output part; mixed ones push away from the corner next to the point."""
    rows = int(rng.integers(1, 4))
    outputs, inputs = rng.normal(size=(rows, network.n_outputs)), np.zeros((rows, network.n_inputs))
    if rng.random() < 0.5:
        towards = np.where(point > (lower + upper) / 2, -1.0, 1.0)
        inputs = rng.uniform(0.0, 1.0, size=(rows, network.n_inputs)) * towards
    return inputs, outputs


def judge(found: Planted, name: str, witness: Witness | None, bounds: tuple[DisjunctBounds, ...]) -> None:
    """Neither closed nor bounded above the point's margin; a witness is one."""
    described = f"seed {found.case.seed}: {name}"
    disjunct = found.case.spec.disjuncts[0]
    assert (disjunct.lower <= found.point).all()
    assert (found.point <= disjunct.upper).all()
    if witness is not None:
        assert disjunct.holds_exactly(witness.x, witness.y), described
        return
    for bound in bounds:
        assert bound.level is None, f"{described} closes it at {bound.level} by {bound.closed_by}"
        assert bound.lower <= found.margin, f"{described} bounds it by {bound.lower}, {found.margin} is seen"


@pytest.mark.parametrize("part", range(PARTS))
def test_no_search_closes_a_property_with_a_hidden_counterexample(part: int) -> None:
    for seed in range(part, SPECS, PARTS):
        found = planted(seed)
        query = query_of(found.case)
        batch = BranchOptions(largest_batch=(1, 16, 1024)[seed % 3], ascent=AscentOptions(iterations=1 + seed % 10))
        judge(found, "relu splitting", *relu_splitting(query, Deadline.after(SECONDS), batch))
        refine = RefineOptions(largest_batch=1 + seed % 4)
        judge(found, "refining", *refining_splitting(query, Deadline.after(SECONDS), refine, iterations=1 + seed % 3))
        boxes = BoxOptions(largest_batch=(1, 16, 256)[seed % 3], most_rows=(0, 4, 256)[seed % 3])
        judge(found, "box splitting", *box_splitting(query, Deadline.after(SECONDS), boxes))
        if applicable(query, SplitOptions()):
            outcome = split(query, Deadline.after(SECONDS), SplitOptions(slice_seconds=0.02))
            judge(found, "input splitting", outcome.witness, outcome.bounds)
        result = solve(query, Deadline.after(SECONDS), Options(seed=seed))
        assert result.verdict is not Verdict.UNSAT, f"seed {seed}"
        judge(found, "pipeline", result.witness, result.bounds)


def test_the_counterexamples_are_hidden_at_kinks_and_hard_to_meet() -> None:
    """Several ReLU inputs are nearly zero at most points, and few points of the box satisfy the property."""
    nearly, seen = [], []
    for seed in range(1, 40):
        found = planted(seed)
        network, disjunct = found.case.network, found.case.spec.disjuncts[0]
        values = network.values(torch.from_numpy(found.point)[None])
        inputs = torch.cat([values[network.nodes[k].inputs[0]].flatten() for k in network.relus])
        nearly.append(int((inputs.abs() < 1e-5).sum()))
        rng = np.random.default_rng(seed)
        points = disjunct.lower + rng.random((500, network.n_inputs)) * (disjunct.upper - disjunct.lower)
        outputs = network.forward(torch.from_numpy(points)).numpy()
        rows = disjunct.constraints
        margins = (outputs @ rows.outputs.T + points @ rows.inputs.T - rows.bounds).max(1)
        seen.append(float((margins <= 0).mean()))
    assert np.mean(np.array(nearly) >= 1) >= 0.5
    assert np.median(seen) <= 0.1
