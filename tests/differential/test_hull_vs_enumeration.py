"""Hull planes against sampled inputs, and the searches with them against enumeration of activation patterns."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from support import networks
from support.oracle import minimum_distance, minimum_margin
from support.replay import TorchReplay
from verifier.bounds.crown import intermediate_bounds
from verifier.deadline import Deadline
from verifier.encodings.milp.triangle import triangle_program
from verifier.model.network import Network, Node
from verifier.model.read import Model
from verifier.radius import balls
from verifier.radius.balls import decide_balls
from verifier.radius.fab import FabOptions, fab
from verifier.radius.incumbent import Incumbent
from verifier.radius.question import question
from verifier.radius.record import Record
from verifier.search.hull_ascent import Cost, HullAscent, Multipliers, Task
from verifier.search.hull_layout import layout_of
from verifier.search.hull_split import HullOptions, HullSplitting
from verifier.search.lanes import DOUBLES, LANES
from verifier.vnnlib.spec import Disjunct, LinearConstraints


def thresholding(rng: np.random.Generator) -> Network:
    """A dense network whose first neurons read one input each, but for a little of the others."""
    network = networks.dense(rng, (3, 6, 5, 2))
    first = network.nodes[1].operator
    strong = torch.zeros_like(first.weight)
    strong[torch.arange(6), torch.arange(6) % 3] = torch.from_numpy(rng.choice([-1.0, 1.0], 6))
    weight = strong + 0.02 * first.weight
    operator = type(first)(weight, 0.3 * first.bias)
    nodes = list(network.nodes)
    nodes[1] = Node(operator, nodes[1].inputs, nodes[1].shape)
    return Network(tuple(nodes))


def cases(seed: int) -> tuple[Network, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    make = (thresholding, lambda r: networks.dense(r, (3, 6, 5, 2)), networks.small_convolutional, networks.residual)
    network = make[seed % 4](rng)
    lower, upper = networks.box(rng, network.n_inputs, 0.6)
    return network, lower, upper


def program_of(network: Network, lower: np.ndarray, upper: np.ndarray):
    nodes = intermediate_bounds(network, torch.from_numpy(lower)[None], torch.from_numpy(upper)[None])
    return triangle_program(network, lower, upper, nodes)


def columns_at(network: Network, program, x: np.ndarray) -> np.ndarray:
    """The true values of all columns at inputs (K, n): (K, columns)."""
    found = np.zeros((len(x), program.terms.count))
    found[:, : x.shape[1]] = x
    neurons = program.neurons
    for i in range(len(neurons)):  # a neuron reads older columns only
        pre = found @ neurons.pre.matrix[[i], : program.terms.count].toarray()[0] + neurons.pre.constant[i]
        found[:, neurons.column[i]] = np.maximum(pre, 0)
    return found


@pytest.mark.parametrize("seed", range(24))
def test_rows_and_planes_hold_at_every_input(seed):
    network, lower, upper = cases(seed)
    program = program_of(network, lower, upper)
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 2, (2000, len(lower)))
    inside = rng.uniform(0, 1, (2000, len(lower)))
    x = lower + np.vstack([corners, inside]) * (upper - lower)
    truth = columns_at(network, program, x)
    y = network.forward(torch.from_numpy(x)).numpy()
    assert np.allclose(truth @ program.output.matrix[:, : truth.shape[1]].toarray().T + program.output.constant, y)
    model = program.model
    values = truth @ model.rows.toarray().T
    assert (values <= model.row_upper + model.row_error + 1e-12).all()
    assert (values >= model.row_lower - model.row_error - 1e-12).all()
    assert (truth >= model.lower - 1e-12).all()
    assert (truth <= model.upper + 1e-12).all()
    hull, layout = HullAscent(program), layout_of(program)
    for _ in range(4):
        share = rng.choice([0.0, 1.0, 0.5], len(layout.least)) * rng.uniform(0, 1, len(layout.least))
        rows, sides = planes(hull, layout, share.astype(np.float32))
        above = sides - truth @ rows.T
        assert (above[:, layout.hull] >= -1e-6).all()


def planes(hull: HullAscent, layout, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``rows @ columns <= sides`` for all neurons whose planes have a slope per term, up to float32 rounding.

    The proof of a row that is a neuron's value, negative, says what its plane's constant is.
    """
    n, m = layout.n, layout.m
    rows, sides, workspace = np.zeros((m, n + m)), np.zeros(m), hull.workspace()
    signs, start = np.zeros(m, np.int8), replace(hull.start(), share=share)
    costs = [Cost(-np.eye(n + m)[n + j], 0.0, 0.0) for j in range(m)]
    proved = hull.prove([Task(cost, signs, start) for cost in costs], [start] * m, workspace)
    for j, (_, exact) in enumerate(proved):
        rows[j, n + j] = 1.0
        above, rest = layout.most[j], 0.0
        for t in range(layout.terms[j], layout.terms[j + 1]):
            own = slice(layout.entries[t], layout.entries[t + 1])
            rows[j, layout.columns[own]] -= share[t] * layout.weights[own]
            above, rest = above - share[t] * layout.width[t], rest + share[t] * layout.least[t]
        sides[j] = max(0.0, above) - rest + exact.extra[j]
    return rows, sides


