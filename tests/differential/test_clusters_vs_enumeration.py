"""Targets closed by clusters against enumeration of levels, and against sampled real inputs."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from onnx import TensorProto, helper

from support.binarised_models import Writer, constraints
from verifier.binarised import pipeline
from verifier.binarised.clusters import ClusterOptions, close_targets, targets_of
from verifier.binarised.read import load_binarised
from verifier.deadline import Deadline
from verifier.encodings.sat.program import Program, Rows
from verifier.verdict import Verdict
from verifier.vnnlib.robustness import robustness
from verifier.vnnlib.spec import Disjunct, Spec


def local_program(seed: int) -> Program:
    """Two layers of windows, three targets over the second: what convolutions look like."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 3, 7)
    first, second = np.zeros((10, 7), np.int64), np.zeros((12, 10), np.int64)
    for gate in range(10):
        start = gate // 2
        first[gate, start : start + 3] = rng.choice((-1, 1), 3)
    for gate in range(12):
        start = 2 * (gate // 3)
        second[gate, start : start + 4] = rng.choice((-1, 1), 4)
    low, high = np.minimum(first, 0) @ counts, np.maximum(first, 0) @ counts
    targets = rng.choice((-1, 1), (3, 12))
    layers = (
        Rows(sp.csr_array(first), rng.integers(low + 1, high + 1)),
        Rows(sp.csr_array(second), rng.integers(-1, 2, 12)),
        Rows(sp.csr_array(targets), rng.integers(2, 6, 3)),
    )
    return Program(counts, layers, Rows(sp.csr_array(np.ones((1, 3), np.int64)), np.ones(1, np.int64)))


@pytest.mark.parametrize("options", [ClusterOptions(), ClusterOptions(most=4), ClusterOptions(most=4, programs=0)])
def test_closed_targets_are_impossible(options: ClusterOptions) -> None:
    closed, impossible = 0, 0
    for seed in range(40):
        program = local_program(seed)
        points = np.array(list(itertools.product(*(range(count + 1) for count in program.counts.tolist()))))
        possible = program.bits(points)[-1].any(axis=0)
        found = close_targets(program, Deadline.after(20), None, options)
        assert not np.any(found & possible), f"seed {seed}"
        real = close_targets(program, Deadline.after(20), 0.01, options)
        assert not np.any(real & possible), f"seed {seed}"
        assert not np.any(real & ~found), "real inputs reach at least what integer ones reach"
        closed += int(found.sum())
        impossible += int((~possible).sum())
    assert closed > 0.5 * impossible, "most impossible targets are closed, or this says nothing"


def test_other_shapes_are_no_targets() -> None:
    program = local_program(0)
    assert targets_of(program) is program.layers[2]
    assert targets_of(Program(program.counts, program.layers[:1], program.asserted)) is None


def real_network(seed: int) -> bytes:
    """A convolution on real pixels, the sign that sends 0 up, another convolution, scores."""
    rng = np.random.default_rng(seed)
    w = Writer()
    value = w.add("Conv", "x", w.constant(rng.choice((-1, 1), (3, 1, 2, 2))))
    value = w.add("Sign", w.add("Add", w.add("Sign", value), w.constant(0.1)))
    value = w.add("Conv", value, w.constant(rng.choice((-1, 1), (3, 3, 2, 2))))
    value = w.add("Flatten", w.add("Sign", w.add("Add", w.add("Sign", value), w.constant(0.1))))
    output = w.add("MatMul", value, w.constant(rng.choice((-1, 1), (12, 3))))
    graph = helper.make_graph(
        w.nodes,
        "real",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 3])],
        w.constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def tiny_real_network(rng: np.random.Generator) -> bytes:
    """Two real inputs, thresholds between integers and on them, biases; three scores of few bits."""
    w = Writer()
    wide = int(rng.integers(2, 5))
    weights = rng.choice((-2, -1, 1, 2, 3), (2, wide))
    bias = w.constant(rng.choice((0.0, 0.5, -1.25, 3.0), wide))
    sums = (
        w.add("Gemm", "x", w.constant(weights), bias)
        if rng.random() < 0.5
        else w.add("MatMul", "x", w.constant(weights))
    )
    step = rng.choice(("Greater", "LessOrEqual", "GreaterOrEqual"))
    value = w.add("Cast", w.add(str(step), sums, w.constant(rng.integers(-4, 8, wide) / 2)), to=TensorProto.FLOAT)
    if step == "LessOrEqual":
        value = w.add("Neg", value)
    value = w.add("MatMul", value, w.constant(rng.choice((-1, 1), (wide, 3))))
    value = w.add("Cast", w.add("Greater", value, w.constant(rng.integers(-2, 3, 3) + 0.5)), to=TensorProto.FLOAT)
    return w.model(2, w.add("MatMul", value, w.constant(rng.choice((-1, 1), (3, 3)))), 3)


