"""Every operator and attribute against onnxruntime, on random inputs.

Reading includes the load check; ``agree`` also compares on other points, and the network before with that after
simplification.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from support.onnx_models import agree, f32, make, node, read
from verifier.errors import ModelError

SEEDS = range(12)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


# ---------------------------------------------------------------- dense


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("c", [None, (), (1,), (4,), (1, 4), (3, 1), (3, 4)])
def test_gemm(trans_a, trans_b, left, c):
    rng = np.random.default_rng(0)
    a_shape = (5, 3) if trans_a else (3, 5)
    b_shape = (4, 5) if trans_b else (5, 4)
    variable, constant = (b_shape, a_shape) if left else (a_shape, b_shape)
    inputs = ["w", "x"] if left else ["x", "w"]
    weights = {"w": f32(rng, *constant)}
    if c is not None:
        inputs.append("c")
        weights["c"] = f32(rng, *c)
    for alpha, beta in ((1.0, 1.0), (0.3, -1.7), (2.0, 0.0)):
        gemm = node("Gemm", inputs, alpha=alpha, beta=beta, transA=trans_a, transB=trans_b)
        agree(make([gemm], variable, weights))


def test_gemm_adds_a_computed_c():
    rng = np.random.default_rng(0)
    nodes = [
        node("Gemm", ["x", "w"], ["h"]),
        node("Gemm", ["h", "v", "x"], beta=0.5, alpha=1.5),
    ]
    agree(make(nodes, (1, 4), {"w": f32(rng, 4, 6), "v": f32(rng, 6, 4)}))


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((5,), (5, 3)),
        ((5,), (5,)),
        ((1, 5), (5,)),
        ((2, 5), (5, 3)),
        ((2, 3, 5), (5, 4)),
        ((1, 5), (1, 5, 3)),
        ((5,), (1, 5, 3)),
        ((2, 5), (1, 1, 5, 3)),
        ((2, 3, 5), (2, 5, 4)),
        ((1, 3, 5), (2, 5, 4)),
        ((3, 5), (2, 5, 4)),
        ((5,), (2, 5, 4)),
        ((2, 1, 3, 5), (4, 5, 2)),
        ((2, 3, 5), (5,)),
    ],
)
def test_matmul(x, w):
    rng = np.random.default_rng(1)
    agree(make([node("MatMul", ["x", "w"])], x, {"w": f32(rng, *w)}))


@pytest.mark.parametrize(
    ("w", "x"),
    [
        ((3, 5), (5,)),
        ((5,), (5,)),
        ((5,), (5, 2)),
        ((3, 5), (5, 2)),
        ((3, 5), (2, 5, 4)),
        ((2, 3, 5), (5, 4)),
        ((2, 3, 5), (2, 5, 4)),
        ((2, 3, 5), (1, 5, 4)),
        ((2, 3, 5), (5,)),
        ((5,), (2, 5, 3)),
    ],
)
def test_matmul_with_the_constant_on_the_left(w, x):
    rng = np.random.default_rng(2)
    agree(make([node("MatMul", ["w", "x"])], x, {"w": f32(rng, *w)}))


# ---------------------------------------------------------------- elementwise


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 3, 4), (2, 3, 4), (5, 1, 3, 4), (1, 1, 1, 1)])
@pytest.mark.parametrize("first", [True, False])
def test_constants(op, shape, first):
    rng = np.random.default_rng(3)
    weight = f32(rng, *shape) + np.float32(0.1)
    inputs = ["x", "c"] if first else ["c", "x"]
    model = make([node(op, inputs)], (2, 3, 4), {"c": weight})
    if op == "Div" and not first:
        with pytest.raises(ModelError, match=r"Div .*divides by a value that depends on the input"):
            read(model)
    else:
        agree(model)


@pytest.mark.parametrize("op", ["Add", "Sub", "Max", "Min", "Sum", "Mean"])
@pytest.mark.parametrize("reduced", [False, True])
def test_between_computed_values(op, reduced):
    rng = np.random.default_rng(4)
    nodes = [
        node("Mul", ["x", "a"], ["p"]),
        node("ReduceSum", ["x", "axes"], ["q"]) if reduced else node("Add", ["x", "a"], ["q"]),
        node(op, ["p", "q"]),
    ]
    agree(make(nodes, (2, 3), {"a": f32(rng, 2, 3), "axes": ints(1)}))


@pytest.mark.parametrize("op", ["Max", "Min", "Sum", "Mean"])
def test_many_inputs_mixed_with_constants(op):
    rng = np.random.default_rng(5)
    nodes = [node("Neg", ["x"], ["n"]), node("Abs", ["x"], ["m"]), node(op, ["c", "x", "d", "n", "m"])]
    agree(make(nodes, (2, 3), {"c": f32(rng, 3), "d": f32(rng, 2, 3)}))


@pytest.mark.parametrize("op", ["Max", "Min", "Sum"])
def test_a_single_input(op):
    agree(make([node(op, ["x"])], (2, 3)))


def test_the_same_value_twice():
    agree(make([node("Add", ["x", "x"])], (1, 3)))
    agree(make([node("Sub", ["x", "x"], ["z"]), node("Add", ["z", "x"])], (1, 3)))


# ---------------------------------------------------------------- activations


@pytest.mark.parametrize("op", ["Relu", "Abs", "Neg", "Identity"])
def test_plain_activations(op):
    agree(make([node(op, ["x"])], (2, 3)))


@pytest.mark.parametrize("alpha", [None, 0.0, 0.01, 0.3, 1.0, 1.5, -0.2, 1e-9])
def test_leaky_relu(alpha):
    attributes = {} if alpha is None else {"alpha": alpha}
    agree(make([node("LeakyRelu", ["x"], **attributes)], (2, 3)))


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), (2, 3), ()])
def test_prelu(shape):
    rng = np.random.default_rng(6)
    agree(make([node("PRelu", ["x", "slope"])], (2, 3), {"slope": f32(rng, *shape)}))


@pytest.mark.parametrize("low", [None, -0.5, 0.0, 0.3, 2.0, -np.inf, -np.finfo(np.float32).max])
@pytest.mark.parametrize("high", [None, -0.2, 0.0, 1.0, np.inf, np.finfo(np.float32).max])
def test_clip(low, high):
    weights = {}
    inputs = ["x", "", ""]
    for i, (name, value) in enumerate((("low", low), ("high", high)), start=1):
        if value is not None:
            weights[name], inputs[i] = np.float32(value), name
    while inputs[-1] == "":
        inputs.pop()
    agree(make([node("Clip", inputs)], (2, 3), weights))


@pytest.mark.parametrize("bounds", [{}, {"min": -0.5}, {"max": 0.5}, {"min": 0.0, "max": 6.0}])
def test_clip_with_attributes(bounds):
    agree(make([node("Clip", ["x"], **bounds)], (2, 3), opset=9))


# ---------------------------------------------------------------- convolution and pooling


def windows(rng: np.random.Generator, rank: int, kernel: tuple[int, ...], dilated: bool) -> dict:
    """Random strides, pads or auto_pad, and dilations; each left out at times."""
    attributes: dict = {}
    if rng.random() < 0.7:
        attributes["strides"] = rng.integers(1, 4, rank).tolist()
    if dilated and rng.random() < 0.5:
        attributes["dilations"] = rng.integers(1, 3, rank).tolist()
    choice = rng.choice(["pads", "none", "VALID", "NOTSET", "SAME_UPPER", "SAME_LOWER"])
    if choice in ("pads", "NOTSET"):
        attributes["pads"] = [int(rng.integers(0, k)) for k in (*kernel, *kernel)]
    if choice in ("VALID", "NOTSET", "SAME_UPPER", "SAME_LOWER"):
        attributes["auto_pad"] = str(choice)
    if str(choice).startswith("SAME"):
        # onnxruntime refuses these with dilations, and strides that would need negative padding.
        attributes.pop("dilations", None)
        strides = attributes.get("strides", [1] * rank)
        attributes["strides"] = [min(stride, k) for stride, k in zip(strides, kernel, strict=True)]
    return attributes


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("rank", [1, 2])
def test_conv(seed, rank):
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 4))
    per_group, out_per_group, batch = (int(value) for value in rng.integers(1, 4, 3))
    kernel = tuple(int(k) for k in rng.integers(1, 4, rank))
    shape = (batch, groups * per_group, *(int(size) for size in rng.integers(6, 10, rank)))
    weights = {"w": f32(rng, groups * out_per_group, per_group, *kernel)}
    inputs = ["x", "w"]
    if rng.random() < 0.6:
        weights["b"] = f32(rng, groups * out_per_group)
        inputs.append("b")
    attributes = windows(rng, rank, kernel, dilated=True)
    if rng.random() < 0.5:
        attributes["kernel_shape"] = list(kernel)
    if groups > 1 or rng.random() < 0.5:
        attributes["group"] = groups
    agree(make([node("Conv", inputs, **attributes)], shape, weights), seed)


def pool(op: str, rng: np.random.Generator, rank: int, opset: int, dilated: bool, **extra: int):
    kernel = tuple(int(k) for k in rng.integers(1, 5, rank))
    shape = (int(rng.integers(1, 3)), int(rng.integers(1, 3)), *(int(size) for size in rng.integers(7, 11, rank)))
    attributes = windows(rng, rank, kernel, dilated) | extra
    if str(attributes.get("auto_pad", "")).startswith("SAME"):
        attributes.pop("ceil_mode", None)
    return make([node(op, ["x"], kernel_shape=list(kernel), **attributes)], shape, opset=opset)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_max_pool(seed, rank, ceil_mode):
    rng = np.random.default_rng(seed)
    agree(pool("MaxPool", rng, rank, 12, dilated=True, ceil_mode=ceil_mode), seed)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_pool(seed, rank, ceil_mode, count_include_pad):
    rng = np.random.default_rng(seed)
    extra = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    agree(pool("AveragePool", rng, rank, 19, dilated=True, **extra), seed)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 2, 7), (1, 1, 1, 1)])
def test_global_pooling(op, shape):
    agree(make([node(op, ["x"])], shape))


# ---------------------------------------------------------------- normalisation


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 3, 5), (1, 3)])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("opset", [8, 9, 14, 17])
def test_batch_normalization(shape, after, opset):
    rng = np.random.default_rng(7)
    weights = {name: f32(rng, 3) for name in ("gamma", "beta", "mean")}
    weights["variance"] = np.abs(f32(rng, 3)) + np.float32(0.01)
    nodes = [node("BatchNormalization", ["h" if after else "x", *weights], epsilon=1e-3, momentum=0.5)]
    if after and len(shape) == 4:
        weights["w"] = f32(rng, 3, 3, 2, 2)
        nodes.insert(0, node("Conv", ["x", "w"], ["h"]))
    elif after:
        nodes.insert(0, node("Relu", ["x"], ["h"]))
    agree(make(nodes, shape, weights, opset=opset))


# ---------------------------------------------------------------- moving values


@pytest.mark.parametrize(
    ("entry", "shape", "weights", "opset"),
    [
        (node("Flatten", ["x"]), (1, 2, 3, 4), {}, 17),
        (node("Flatten", ["x"], axis=0), (1, 2, 3), {}, 17),
        (node("Flatten", ["x"], axis=-1), (1, 2, 3), {}, 17),
        (node("Flatten", ["x"], axis=3), (1, 2, 3), {}, 17),
        (node("Reshape", ["x", "s"]), (1, 6), {"s": ints(2, 3)}, 17),
        (node("Reshape", ["x", "s"]), (1, 2, 6), {"s": ints(0, -1)}, 17),
        (node("Reshape", ["x", "s"]), (1, 2, 6), {"s": ints(-1)}, 8),
        (node("Reshape", ["x", "s"], allowzero=1), (1, 2, 6), {"s": ints(3, 4)}, 17),
        (node("Transpose", ["x"]), (2, 3, 4), {}, 17),
        (node("Transpose", ["x"], perm=[0, 2, 1]), (2, 3, 4), {}, 17),
        (node("Squeeze", ["x"]), (1, 3, 1), {}, 17),
        (node("Squeeze", ["x", "a"]), (1, 3, 1), {"a": ints(-1)}, 17),
        (node("Squeeze", ["x"], axes=[0]), (1, 3, 1), {}, 11),
        (node("Unsqueeze", ["x", "a"]), (1, 3), {"a": ints(0, 3)}, 17),
        (node("Unsqueeze", ["x"], axes=[1]), (1, 3), {}, 11),
        (node("Slice", ["x", "b", "e"]), (4, 5), {"b": ints(1, 0), "e": ints(3, 4)}, 17),
        (
            node("Slice", ["x", "b", "e", "a", "t"]),
            (4, 7),
            {"b": ints(-1), "e": ints(-(2**62)), "a": ints(1), "t": ints(-2)},
            17,
        ),
        (node("Slice", ["x"], starts=[1], ends=[2**31 - 1], axes=[1]), (4, 5), {}, 9),
        (node("Gather", ["x", "i"]), (4, 5), {"i": ints(2, 0, -1)}, 17),
        (node("Gather", ["x", "i"], axis=1), (4, 5), {"i": np.array([[0, 1], [1, 4]])}, 17),
        (node("Gather", ["x", "i"], axis=-1), (4, 5), {"i": np.array(3)}, 17),
        (node("GatherElements", ["x", "i"], axis=1), (2, 3), {"i": np.array([[0, 2], [1, 1]])}, 17),
        (node("GatherND", ["x", "i"]), (2, 3), {"i": np.array([[0, 2], [1, 1]])}, 17),
        (node("Expand", ["x", "s"]), (3, 1), {"s": ints(2, 1, 4)}, 17),
        (node("Tile", ["x", "r"]), (2, 3), {"r": ints(2, 1)}, 17),
        (node("Split", ["x", "s"], ["a", "y"], axis=1), (2, 5), {"s": ints(2, 3)}, 17),
        (node("Split", ["x"], ["y", "b"], axis=0), (4, 2), {}, 13),
        (node("Split", ["x"], ["a", "y"], axis=1, split=[1, 4]), (2, 5), {}, 11),
        (node("DepthToSpace", ["x"], blocksize=2), (1, 4, 2, 2), {}, 17),
        (node("DepthToSpace", ["x"], blocksize=2, mode="CRD"), (1, 8, 2, 2), {}, 17),
        (node("SpaceToDepth", ["x"], blocksize=2), (1, 1, 4, 4), {}, 17),
        (node("Dropout", ["x"]), (2, 3), {}, 17),
        (node("Dropout", ["x"], ["y", "mask"]), (2, 3), {}, 17),
        (node("Dropout", ["x"], ratio=0.3), (2, 3), {}, 9),
        (node("Dropout", ["x", "r", "t"]), (2, 3), {"r": np.float32(0.5), "t": np.array(False)}, 17),
        (node("Cast", ["x"], to=TensorProto.FLOAT), (2, 3), {}, 17),
        (node("Pad", ["x", "p"]), (2, 3), {"p": ints(0, 1, 2, 0)}, 17),
        (node("Pad", ["x", "p", "v"]), (2, 3), {"p": ints(0, 1, 2, 0), "v": np.float32(1.5)}, 17),
        (node("Pad", ["x", "p", "v"]), (2, 3), {"p": ints(0, 1, 2, -1), "v": np.float32(-1)}, 17),
        (
            node("Pad", ["x", "p", "", "a"]),
            (2, 3),
            {"p": ints(1, 2), "a": ints(1)},
            18,
        ),
        (node("Pad", ["x", "p"], mode="reflect"), (2, 3), {"p": ints(0, 2, 1, 1)}, 17),
        (node("Pad", ["x", "p"], mode="edge"), (2, 3), {"p": ints(0, 2, 1, 1)}, 17),
        (node("Pad", ["x"], pads=[0, 1, 0, 2]), (2, 3), {}, 9),
        (node("Pad", ["x"], pads=[0, 1, 0, 2], value=0.7), (2, 3), {}, 9),
    ],
    ids=lambda value: value.op_type if hasattr(value, "op_type") else "",
)
def test_moving(entry, shape, weights, opset):
    agree(make([entry], shape, weights, opset=opset))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_with_constants_and_repetition(axis):
    rng = np.random.default_rng(8)
    nodes = [node("Relu", ["x"], ["r"]), node("Concat", ["x", "c", "r", "x"], axis=axis)]
    agree(make(nodes, (2, 3), {"c": f32(rng, 2, 3)}))


def test_split_parts_are_used_apart():
    nodes = [
        node("Split", ["x"], ["a", "b", "c"], axis=1),
        node("Relu", ["c"], ["r"]),
        node("Sub", ["a", "r"]),
    ]
    agree(make(nodes, (2, 6), opset=13))


def test_shapes_computed_by_the_graph():
    """What PyTorch writes for ``x.view(x.size(0), -1)`` with a dynamic batch."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Concat", ["n1", "minus"], ["target"], axis=0),
        node("Reshape", ["x", "target"]),
    ]
    weights = {"zero": np.array(0), "axis": ints(0), "minus": ints(-1)}
    network = agree(make(nodes, ("batch", 2, 3), weights))
    assert network.output_shape == (1, 6)


