"""Presolve and the relaxation against all levels of tiny networks, whose gates repeat and oppose each other."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from support.binarised_models import Writer, constraints
from verifier.binarised import pipeline
from verifier.binarised.neighbourhoods import Neighbourhoods
from verifier.binarised.presolve import presolve
from verifier.binarised.query import Box
from verifier.binarised.read import load_binarised
from verifier.binarised.relaxation import goal_bounds
from verifier.deadline import Deadline
from verifier.verdict import EvidenceLevel, Verdict
from verifier.vnnlib.spec import Disjunct, Spec


def network(rng: np.random.Generator) -> bytes:
    """Two layers of signs with columns that are repeated, negated, and repeated with other thresholds."""
    w = Writer()
    value, width = w.add("Round", w.add("Div", "x", w.constant(0.1))), 4
    for size in (6, 5):
        weights = rng.choice((-1, 1), (width, size))
        twice = rng.integers(0, size, 3)
        weights = np.hstack([weights, weights[:, twice] * rng.choice((-1, 1), 3)])
        half = rng.integers(-3, 4, size + 3) + 0.5
        value = w.add("Sign", w.add("Sub", w.add("MatMul", value, w.constant(weights)), w.constant(half)))
        width = size + 3
    sums = w.add("MatMul", value, w.constant(rng.choice((-1, 1), (width, 4))))
    return w.model(4, w.add("Add", sums, w.constant(rng.integers(-2, 3, 4))), 4)


def property_of(rng: np.random.Generator, label: int) -> Spec:
    """Comparisons with the other classes, or two rows for each of them."""
    lower = rng.integers(0, 3, 4) * 0.1
    rows = 1 + int(rng.random() < 0.4)
    disjuncts = []
    for other in set(range(4)) - {label}:
        outputs = np.zeros((rows, 4))
        outputs[:, label], outputs[0, other] = 1.0, -1.0
        if rows == 2:
            outputs[1, (other + 1) % 4 if (other + 1) % 4 != label else other] -= 1.0
        disjuncts.append(Disjunct(lower, lower + 0.2, constraints(4, outputs, np.zeros(rows), np.zeros(rows, bool))))
    return Spec(4, 4, tuple(disjuncts[: int(rng.integers(1, 4))]))


def slacks(box: Box, points: np.ndarray) -> np.ndarray:
    """(points, goals), by the network's own layers."""
    before = points
    for layer in box.layers:
        before = layer(before)
    return np.stack([(before @ g.weights.toarray().T - g.thresholds).min(axis=1) for g in box.goals], axis=1)


