"""Which models are binarised networks, and what is said about those that are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.binarised_models import Writer
from verifier.binarised.closing import UnrecognisedError
from verifier.binarised.network import BinarisedNetwork
from verifier.binarised.recognise import recognise
from verifier.binarised.steps import floats, ordinals, steps
from verifier.model.interface import checked_model
from verifier.model.replay import OnnxReplay

BENCHMARKS = Path(__file__).resolve().parents[3] / "shared/benchmarks"


class ShapedWriter(Writer):
    """As ``Writer``, for inputs of any shape."""

    def shaped(self, shape: list[int], output: str) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "shaped",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(made.SerializeToString())


def read(model: bytes) -> tuple[BinarisedNetwork, OnnxReplay]:
    proto, source, _ = checked_model(model, Path("model.onnx"))
    return recognise(proto, source, "model"), OnnxReplay(model)


def agree(model: bytes, scale: float = 1.0) -> BinarisedNetwork:
    """The integer form gives onnxruntime's outputs on random points."""
    network, replay = read(model)
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = (rng.random(network.n_inputs) * scale).astype(np.float32).astype(np.float64)
        assert network.quantiser is not None
        bits = network.hidden(network.quantiser(x).astype(np.int64)[None])[-1][0]
        np.testing.assert_allclose(network.outputs.values(bits), replay.run(x), rtol=1e-5, atol=1e-6)
    return network


def signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice((-1.0, 1.0), shape)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_convolutions(pool: bool, group: int) -> None:
    """Conv with stride, padding and groups, BatchNormalization, the sign of a sign, MaxPool, Flatten, Gemm."""
    rng = np.random.default_rng(group)
    w = ShapedWriter()
    levels = w.add("Round", w.add("Div", "x", w.constant(0.1)))
    sums = w.add("Conv", levels, w.constant(signs(rng, 4, 2, 3, 3)), strides=[2, 1], pads=[1, 0, 1, 1])
    parameters = [w.constant(rng.random(4) + 0.5), w.constant(rng.normal(size=4) * 3)]
    parameters += [w.constant(rng.normal(size=4) * 9), w.constant(rng.random(4) + 0.5)]
    once = w.add("Sign", w.add("BatchNormalization", sums, *parameters))
    value = w.add("Sign", w.add("Add", once, w.constant(0.1)))
    if pool:
        value = w.add("MaxPool", value, kernel_shape=[2, 2], strides=[1, 1])
    value = w.add("Conv", value, w.constant(signs(rng, 6, 4 // group, 2, 2)), group=group)
    value = w.add("Flatten", w.add("Sign", w.add("Sub", value, w.constant(0.5))))
    width = 6 * ((3 - pool) - 1) * ((5 - pool) - 1)
    output = w.add("Gemm", value, w.constant(signs(rng, 3, width)), w.constant(rng.normal(size=3)), transB=1)
    network = agree(w.shaped([1, 2, 5, 6], output))
    assert len(network.layers) == 2 + pool


def test_transposed_input_and_softmax() -> None:
    rng = np.random.default_rng(3)
    w = ShapedWriter()
    value = w.add("Transpose", "x", perm=[0, 3, 1, 2])
    value = w.add("Floor", w.add("Mul", value, w.constant(10.0)))
    value = w.add("Flatten", value)
    value = w.add("Sign", w.add("Sub", w.add("MatMul", value, w.constant(signs(rng, 24, 5))), w.constant(1.5)))
    output = w.add("Softmax", w.add("MatMul", value, w.constant(signs(rng, 5, 3))))
    network = agree(w.shaped([1, 3, 4, 2], output))
    assert network.outputs.softmax


def test_channel_wise_quantiser_is_not_uniform() -> None:
    rng = np.random.default_rng(4)
    w = ShapedWriter()
    value = w.add("Round", w.add("Mul", "x", w.constant(np.array([5.0, 10.0, 20.0]))))
    value = w.add("Sign", w.add("Sub", w.add("MatMul", value, w.constant(signs(rng, 3, 4))), w.constant(0.5)))
    network = agree(w.shaped([1, 3], w.add("MatMul", value, w.constant(signs(rng, 4, 2)))))
    assert network.quantiser is not None
    assert not network.quantiser.uniform


def dense(step: str = "Sign", quantised: bool = True, weights: float = 1.0) -> tuple[ShapedWriter, str]:
    rng = np.random.default_rng(5)
    w = ShapedWriter()
    value = w.add("Round", w.add("Div", "x", w.constant(0.1))) if quantised else "x"
    value = w.add("MatMul", value, w.constant(weights * signs(rng, 3, 4)))
    return w, w.add(step, w.add("Sub", value, w.constant(0.5)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda w, v: w.add("MatMul", w.add("Relu", v), w.constant(np.eye(4) * 0.3)), "no layer"),
        (lambda w, v: w.add("MatMul", w.add("Exp", v), w.constant(np.eye(4))), "not an operator"),
        (lambda w, v: w.add("Add", v, w.add("Relu", v)), "two branches"),
    ],
)
def test_reasons(model: object, reason: str) -> None:
    w, value = dense("Identity" if reason == "no layer" else "Sign")
    output = model(w, value)  # type: ignore[operator]
    with pytest.raises(UnrecognisedError, match=r"step|layer|operator|branches"):
        read(w.shaped([1, 3], output))


def test_weights_that_are_no_integers_before_a_step() -> None:
    w, value = dense(weights=0.37)
    with pytest.raises(UnrecognisedError, match="no integers"):
        read(w.shaped([1, 3], w.add("MatMul", value, w.constant(np.eye(4)))))


def test_a_threshold_at_which_rounding_decides_is_refused() -> None:
    """A Gemm's bias may be added first or last: a tie of 0.1 + integers in float32 is nobody's exact threshold."""
    rng = np.random.default_rng(6)
    w = ShapedWriter()
    value = w.add("Round", w.add("Mul", "x", w.constant(255.0)))
    value = w.add("Gemm", value, w.constant(signs(rng, 64, 4)), w.constant(np.full(4, 1e-7)))
    value = w.add("Sign", w.add("Sub", value, w.constant(1e-7)))
    with pytest.raises(UnrecognisedError, match="rounding decides"):
        read(w.shaped([1, 64], w.add("MatMul", value, w.constant(np.eye(4)))))


@pytest.mark.parametrize("name", ["type1_512_512_100", "type2_50_50", "robust_sparse_200_100", "type1_sparse10"])
def test_benchmark_networks(name: str) -> None:
    path = BENCHMARKS / f"bnn_mnist/onnx/{name}.onnx"
    if not path.exists():
        pytest.skip("the benchmark data are not here")
    agree(path.read_bytes())


def test_ordinals_keep_order_and_are_inverted() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=999) * 10.0 ** rng.integers(-40, 38, 999), [0.0, -0.0]]).astype(np.float32)
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(ordinals(values[order])) >= 0)
    assert np.array_equal(floats(ordinals(values)), values)
    assert np.array_equal(ordinals(np.nextafter(values, np.float32(np.inf))) - ordinals(values), np.ones(len(values)))


def test_steps_of_random_monotone_functions() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        tables = np.sort(rng.integers(0, 4, (5, 30)), axis=1) * rng.choice((-1, 1), (5, 1))
        low, high = np.zeros(5, np.int64), rng.integers(0, 30, 5)
        first, places, values = steps(lambda z, t=tables: t[np.arange(5), z].astype(float), low, high)  # type: ignore[misc]
        for i in range(5):
            rebuilt = np.full(high[i] + 1, first[i])
            for place, value in zip(places, values, strict=True):
                rebuilt[place[i] :] = value[i]
            assert np.array_equal(rebuilt, tables[i, : high[i] + 1])


def test_initializers_of_other_types_do_no_harm() -> None:
    w, value = dense()
    shape = numpy_helper.from_array(np.array([1, 4], np.int64), "shape")
    w.constants.append(shape)
    agree(w.shaped([1, 3], w.add("MatMul", w.add("Reshape", value, "shape"), w.constant(np.eye(4)))))