@pytest.mark.parametrize("attributes", [{}, {"start": 1}, {"start": -2, "end": -1}])
def test_shape_slices(attributes):
    nodes = [
        node("Shape", ["x"], ["s"], **attributes),
        node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        node("ReduceSum", ["f"], ["t"], keepdims=0),
        node("Size", ["x"], ["z"]),
        node("Cast", ["z"], ["zf"], to=TensorProto.FLOAT),
        node("Add", ["t", "zf"], ["c"]),
        node("Mul", ["x", "c"]),
    ]
    agree(make(nodes, (2, 3, 4)))


# ---------------------------------------------------------------- reductions


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("axes", [None, (0,), (1,), (-1,), (0, 2), (1, 2), (2, 1), (0, 1, 2)])
@pytest.mark.parametrize("keep", [None, 0, 1])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_reductions(op, axes, keep, opset):
    since = 13 if op == "ReduceSum" else 18
    weights, inputs, attributes = {}, ["x"], {}
    if keep is not None:
        attributes["keepdims"] = keep
    if axes is not None and opset >= since:
        weights["axes"] = ints(*axes)
        inputs.append("axes")
    elif axes is not None:
        attributes["axes"] = list(axes)
    agree(make([node(op, inputs, **attributes)], (2, 3, 4), weights, opset=opset))