@pytest.mark.parametrize("block", range(4))
def test_programs_have_the_boxes_solutions(block: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    smaller, closed, tight = 0, 0, 0
    for seed in range(30 * block, 30 * (block + 1)):
        rng = np.random.default_rng(seed)
        path.write_bytes(network(rng))
        model, reason = load_binarised(path)
        assert model is not None, reason
        spec = property_of(rng, int(model.replay.run(np.full(4, 0.2)).argmax()))
        (box,) = pipeline.prepare(model, spec).boxes
        points = np.array(list(itertools.product(*(range(count + 1) for count in box.levels.count.tolist()))))
        true = slacks(box, points)
        reduced = presolve(box)
        assert np.all(reduced.bounds >= true.max(axis=0)), f"seed {seed}"
        if reduced.program is None:
            assert not np.any(true >= 0), f"seed {seed}"
            continue
        levels = np.stack([reduced.levels(k) for k in points])
        assert np.array_equal(reduced.program.holds(levels), np.any(true >= 0, axis=1)), f"seed {seed}"
        back = np.stack([reduced.point(k, box.levels.count) for k in levels])
        assert np.array_equal(slacks(box, back), true), f"seed {seed}"
        smaller += sum(map(len, reduced.program.layers[: reduced.hidden])) < sum(map(len, box.layers))
        bounds, near = goal_bounds(reduced, Deadline.after(20))
        goals = list(reduced.goals)
        assert np.all(bounds >= true.max(axis=0)[goals]), f"seed {seed}"
        assert np.all(bounds <= reduced.bounds[goals])
        assert all(np.all((k >= 0) & (k <= reduced.program.counts)) for k in near)
        tight += int(np.count_nonzero(bounds < reduced.bounds[goals]))
        closed += int(np.count_nonzero(bounds < 0))
        result = pipeline.solve(pipeline.prepare(model, spec), Deadline.after(20))
        assert result.verdict is (Verdict.SAT if np.any(true >= 0) else Verdict.UNSAT), f"seed {seed}"
        for bound, slack in zip(result.bounds, true.max(axis=0).tolist(), strict=True):
            if bound.level is not EvidenceLevel.RIGOROUS:
                assert bound.lower <= -slack <= bound.upper, f"seed {seed}"
    assert min(smaller, tight, closed) > 3


def test_what_stays_open_says_how_far(tmp_path: Path) -> None:
    """No time for an answer: every disjunct that is open has bounds on both sides."""
    rng = np.random.default_rng(7)
    w = Writer()
    value, width = w.add("Round", w.add("Div", "x", w.constant(0.1))), 60
    for size in (80, 80):
        sums = w.add("MatMul", value, w.constant(rng.choice((-1, 1), (width, size))))
        value, width = w.add("Sign", w.add("Sub", sums, w.constant(rng.integers(-5, 5, size) + 0.5))), size
    path = tmp_path / "dense.onnx"
    path.write_bytes(w.model(60, w.add("MatMul", value, w.constant(rng.choice((-1, 1), (80, 3)))), 3))
    model, reason = load_binarised(path)
    assert model is not None, reason
    x = rng.random(60).round(1)
    outputs = model.replay.run(x)
    label = int(outputs.argmax())
    lower, upper = np.maximum(x - 0.1, 0), np.minimum(x + 0.1, 1)
    disjuncts = []
    for other in set(range(3)) - {label}:
        row = np.zeros((1, 3))
        row[0, label], row[0, other] = 1.0, -1.0
        disjuncts.append(Disjunct(lower, upper, constraints(60, row, np.full(1, -70.0), np.zeros(1, bool))))
    result = pipeline.solve(pipeline.prepare(model, Spec(60, 3, tuple(disjuncts))), Deadline.after(4))
    still = [bound for bound in result.bounds if bound.level is None]
    assert result.verdict is Verdict.TIMEOUT
    assert still
    assert all(np.isfinite([bound.lower, bound.upper]).all() and bound.lower <= bound.upper for bound in still)


def test_neighbourhoods_are_parts_of_the_box(tmp_path: Path) -> None:
    """Their programs have the points that agree with the fixed levels and come half as far from the goal or nearer."""
    path = tmp_path / "model.onnx"
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        path.write_bytes(network(rng))
        model, reason = load_binarised(path)
        assert model is not None, reason
        spec = property_of(rng, int(model.replay.run(np.full(4, 0.2)).argmax()))
        (box,) = pipeline.prepare(model, spec).boxes
        points = np.array(list(itertools.product(*(range(count + 1) for count in box.levels.count.tolist()))))
        true = slacks(box, points)
        searches = Neighbourhoods(box, seed)
        for goal in range(len(box.goals)):
            at = int(rng.integers(len(points)))
            slack = int(true[at, goal])
            near = searches.draw(goal, points[at], slack)
            inside = np.all((near.counts > 0) | (points == near.fixed), axis=1)
            wanted = inside & (true[:, goal] >= -(max(0, -slack) // 2))
            if near.reduced.program is None:
                assert not np.any(wanted), f"seed {seed}"
                continue
            levels = np.stack([near.hint(k) for k in points[inside]])
            assert np.array_equal(near.reduced.program.holds(levels), wanted[inside]), f"seed {seed}"
            back = np.stack([near.point(k) for k in levels])
            assert np.array_equal(slacks(box, back)[:, goal], true[inside, goal]), f"seed {seed}"
            found += int(np.count_nonzero(wanted))
    assert found > 100