def arbitrary(hull: HullAscent, rng: np.random.Generator) -> Multipliers:
    """Any multipliers prove something."""
    start = hull.start()
    return Multipliers(
        rng.uniform(0, 1, len(start.alpha)).astype(np.float32),
        rng.exponential(0.3, len(start.beta)).astype(np.float32),
        rng.choice([0.0, 0.3, 1.0], len(start.share)).astype(np.float32),
        rng.normal(0, 1, len(start.extra)).astype(np.float32),
    )


def row_and_least(network: Network, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, float]:
    n_outputs = network.n_outputs
    row = np.eye(n_outputs)[0] - (np.eye(n_outputs)[1] if n_outputs > 1 else 0)
    free = LinearConstraints(np.zeros((1, len(lower))), row[None], np.zeros(1), np.zeros(1, bool))
    return row, minimum_margin(network, Disjunct(lower, upper, free))[0]


@pytest.mark.parametrize("seed", range(40))
def test_what_is_proved_holds_in_every_region(seed):
    """Arbitrary and ascended multipliers against the least value at points with the region's signs."""
    network, lower, upper = cases(seed)
    program = program_of(network, lower, upper)
    hull = HullAscent(program)
    rng = np.random.default_rng(seed)
    row, least = row_and_least(network, lower, upper)
    cost = hull.output(row)
    m = len(program.neurons)
    whole = Task(cost, np.zeros(m, np.int8), hull.start())
    workspace = hull.workspace()
    found = hull.ascend([whole], workspace, 200)[0]
    [(proved, exact), (least_proved, _)] = hull.prove([whole] * 2, [found.multipliers, hull.start()], workspace)
    assert proved <= least + 1e-7
    assert proved >= least_proved - 1e-3
    # With the constants as they are the ascent's bound is what is proved, but for float32.
    again = hull.ascend([replace(whole, start=exact)], workspace, 0)[0]
    assert again.bound == pytest.approx(proved, abs=1e-3)
    x = lower + rng.uniform(0, 1, (4000, len(lower))) * (upper - lower)
    values = network.forward(torch.from_numpy(x)).numpy() @ row
    truth = columns_at(network, program, x)
    pre = truth @ program.neurons.pre.matrix[:, : truth.shape[1]].toarray().T + program.neurons.pre.constant
    signs = rng.choice([-1, 0, 0, 1], (DOUBLES + 3, m)).astype(np.int8)
    there = [values[((pre * some) >= 0).all(1)].min(initial=np.inf) for some in signs]
    tasks = [Task(cost, some, hull.start()) for some in signs]
    ascended = [one.multipliers for one in hull.ascend(tasks, workspace, 20)]
    beyond = [
        replace(one, alpha=3 * one.alpha - 1, beta=one.beta - 1, share=3 * one.share - 1)
        for one in (arbitrary(hull, rng) for _ in tasks)
    ]
    broken = [replace(one, share=np.full_like(one.share, np.nan)) for one in beyond]
    for chosen in ([arbitrary(hull, rng) for _ in tasks], ascended, beyond, broken):
        proofs = hull.prove(tasks, chosen, workspace)
        assert all(bound <= true for (bound, _), true in zip(proofs, there, strict=True))
        # Every lane stands for itself.
        alone = hull.prove(tasks[-1:], chosen[-1:], workspace)[0]
        assert alone[0] == proofs[-1][0]
        assert np.array_equal(alone[1].extra, proofs[-1][1].extra)


