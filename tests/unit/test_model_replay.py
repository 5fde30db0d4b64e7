"""Running the model in onnxruntime, and rounding points into a box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from support.onnx_models import f32, make, node
from verifier.errors import ModelError
from verifier.model.replay import OnnxReplay, nearest_inside

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def linear(shape: tuple, dtype: int = TensorProto.FLOAT, n_out: int = 3) -> OnnxReplay:
    rng = np.random.default_rng(0)
    width = shape[-1]
    weights = {"w": rng.normal(size=(width, n_out)).astype(np.float64 if dtype == TensorProto.DOUBLE else np.float32)}
    return OnnxReplay(make([node("MatMul", ["x", "w"])], shape, weights, dtype=dtype).SerializeToString())


def test_run_takes_and_gives_flat_float64():
    replay = linear((1, 2, 4))
    assert replay.input_shape == (1, 2, 4)
    assert replay.input_dtype == "float32"
    outputs = replay.run(np.arange(8.0))
    assert outputs.shape == (6,)
    assert outputs.dtype == np.float64


def test_float64_inputs_are_not_rounded():
    replay = linear((1, 4), TensorProto.DOUBLE)
    x = np.full(4, 0.1)
    assert replay.input_dtype == "float64"
    assert not np.array_equal(replay.run(x), replay.run(x.astype(np.float32).astype(float)))


@pytest.mark.parametrize("first", ["batch", None, 1])
def test_run_batch_agrees_with_run(first):
    replay = linear((first, 4))
    points = f32(np.random.default_rng(1), 7, 4).astype(float)
    outputs = replay.run_batch(points)
    assert outputs.shape == (7, 3)
    np.testing.assert_allclose(outputs, np.stack([replay.run(point) for point in points]), rtol=1e-6)


def test_run_batch_when_the_output_has_no_batch_axis():
    """A dynamic first axis that the model sums away must not mix points."""
    model = make([node("ReduceSum", ["x"], keepdims=0)], ("batch", 3), opset=13)
    replay = OnnxReplay(model.SerializeToString())
    points = np.arange(6.0).reshape(2, 3)
    assert replay.run_batch(points).tolist() == [[3.0], [12.0]]


def test_results_do_not_depend_on_earlier_runs():
    replay = linear((1, 64), n_out=64)
    x = f32(np.random.default_rng(2), 64).astype(float)
    first = replay.run(x)
    replay.run(np.zeros(64))
    assert np.array_equal(replay.run(x), first)


def test_a_model_that_fails_at_run_time():
    weights = {"s": np.array([7], dtype=np.int64)}
    nodes = [node("Shape", ["x"], ["n"]), node("Reshape", ["x", "s"])]
    replay = OnnxReplay(make(nodes, ("batch", 3), weights).SerializeToString())
    with pytest.raises(ModelError, match="onnxruntime fails on an input of shape"):
        replay.run(np.zeros(3))


def test_several_inputs_or_half_precision_are_refused():
    model = make([node("Add", ["x", "z"])], (1, 3))
    model.graph.input.append(model.graph.input[0])
    model.graph.input[1].name = "z"
    with pytest.raises(ModelError, match="2 inputs"):
        OnnxReplay(model.SerializeToString())
    half = make([node("Relu", ["x"])], (1, 3), dtype=TensorProto.FLOAT16)
    with pytest.raises(ModelError, match="float16"):
        OnnxReplay(half.SerializeToString())


def is_float32(value: float) -> bool:
    with np.errstate(over="ignore"):
        return float(np.float32(value)) == value


@settings(max_examples=500)
@given(finite, finite, finite)
def test_the_rounded_point_is_a_float32_in_the_box_if_there_is_one(x, a, b):
    low, high = min(a, b), max(a, b)
    (found,) = nearest_inside(np.array([x]), np.array([low]), np.array([high]))
    assert is_float32(found)
    limit = float(np.finfo(np.float32).max)
    # Every float32 of the box that could be nearest: neighbours of the clipped x.
    clipped = np.float32(np.clip(np.clip(x, low, high), -limit, limit))
    candidates = [
        float(value)
        for value in (np.nextafter(clipped, np.float32(-limit)), clipped, np.nextafter(clipped, np.float32(limit)))
        if low <= float(value) <= high
    ]
    target = min(max(x, low), high)
    if candidates:
        assert low <= found <= high
        assert abs(found - target) <= min(abs(value - target) for value in candidates)


def test_boxes_without_a_float32():
    point = np.array([0.1, 0.1])
    found = nearest_inside(np.array([5.0, -5.0]), point, point)
    assert found.tolist() == [float(np.float32(0.1))] * 2
    narrow = nearest_inside(np.zeros(1), np.array([0.1]), np.array([0.1 + 1e-12]))
    assert narrow.tolist() == [float(np.float32(0.1))]


def test_boxes_with_few_float32_values():
    low = float(np.nextafter(np.float32(1), np.float32(2)))
    found = nearest_inside(np.array([1.0]), np.array([1.0 + 1e-9]), np.array([low]))
    assert found.tolist() == [low]


def test_float64_points_are_only_clipped():
    found = nearest_inside(np.array([0.1, 2.0]), np.zeros(2), np.ones(2), "float64")
    assert found.tolist() == [0.1, 1.0]


def test_representable_uses_the_model_type():
    bounds = np.zeros(4), np.ones(4)
    x = np.full(4, 0.1)
    assert np.array_equal(linear((1, 4), TensorProto.DOUBLE).representable(x, *bounds), x)
    assert np.array_equal(linear((1, 4)).representable(x, *bounds), x.astype(np.float32).astype(float))