def test_what_holds_between_integer_pixels_only_is_not_denied(tmp_path: Path) -> None:
    """A threshold of 0.5, or "more than 0", is reached where no integer pixel reaches it."""
    path = tmp_path / "real.onnx"
    between, unsat = 0, 0
    offsets = np.array([0.0, 1e-6, 0.25, 0.5, 0.75, 1 - 1e-6])
    for seed in range(300):
        rng = np.random.default_rng(seed)
        path.write_bytes(tiny_real_network(rng))
        model, reason = load_binarised(path)
        if model is None:
            assert "constant" in reason or "rising" in reason, reason
            continue
        lower = rng.integers(-1, 2, 2).astype(np.float64)
        upper = lower + rng.integers(1, 3, 2)
        inner = (offsets[:, None] + np.arange(3)).ravel()
        axes = [np.unique(np.clip(low + inner, low, high)) for low, high in zip(lower, upper, strict=True)]
        points = np.array(list(itertools.product(*axes))).astype(np.float32).astype(np.float64)
        label = int(model.replay.run(lower).argmax())
        rows = np.zeros((1, 3))
        rows[0, label], rows[0, (label + 1) % 3] = 1.0, -1.0
        spec = Spec(2, 3, (Disjunct(lower, upper, constraints(2, rows, np.full(1, -0.5), np.zeros(1, bool))),))
        outputs = model.replay.run_batch(points)
        holds = np.array([spec.holds_exactly(x, y) for x, y in zip(points, outputs, strict=True)])
        if holds[np.all(points == np.rint(points), axis=1)].any():
            continue  # the attack finds these
        result = pipeline.solve(pipeline.prepare(model, spec), Deadline.after(0.3))
        assert not (holds.any() and result.verdict is Verdict.UNSAT), f"seed {seed}: {result}"
        between += holds.any()
        unsat += result.verdict is Verdict.UNSAT
    assert between > 1
    assert unsat > 10


def test_real_inputs_never_contradict_samples(tmp_path: Path) -> None:
    seen = {Verdict.SAT: 0, Verdict.UNSAT: 0, Verdict.UNKNOWN: 0, Verdict.TIMEOUT: 0}
    path = tmp_path / "real.onnx"
    for seed in range(25):
        path.write_bytes(real_network(seed))
        model, reason = load_binarised(path)
        assert model is not None, reason
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 255, 16).astype(np.float64)
        label = int(model.replay.run(x).argmax())
        spec = robustness(
            x, epsilon=float(rng.choice((4.0, 15.0, 40.0))), label=label, n_outputs=3, bounds=(0.0, 255.0)
        )
        result = pipeline.solve(pipeline.prepare(model, spec), Deadline.after(2))
        seen[result.verdict] += 1
        if result.verdict is Verdict.UNSAT:
            lower, upper = spec.disjuncts[0].lower, spec.disjuncts[0].upper
            for _ in range(300):
                # Corners and inner points: corners reach the extremes of every sum.
                corner = rng.random(16) if rng.random() < 0.5 else rng.integers(0, 2, 16)
                point = (lower + corner * (upper - lower)).astype(np.float32).astype(np.float64)
                point = np.clip(point, lower, upper)
                assert not spec.holds_exactly(point, model.replay.run(point)), f"seed {seed}"
    assert seen[Verdict.SAT] > 3
    assert seen[Verdict.UNSAT] > 3