def test_planes_above_neurons_of_one_input_hold():
    """At sampled inputs and at all corners; each of the two is exact at one end of the input."""
    pairs = 0
    for seed in range(0, 96, 4):
        network, lower, upper = cases(seed)
        program = program_of(network, lower, upper)
        layout = layout_of(program)
        corners = np.array(list(product((0, 1), repeat=len(lower))), float)
        inside = np.random.default_rng(seed).uniform(0, 1, (3000, len(lower)))
        x = lower + np.vstack([corners, inside]) * (upper - lower)
        truth = columns_at(network, program, x)
        for j in np.flatnonzero(layout.own >= 0):
            row = program.neurons.pre.matrix[[j], : truth.shape[1]].toarray()[0]
            z = truth @ row + program.neurons.pre.constant[j]
            own = layout.own[j]
            active = (layout.weight[j] > 0) == (corners[:, own] > 0)
            for k in range(2):
                plane = layout.lines[k, j] * z + layout.slants[k, j] * x[:, own] + layout.lifts[k, j]
                above = plane - np.maximum(z, 0)
                assert (above >= 0).all()
                if layout.lines[0, j] != layout.lines[1, j]:
                    pairs += 1
                    # The second plane follows the remainder at its greatest, so only its own end is exact.
                    exact = above[: len(corners)][active == (k == 0)]
                    assert exact == pytest.approx(0, abs=1e-12)
    assert pairs > 40


@pytest.mark.parametrize("seed", range(12))
def test_every_lane_of_an_ascent_stands_for_itself(seed):
    """The same tasks in other lanes and in other company; lanes at their goals stay as they are."""
    network, lower, upper = cases(seed)
    hull = HullAscent(program_of(network, lower, upper))
    rng = np.random.default_rng(seed)
    row, _ = row_and_least(network, lower, upper)
    m = len(hull.program.neurons)
    tasks = [
        Task(hull.output(sign * row), rng.choice([-1, 0, 0, 0, 1], m).astype(np.int8), hull.start())
        for sign in rng.choice([1.0, -1.0], LANES)
    ]
    workspace = hull.workspace()
    together = hull.ascend(tasks, workspace, 40)
    for k in rng.choice(LANES, 4, replace=False):
        alone = hull.ascend([tasks[k]], workspace, 40)[0]
        assert alone.bound == pytest.approx(together[k].bound, abs=1e-3)
    stopped = hull.ascend([replace(task, goal=-1e9) for task in tasks], workspace, 40)
    assert all(np.array_equal(s.multipliers.share, t.start.share) for s, t in zip(stopped, tasks, strict=True))


@pytest.mark.parametrize("dead", [[4], [0, 2, 4], [0, 1, 2, 3, 4]])
def test_neurons_that_read_nothing_touch_no_memory_but_their_own(dead):
    """Pruned neurons, whose inputs are 0 but for rounding: undecided, without a single term."""
    network = networks.dense(np.random.default_rng(1), (3, 6, 5, 2))
    nodes = list(network.nodes)
    weight, bias = nodes[3].operator.weight.clone(), nodes[3].operator.bias.clone()
    weight[dead], bias[dead] = 0.0, 0.0
    nodes[3] = Node(type(nodes[3].operator)(weight, bias), nodes[3].inputs, nodes[3].shape)
    network = Network(tuple(nodes))
    hull = HullAscent(program_of(network, np.full(3, -2.0), np.full(3, 2.0)))
    layout = layout_of(hull.program)
    assert (np.diff(layout.terms) == 0).sum() == len(dead)
    workspace = hull.workspace()
    guarded = np.zeros((layout.most_parts + 2, LANES), np.float32)
    workspace = replace(workspace, work=workspace.work._replace(parts=guarded[: layout.most_parts]))
    for row in np.eye(2):
        hull.ascend(
            [Task(hull.output(sign * row), np.zeros(layout.m, np.int8), hull.start()) for sign in (1.0, -1.0)],
            workspace,
            5,
        )
        assert not guarded[layout.most_parts :].any()