def test_reduction_over_no_axes_changes_nothing():
    network = agree(make([node("ReduceSum", ["x"], noop_with_empty_axes=1)], (2, 3)))
    assert network.output_shape == (2, 3)


# ---------------------------------------------------------------- constants


def test_constants_are_folded_with_onnxruntime_arithmetic():
    rng = np.random.default_rng(9)
    nodes = [
        node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2.5))),
        node("Constant", [], ["list"], value_floats=[1.0, 2.0, 3.0]),
        node("Exp", ["w"], ["e"]),
        node("Transpose", ["e"], ["t"]),
        node("Mul", ["t", "two"], ["m"]),
        node("Div", ["m", "list"], ["d"]),
        node("MatMul", ["x", "d"]),
    ]
    network = agree(make(nodes, (1, 4), {"w": f32(rng, 3, 4)}))
    assert len(network.nodes) == 2


def test_half_precision_weights_are_widened():
    rng = np.random.default_rng(10)
    nodes = [node("Cast", ["w"], ["f"], to=TensorProto.FLOAT), node("MatMul", ["x", "f"])]
    agree(make(nodes, (1, 4), {"w": f32(rng, 4, 3).astype(np.float16)}))


def test_float64_models():
    rng = np.random.default_rng(11)
    weights = {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)}
    nodes = [node("Gemm", ["x", "w", "b"], ["h"]), node("Relu", ["h"])]
    network = agree(make(nodes, (1, 4), weights, dtype=TensorProto.DOUBLE))
    assert network.input_dtype == "float64"


