"""The attack finds planted counterexamples, never invents one, and obeys its limits."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from support import networks
from support.planted import assert_sound, disjunct, distance, query, two_sided, weighted_sum
from verifier.deadline import Deadline
from verifier.falsify.attack import AttackOptions, AttackOutcome, attack
from verifier.progress import Event
from verifier.query import Query

SEEDS = (0, 1, 2)


def run(asked: Query, **options: float) -> AttackOutcome:
    outcome = attack(asked, Deadline.never(), AttackOptions(**options))
    assert_sound(asked, outcome)
    return outcome


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [2, 5, 100])
def test_only_one_corner_satisfies(n: int, seed: int) -> None:
    signs = np.where(np.arange(n) % 3 == 0, -1.0, 1.0)
    asked = query(weighted_sum(signs), disjunct(np.zeros(n), np.ones(n), [-1.0], [-float(np.sum(signs > 0))]))
    witness = run(asked, seed=seed).witness
    assert witness is not None
    assert (witness.x == (signs > 0)).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [1, 3, 5])
def test_small_region_in_the_interior(n: int, seed: int) -> None:
    centre = np.linspace(0.2, 0.71, n)
    asked = query(distance(centre), disjunct(np.zeros(n), np.ones(n), [1.0], [0.02 * n]))
    assert run(asked, seed=seed).witness is not None


def test_the_centre_alone_satisfies() -> None:
    asked = query(distance([0.5] * 100), disjunct(np.zeros(100), np.ones(100), [1.0], [1e-4]))
    assert run(asked).witness is not None


@pytest.mark.parametrize("seed", SEEDS)
def test_widths_differ_by_orders_of_magnitude(seed: int) -> None:
    width = np.array([1e-6, 1e-3, 1.0, 1e3, 1e6])
    asked = query(weighted_sum(1 / width), disjunct(np.zeros(5), width, [-1.0], [-4.9]))
    assert run(asked, seed=seed).witness is not None


def test_inputs_that_are_fixed_stay_fixed() -> None:
    lower, upper = np.array([0.1, 0.0, 0.3]), np.array([0.1, 1.0, 0.3])
    asked = query(weighted_sum([1.0, 1.0, 1.0]), disjunct(lower, upper, [-1.0], [-1.39]))
    witness = run(asked).witness
    assert witness is not None
    np.testing.assert_allclose(witness.x[[0, 2]], [0.1, 0.3], rtol=1e-7)


def test_box_of_one_point() -> None:
    point = [0.25, 0.5]
    assert run(query(weighted_sum([1.0, 1.0]), disjunct(point, point, [1.0], [0.75]))).witness is not None
    assert run(query(weighted_sum([1.0, 1.0]), disjunct(point, point, [1.0], [0.7499]))).witness is None


def test_all_rows_of_a_conjunction_hold_together() -> None:
    outputs, bounds = [[1.0, 0.0], [0.0, 1.0]], [0.305, -0.3]
    asked = query(two_sided(5), disjunct(np.zeros(5), np.ones(5), outputs, bounds))
    witness = run(asked).witness
    assert witness is not None
    assert 0.3 <= witness.y[0] <= 0.305


def test_rows_on_the_input_are_part_of_the_margin() -> None:
    both = disjunct([0.0, 0.0], [1.0, 1.0], [[-1.0], [0.0]], [-0.9, 0.1], inputs=[[0.0, 0.0], [1.0, 0.0]])
    witness = run(query(weighted_sum([1.0, 1.0]), both)).witness
    assert witness is not None
    assert witness.x[0] <= 0.1
    mixed = disjunct([0.0, 0.0], [1.0, 1.0], [[1.0]], [-0.99], inputs=[[-2.0, -1.0]])
    witness = run(query(weighted_sum([1.0, 1.0]), mixed)).witness
    assert witness is not None
    assert witness.x[0] >= 0.99


def test_a_disjunct_without_rows_holds_at_once() -> None:
    asked = query(weighted_sum([1.0]), disjunct([0.0], [1.0], np.zeros((0, 1)), np.zeros(0)))
    assert run(asked).witness is not None


def test_one_of_many_disjuncts_with_boxes_of_their_own() -> None:
    boxes = [disjunct([i, i], [i + 0.5, i + 0.5], [1.0], [0.05]) for i in range(300)]
    asked = query(distance([123.4, 122.9]), *boxes)
    assert run(asked).witness is None
    boxes[122] = disjunct([123.0, 122.5], [123.5, 123.0], [1.0], [0.05])
    witness = run(query(distance([123.4, 122.9]), *boxes)).witness
    assert witness is not None
    assert witness.disjunct == 122


def test_disjuncts_keep_their_places_in_the_spec() -> None:
    far, near = disjunct([5.0], [6.0], [1.0], [0.1]), disjunct([0.0], [1.0], [1.0], [0.1])
    witness = run(query(distance([0.5]), far, far, near).restricted([1, 2])).witness
    assert witness is not None
    assert witness.disjunct == 2


def test_strict_rows_need_more_than_a_tie() -> None:
    tie = disjunct([0.0, 0.0], [1.0, 1.0], [-1.0], [-2.0])
    assert run(query(weighted_sum([1.0, 1.0]), tie)).witness is not None
    strict = disjunct([0.0, 0.0], [1.0, 1.0], [-1.0], [-2.0], strict=True)
    assert run(query(weighted_sum([1.0, 1.0]), strict)).witness is None
    possible = disjunct([0.0, 0.0], [1.0, 1.0], [-1.0], [-1.999], strict=True)
    assert run(query(weighted_sum([1.0, 1.0]), possible)).witness is not None


@pytest.mark.parametrize("seed", range(8))
def test_no_witness_where_there_is_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = networks.dense(rng, (4, 12, 12, 3)) if seed % 2 else networks.convolutional(rng, 3)
    lower, upper = networks.box(rng, network.n_inputs)
    largest = interval_upper(network, lower, upper)
    above = [disjunct(lower, upper, -np.eye(3)[i], [-largest[i] - 1e-3]) for i in range(3)]
    outcome = run(query(network, *above), seed=seed)
    assert outcome.witness is None
    assert (outcome.margins > 0).all()


def interval_upper(network: networks.Network, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """An upper bound on every output by intervals: ``M c + b + |M| r``, ReLU by ReLU."""
    shape = network.input_shape
    low, high = (torch.from_numpy(side).reshape(1, *shape) for side in (lower, upper))
    bounds = [(low, high)]
    for node in network.nodes[1:]:
        parts = [bounds[source] for source in node.inputs]
        if isinstance(node.operator, networks.Relu):
            bounds.append((parts[0][0].clamp(min=0), parts[0][1].clamp(min=0)))
            continue
        centre = node.operator.forward(*((low + high) / 2 for low, high in parts))
        radius = node.operator.absolute(*((high - low) / 2 for low, high in parts))
        bounds.append((centre - radius, centre + radius))
    return bounds[-1][1].reshape(-1).numpy()


@pytest.mark.parametrize("build", [networks.residual, networks.convolutional])
@pytest.mark.parametrize("seed", SEEDS)
def test_finds_what_sampling_finds(build: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = build(rng)
    lower, upper = networks.box(rng, network.n_inputs)
    points = torch.from_numpy(lower + (upper - lower) * rng.random((2000, len(lower))))
    smallest = float(network.forward(points)[:, 0].min())
    assert run(query(network, disjunct(lower, upper, [1.0, 0.0], [smallest])), seed=seed).witness is not None


def test_counterexamples_just_below_zero_hold_in_onnxruntime() -> None:
    # A region of 2e-4 widths: the steps of the batched descent end at a hundred times that.
    centre = np.array([0.3, 0.6, 0.45])
    asked = query(distance(centre), disjunct(np.zeros(3), np.ones(3), [1.0], [2e-4]))
    assert run(asked, waves=6).witness is not None


def test_same_seed_same_points() -> None:
    asked = query(distance([0.3, 0.6, 0.9]), *(disjunct([0.0] * 3, [side] * 3, [1.0], [-1.0]) for side in (1, 2, 3)))
    first, second, other = run(asked, seed=3), run(asked, seed=3), run(asked, seed=4)
    assert (first.points == second.points).all()
    assert (first.margins == second.margins).all()
    assert not (first.points == other.points).all()


def test_small_pieces_cover_all_disjuncts() -> None:
    boxes = [disjunct([i], [i + 0.5], [1.0], [0.01]) for i in range(20)]
    outcome = run(query(distance([100.0]), *boxes), memory=1)
    np.testing.assert_allclose(outcome.margins, 100 - np.arange(20) - 0.5 - 0.01, atol=1e-4)


def test_an_expired_deadline_costs_nothing() -> None:
    asked = query(distance([0.5]), disjunct([0.0], [1.0], [1.0], [0.1]))
    outcome = attack(asked, Deadline.after(0), AttackOptions())
    assert outcome.witness is None
    assert (outcome.points == 0.5).all()
    assert np.isinf(outcome.margins).all()


def test_the_deadline_ends_a_long_attack() -> None:
    asked = query(distance([0.5] * 50), disjunct(np.zeros(50), np.ones(50), [1.0], [-1.0]))
    begun = time.monotonic()
    outcome = attack(asked, Deadline.after(0.2), AttackOptions(waves=100_000))
    assert outcome.witness is None
    assert time.monotonic() - begun < 2.0


def test_progress_is_told() -> None:
    told: list[Event] = []
    asked = query(distance([0.5]), disjunct([0.0], [1.0], [1.0], [-1.0]))
    attack(asked, Deadline.never(), AttackOptions(), told.append)
    assert {event.stage for event in told} == {"attack"}
    assert told[-1].upper == pytest.approx(1.0, abs=1e-3)


def test_no_disjuncts_no_work() -> None:
    outcome = run(query(distance([0.5, 0.5])))
    assert outcome.witness is None
    assert outcome.points.shape == (0, 2)


def test_an_output_that_does_not_move_is_no_trouble() -> None:
    flat = query(weighted_sum([0.0, 0.0]), disjunct([0.0, 0.0], [1.0, 1.0], [1.0], [-1.0]))
    assert run(flat).witness is None
