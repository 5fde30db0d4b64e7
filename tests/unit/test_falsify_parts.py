"""The parts of the attack one by one: margins, starts, budgets, the referee."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import networks
from support.planted import disjunct, distance, query, weighted_sum
from verifier.deadline import Deadline
from verifier.falsify import work
from verifier.falsify.loss import Targets, margins, objective
from verifier.falsify.pgd import descend
from verifier.falsify.polish import polish
from verifier.falsify.referee import Referee
from verifier.falsify.starts import Boxes, Starts, draw, sample


def test_rows_are_those_of_the_constraints() -> None:
    rng = np.random.default_rng(0)
    disjuncts = [
        disjunct([0.0] * 4, [1.0] * 4, rng.normal(size=(rows, 3)), rng.normal(size=rows), inputs=inputs)
        for rows, inputs in ((1, None), (3, rng.normal(size=(3, 4))), (2, None))
    ]
    x, y = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 5, 3))
    rows = Targets.of(disjuncts, torch.float64).rows(torch.from_numpy(x), torch.from_numpy(y))
    for i, d in enumerate(disjuncts):
        for k in range(5):
            expected = d.constraints.margins(x[i, k], y[i, k])
            np.testing.assert_allclose(rows[i, k, : len(expected)].numpy(), expected, atol=1e-12)
            assert margins(rows)[i, k].item() == pytest.approx(expected.max())


def test_padding_neither_counts_nor_pulls() -> None:
    disjuncts = [disjunct([0.0], [1.0], [[1.0]], [5.0]), disjunct([0.0], [1.0], [[1.0], [2.0]], [0.0, 0.0])]
    targets = Targets.of(disjuncts, torch.float64)
    for summed in (False, True):
        y = torch.ones(2, 1, 1, dtype=torch.float64, requires_grad=True)
        rows = targets.rows(y, y)
        objective(rows, torch.full((2, 1), summed)).sum().backward()
        assert margins(rows).flatten().tolist() == [-4.0, 2.0]
        assert y.grad is not None
        # Summed, a row that holds does not pull; both rows of the other disjunct do.
        assert y.grad.flatten().tolist() == ([0.0, 3.0] if summed else [1.0, 2.0])


def test_boxes_are_rounded_inward() -> None:
    lower, upper = np.array([0.1, -0.1, 0.25]), np.array([0.7, 0.3, 0.25])
    boxes = Boxes.of([disjunct(lower, upper, [1.0], [0.0])], torch.float32)
    low, high = boxes.lower.double().numpy()[0, 0], boxes.upper.double().numpy()[0, 0]
    assert (lower <= low).all()
    assert (high <= upper).all()
    np.testing.assert_allclose(low, lower, rtol=1e-6)
    np.testing.assert_allclose(high, upper, rtol=1e-6)


def test_a_side_between_two_floats_becomes_one_of_them() -> None:
    boxes = Boxes.of([disjunct([0.1], [0.1], [1.0], [0.0])], torch.float32)
    assert boxes.lower.item() == boxes.upper.item() == np.float32(0.1)


@pytest.mark.parametrize("n", [1, 7, 200])
def test_everything_drawn_lies_inside(n: int) -> None:
    rng = np.random.default_rng(n)
    sides = [networks.box(rng, n, radius) for radius in (1e-6, 1.0, 1e6)]
    boxes = Boxes.of([disjunct(low, high, [1.0], [0.0]) for low, high in sides], torch.float32)
    generator = torch.Generator().manual_seed(0)
    starts = draw(boxes, 40, 2, generator, with_centre=True)
    for points in (starts.points, sample(boxes, 40, generator)):
        assert (boxes.lower <= points).all()
        assert (points <= boxes.upper).all()
    assert starts.diversified[:, 1].all()
    assert not starts.diversified[:, 0].any()
    off_centre = (starts.points[:, :1] - (boxes.lower + boxes.upper) / 2).abs()
    assert (off_centre <= 1e-6 * (boxes.width + boxes.lower.abs())).all()


def test_descent_keeps_the_best_of_every_restart() -> None:
    network = distance([0.5, 0.5]).to(torch.float32)
    d = [disjunct([0.0, 0.0], [1.0, 1.0], [1.0], [-1.0])]
    boxes, targets = Boxes.of(d, torch.float32), Targets.of(d, torch.float32)
    starts = draw(boxes, 16, 1, torch.Generator().manual_seed(0), with_centre=False)
    before = margins(targets.rows(starts.points, network.forward(starts.points[0])[None]))
    found = descend(network, targets, boxes, starts, 20, Deadline.never(), lambda points, values: False)
    assert (found.margins <= before).all()
    assert not found.accepted
    at_points = margins(targets.rows(found.points, network.forward(found.points[0])[None]))
    torch.testing.assert_close(at_points, found.margins)


def test_descent_stops_when_told() -> None:
    network = weighted_sum([1.0]).to(torch.float32)
    d = [disjunct([0.0], [1.0], [1.0], [0.5])]
    boxes, targets = Boxes.of(d, torch.float32), Targets.of(d, torch.float32)
    starts = Starts(
        torch.ones(1, 1, 1),
        torch.full((1, 1, 1), 0.1),
        torch.zeros(1, 1, dtype=torch.bool),
        torch.zeros(1, 1, dtype=torch.bool),
        torch.zeros(1, 1, 1),
    )
    shown: list[float] = []

    def accept(points: torch.Tensor, values: torch.Tensor) -> bool:
        shown.append(values.min().item())
        return True

    assert descend(network, targets, boxes, starts, 50, Deadline.never(), accept).accepted
    assert len(shown) == 1
    assert shown[0] <= 0


def test_polishing_reaches_what_coarse_steps_miss() -> None:
    centre = [0.3123, 0.6877]
    d = [disjunct([0.0, 0.0], [1.0, 1.0], [1.0], [1e-3])]
    start = torch.tensor([[[0.32, 0.68]]], dtype=torch.float64)
    points, found = polish(
        distance(centre), Targets.of(d, torch.float64), Boxes.of(d, torch.float64), start, Deadline.never()
    )
    assert found.item() <= 0
    assert np.abs(points.numpy().ravel() - centre).sum() <= 1e-3


def test_budgets() -> None:
    network = networks.dense(np.random.default_rng(0), (10, 100, 5))
    assert work.per_point(network) == 10 * 100 + 100 * 5 + work.ELEMENTWISE * (10 + 100 + 100 + 5)
    assert work.restarts(network, 1, 20, 1e18) == work.MOST_RESTARTS
    assert work.restarts(network, 10_000, 20, 1.0) == work.FEWEST_RESTARTS
    for memory in (1, 100_000, 2**40):
        pieces = list(work.chunks(network, range(7), 10, memory))
        assert [i for piece in pieces for i in piece] == list(range(7))


class LyingReplay:
    """A judge that never agrees, and counts how often it was asked."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, x: np.ndarray) -> np.ndarray:
        self.runs += 1
        return np.array([1.0])

    def representable(self, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        return np.clip(x, lower, upper)


def test_refused_points_are_shown_again_only_when_deeper() -> None:
    replay = LyingReplay()
    asked = query(weighted_sum([1.0]), disjunct([0.0], [1.0], [1.0], [0.5]))
    referee = Referee(type(asked)(asked.network, asked.spec, replay, asked.indices))
    points = torch.zeros(1, 1, 1)
    for margin, runs in ((0.1, 0), (-0.1, 1), (-0.1, 1), (-0.15, 1), (-0.2, 2), (-0.3, 2), (-1.0, 3)):
        assert not referee.judge_all([0], points, torch.tensor([[margin]]))
        assert replay.runs == runs
    assert referee.witness is None