# ---------------------------------------------------------------- whole networks


@pytest.mark.parametrize("seed", SEEDS)
def test_random_channels_last_network(seed):
    """Transposes around convolutions, biases and ReLUs in between, as converters from TensorFlow write them."""
    rng = np.random.default_rng(seed)
    nodes, weights, current, channels = [], {}, "x", 2
    for layer in range(3):
        weights |= {f"w{layer}": f32(rng, 3, channels, 2, 2), f"b{layer}": f32(rng, 3)}
        nodes += [
            node("Transpose", [current], [f"in{layer}"], perm=[0, 3, 1, 2]),
            node("Conv", [f"in{layer}", f"w{layer}"], [f"c{layer}"]),
            node("Transpose", [f"c{layer}"], [f"out{layer}"], perm=[0, 2, 3, 1]),
            node("Add", [f"out{layer}", f"b{layer}"], [f"a{layer}"]),
            node("Relu", [f"a{layer}"], [f"r{layer}"]),
        ]
        current, channels = f"r{layer}", 3
    weights |= {"s": ints(1, -1), "d": f32(rng, 3 * 3 * 3, 2)}
    nodes += [node("Reshape", [current, "s"], ["flat"]), node("MatMul", ["flat", "d"])]
    network = agree(make(nodes, (1, 6, 6, 2), weights), seed)
    operators = [type(entry.operator).__name__ for entry in network.nodes]
    assert operators == ["Input", "Gather", *["Conv", "Relu"] * 3, "Reshape", "Linear"]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_residual_network(seed):
    rng = np.random.default_rng(seed)
    weights = {"w": f32(rng, 2, 2, 3, 3), "v": f32(rng, 2, 2, 3, 3), "mean": f32(rng, 1, 2, 1, 1)}
    for name in ("gamma", "beta", "mu"):
        weights[name] = f32(rng, 2)
    weights["var"] = np.abs(f32(rng, 2)) + np.float32(0.1)
    nodes = [
        node("Sub", ["x", "mean"], ["n"]),
        node("Conv", ["n", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "gamma", "beta", "mu", "var"], ["b"]),
        node("Relu", ["b"], ["r"]),
        node("Conv", ["r", "v"], ["d"], pads=[1, 1, 1, 1]),
        node("Add", ["d", "n"], ["s"]),
        node("LeakyRelu", ["s"], ["l"], alpha=0.1),
        node("MaxPool", ["l"], ["m"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]),
        node("GlobalAveragePool", ["m"], ["g"]),
        node("Flatten", ["g"]),
    ]
    agree(make(nodes, (1, 2, 5, 5), weights), seed)