@pytest.mark.parametrize("seed", range(24))
def test_sharper_bounds_of_neurons_hold(seed):
    network, lower, upper = cases(seed)
    program = program_of(network, lower, upper)
    hull, signs = HullAscent(program).sharper(Deadline.after(30), 30)
    x = lower + np.random.default_rng(seed).uniform(0, 1, (4000, len(lower))) * (upper - lower)
    truth = columns_at(network, program, x)
    neurons = hull.program.neurons
    pre = truth @ neurons.pre.matrix[:, : truth.shape[1]].toarray().T + neurons.pre.constant
    assert (pre[:, signs > 0] >= -1e-9).all()
    assert (pre[:, signs < 0] <= 1e-9).all()
    left = signs == 0
    assert (pre[:, left] >= neurons.lower[left] - 1e-9).all()
    assert (pre[:, left] <= neurons.upper[left] + 1e-9).all()
    model = hull.program.model
    values = truth @ model.rows.toarray().T
    kept = np.tile(left, 2)
    assert (values <= model.row_upper + model.row_error + 1e-12)[:, kept].all()


@pytest.mark.parametrize("seed", range(40))
def test_splitting_with_hull_planes_agrees_with_enumeration(seed):
    network, lower, upper = cases(seed)
    row, least = row_and_least(network, lower, upper)
    program = program_of(network, lower, upper)
    # Shift the output so that the least margin is just above, and just below, zero.
    for shift in (1e-3, -1e-3):
        hull = HullAscent(program_with_margin(program, row, shift - least))
        sharper, signs = hull.sharper(Deadline.after(30), 20)
        for chosen, known in ((hull, np.zeros(len(signs), np.int8)), (sharper, signs)):
            search = HullSplitting(chosen, row[None, None], known, lambda x: None)
            assert search.work(Deadline.after(30)) == (shift > 0)
            assert search.roots[0, 0] <= shift + 1e-7
            options = HullOptions(threads=3)
            several = HullSplitting(chosen, row[None, None], known, lambda x: None, None, options)
            assert several.work(Deadline.after(30)) == (shift > 0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_what_an_interruption_leaves_unsettled_is_still_open(seed, threads):
    network, lower, upper = cases(seed)
    row, least = row_and_least(network, lower, upper)
    calls = 0

    def offer(points):
        nonlocal calls
        calls += 1
        if calls % 2:
            raise KeyboardInterrupt

    for shift in (1e-3, -1e-3):
        hull = HullAscent(program_with_margin(program_of(network, lower, upper), row, shift - least))
        known, options = np.zeros(len(hull.program.neurons), np.int8), HullOptions(threads=threads)
        search = HullSplitting(hull, row[None, None], known, offer, None, options)
        for _ in range(10_000):
            try:
                assert search.work(Deadline.after(30)) == (shift > 0)
                break
            except KeyboardInterrupt:
                assert not search.closed
                assert search.leaves
        else:
            pytest.fail("every round was interrupted")


@pytest.mark.parametrize("seed", range(24))
def test_what_is_left_open_is_all_that_a_smaller_box_needs(seed):
    """Whenever the search is stopped: what is open in the whole box decides every smaller one rightly."""
    network, lower, upper = cases(seed)
    row, least = row_and_least(network, lower, upper)
    x = np.random.default_rng(seed).uniform(0, 1, (4000, len(lower)))
    program = program_with_margin(program_of(network, lower, upper), row, -least - 1e-3)
    whole = HullSplitting(HullAscent(program), row[None, None], np.zeros(len(program.neurons), np.int8), lambda x: None)
    for _ in range(6):
        assert not whole.work(Deadline.after(30), lambda: True)
        assert whole.remaining > 0
        for scale in (1.0, 0.6, 0.2):
            middle, half = (lower + upper) / 2, scale * (upper - lower) / 2
            part = program_with_margin(program_of(network, middle - half, middle + half), row, -least - 1e-3)
            known = np.zeros(len(part.neurons), np.int8)
            rest = HullSplitting(HullAscent(part), row[None, None], known, lambda x: None, whole.leaves)
            values = network.forward(torch.from_numpy(middle - half + 2 * half * x)).numpy() @ row - least - 1e-3
            free = LinearConstraints(np.zeros((1, len(lower))), row[None], np.zeros(1), np.zeros(1, bool))
            smallest = minimum_margin(network, Disjunct(middle - half, middle + half, free))[0] - least - 1e-3
            assert smallest <= values.min() + 1e-9
            assert rest.work(Deadline.after(30)) == (smallest > 0)
        if whole.stuck:
            break


def program_with_margin(program, row: np.ndarray, shift: float):
    """The same program with ``row`` of the output larger by ``shift``."""
    constant = program.output.constant + shift * row / (row @ row)
    return replace(program, output=replace(program.output, constant=constant))


@pytest.mark.parametrize("seed", range(1, 12))
def test_balls_decided_with_hull_planes_close_in_on_the_distance(seed):
    network, lower, upper = cases(seed)
    if network.n_outputs < 2:
        pytest.skip("one output has no classes")
    close_in(network, (lower + upper) / 2, None, seed)


@pytest.mark.parametrize("seed", range(6))
def test_balls_close_in_on_the_distance_to_one_class_of_three(seed):
    """A counterexample has to beat both other classes at once."""
    rng = np.random.default_rng(seed)
    network = networks.dense(rng, (3, 6, 5, 3))
    x = rng.uniform(-1, 1, 3)
    label = int(network.forward(torch.from_numpy(x)[None]).argmax())
    close_in(network, x, (label + 1 + seed % 2) % 3, seed)


@pytest.mark.parametrize("seed", range(6))
def test_dead_ends_are_tried_when_the_time_for_attacks_is_used_up(seed, monkeypatch):
    monkeypatch.setattr(balls, "OFFER_SHARE", -1e9)
    test_balls_close_in_on_the_distance_to_one_class_of_three(seed)


def close_in(network: Network, x: np.ndarray, target: int | None, seed: int) -> None:
    """Without any other engine: from what an attack finds to the distance that enumeration finds."""
    x = x.astype(np.float32).astype(np.float64)
    model = Model(network, TorchReplay(network), Path("model.onnx"), "")
    asked = question(model, x, target=target, bounds=(-4.0, 4.0))
    rows = asked.rows.outputs[0].numpy()
    constraints = LinearConstraints(np.zeros((len(rows), len(x))), rows, np.zeros(len(rows)), np.zeros(len(rows), bool))
    assert len(asked.targets) == 1
    whole = Disjunct(np.full(len(x), -4.0), np.full(len(x), 4.0), constraints)
    true = minimum_distance(network, whole, x, "linf", np.ones(len(x)))
    record = Record(Incumbent(asked))
    generator = torch.Generator().manual_seed(seed)
    points = np.random.default_rng(seed).uniform(-4, 4, (2000, len(x)))
    margins = asked.margin(network.forward(torch.from_numpy(points)).numpy())
    record.incumbent.offer(points[margins <= 0])
    fab(asked, record.incumbent, Deadline.after(10), FabOptions(), generator)
    record.see("attack")
    assert np.isfinite(record.adversarial) == np.isfinite(true)
    if np.isinf(true):
        return

    def enough() -> bool:
        return record.adversarial - record.certified < 1e-3

    decide_balls(asked, record, Deadline.after(60), 1e-3, generator, enough)
    assert record.certified <= true + 1e-6
    assert true <= record.adversarial + 1e-6
    assert enough()