class Grower:
    """Grows a random graph of values of shape (1, channels, size, size), then a dense head."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list = []
        self.weights: dict[str, np.ndarray] = {}
        self.values = [("x", 2, 6)]

    def weight(self, *shape: int, positive: bool = False) -> str:
        name = f"w{len(self.weights)}"
        values = f32(self.rng, *shape) * np.float32(0.7)
        self.weights[name] = np.abs(values) + np.float32(0.1) if positive else values
        return name

    def emit(self, op: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, [name], **attributes))
        return name

    def grow(self) -> None:
        source, channels, size = self.values[int(self.rng.integers(max(0, len(self.values) - 3), len(self.values)))]
        kind = self.rng.choice(
            ["conv", "norm", "relu", "leaky", "clip", "pool", "mean", "affine", "twist", "join", "stack", "max"]
        )
        twins = [name for name, *shape in self.values if shape == [channels, size]]
        other = str(self.rng.choice(twins))
        if kind == "conv":
            inputs = [source, self.weight(3, channels, 3, 3), self.weight(3)]
            source, channels = self.emit("Conv", inputs, pads=[1, 1, 1, 1]), 3
        elif kind == "norm":
            parameters = [self.weight(channels) for _ in range(3)] + [self.weight(channels, positive=True)]
            source = self.emit("BatchNormalization", [source, *parameters])
        elif kind == "relu":
            source = self.emit("Relu", [source])
        elif kind == "leaky":
            source = self.emit("LeakyRelu", [source], alpha=0.2)
        elif kind == "clip":
            self.weights |= {"zero": np.float32(0), "six": np.float32(6)}
            source = self.emit("Clip", [source, "zero", "six"])
        elif kind in ("pool", "mean") and size > 2:
            op = "MaxPool" if kind == "pool" else "AveragePool"
            source, size = self.emit(op, [source], kernel_shape=[2, 2]), size - 1
        elif kind == "affine":
            source = self.emit("Mul", [source, self.weight(channels, 1, 1)])
            source = self.emit("Sub", [source, self.weight(*([1] if self.rng.random() < 0.5 else [size, size]))])
        elif kind == "twist":
            source = self.emit("Transpose", [source], perm=[0, 1, 3, 2])
        elif kind == "join":
            source = self.emit("Add", [source, other])
        elif kind == "max":
            source = self.emit("Max", [source, other])
        elif kind == "stack" and channels < 5:
            source, channels = self.emit("Concat", [source, other], axis=1), 2 * channels
        self.values.append((source, channels, size))

    def model(self):
        source, channels, size = self.values[-1]
        flat = self.emit("Flatten", [source])
        self.nodes.append(node("Gemm", [flat, self.weight(channels * size * size, 3), self.weight(3)]))
        return make(self.nodes, (1, 2, 6, 6), self.weights)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed):
    """Operators in any order, so that simplifiers meet combinations that nobody thought of."""
    grower = Grower(np.random.default_rng(seed))
    for _ in range(10):
        grower.grow()
    agree(grower.model(), seed)
