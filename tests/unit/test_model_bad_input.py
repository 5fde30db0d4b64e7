"""Everything that can be wrong with a model file gives one clear sentence and never another exception."""

from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper

from support.onnx_models import f32, make, node
from verifier.errors import ModelError
from verifier.model.read import load

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: bytes | onnx.ModelProto, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return path

    return write


def refused(path: Path | str, pattern: str, **options: int) -> str:
    """The message: one line that begins with the path, matches the pattern and tells what to do."""
    with pytest.raises(ModelError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert re.search(pattern, message), message
    return message


def relu_model(shape: tuple = (1, 3)) -> onnx.ModelProto:
    return make([node("Relu", ["x"])], shape)


def dense_model() -> onnx.ModelProto:
    return make([node("MatMul", ["x", "w"])], (1, 4), {"w": f32(np.random.default_rng(0), 4, 3)})


# ---------------------------------------------------------------- files


def test_a_missing_file(tmp_path):
    refused(tmp_path / "nothing.onnx", "there is no such file; check the path")


def test_a_path_below_a_file(save):
    refused(save(relu_model()) / "deeper.onnx", "there is no such file")


def test_a_folder(tmp_path):
    refused(tmp_path, "this is a folder; give the path of an .onnx")


def test_a_broken_link(tmp_path):
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "nowhere.onnx")
    refused(link, "cannot be read")


def test_an_unreadable_file(save):
    path = save(relu_model())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    refused(path, r"cannot be read \(Permission denied\); check its permissions")


def test_a_device():
    refused("/dev/null", "not an ordinary file")


def test_an_empty_file(save):
    refused(save(b""), "the file is empty; export or download")


@pytest.mark.parametrize(
    "content", [b"hello, world\n", b"\xff" * 100, b"(declare-const X_0 Real)\n", b"{}", b"\0" * 64]
)
def test_not_onnx(save, content):
    refused(save(content), "this is not an ONNX file")


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_are_never_loaded(save, tmp_path, protocol):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    for name in ("model.pt", "model.pkl", "model.onnx"):
        refused(save(pickle.dumps(Trap(), protocol), name), "this is not an ONNX file")
    assert not (tmp_path / "sprung").exists()


def test_a_pytorch_archive(save):
    refused(save(b"PK\x03\x04" + b"\0" * 100, "model.pt"), "not an ONNX file but a pickle or zip archive .* export")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated(save, part):
    data = dense_model().SerializeToString()
    refused(save(data[: int(len(data) * part)]), "not an ONNX file|onnxruntime .* cannot load|outputs")


def test_a_tensor_file(save):
    tensor = onnx.numpy_helper.from_array(np.zeros((2, 3), np.float32), "t")
    refused(save(tensor.SerializeToString(), "input_0.pb"), "not an ONNX file")


def test_a_model_without_a_graph(save):
    refused(save(onnx.ModelProto(ir_version=8)), "holds no graph")


# ---------------------------------------------------------------- compression


def test_damaged_gzip(save):
    data = bytearray(gzip.compress(dense_model().SerializeToString()))
    data[len(data) // 2] ^= 0xFF
    refused(save(bytes(data), "model.onnx.gz"), "the gzip data is damaged .* download the file again")


@pytest.mark.parametrize("length", [2, 9, 12, 60])
def test_truncated_gzip(save, length):
    data = gzip.compress(dense_model().SerializeToString())
    refused(save(data[:length], "model.onnx.gz"), "the gzip data is (cut off|damaged)")


def test_gzip_of_nothing(save):
    refused(save(gzip.compress(b""), "model.onnx.gz"), "the compressed file is empty")


def test_gzip_of_something_else(save):
    refused(save(gzip.compress(b"hello"), "model.onnx.gz"), "not an ONNX file")


def test_a_gzip_bomb(save):
    """Expansion stops at the limit: no more than that is ever held."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    refused(save(bomb, "model.onnx.gz"), "expands to more than 1000000 bytes", limit=1_000_000)
    many = gzip.compress(b"\0" * 600_000) * 2
    refused(save(many, "model.onnx.gz"), "expands to more than 1000000 bytes", limit=1_000_000)


# ---------------------------------------------------------------- external data


def external(location: str, folder: Path, **entries: str) -> Path:
    """A model whose weight says that its data lie at ``location``."""
    model = dense_model()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_missing_external_data(tmp_path):
    refused(external("weights.bin", tmp_path), r"tensor 'w' .* 'weights.bin', which does not exist .* put it beside")


def test_external_data_outside_the_folder(tmp_path):
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 48)
    refused(external("../secret.bin", inside), "outside the model's folder")
    refused(external(str(tmp_path / "secret.bin"), inside), "outside the model's folder")
    refused(external(str(inside / "model.onnx"), inside), "outside the model's folder")
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    refused(external("link.bin", inside), "outside the model's folder")
    (inside / "up").symlink_to(tmp_path)
    refused(external("up/secret.bin", inside), "outside the model's folder")


def test_external_data_without_a_file_name(tmp_path):
    refused(external("", tmp_path), "names no file")
    refused(external(".", tmp_path), "does not exist")


def test_external_data_that_is_too_short(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"\0" * 20)
    refused(external("weights.bin", tmp_path, length="48"), "should be 48 bytes at 0 .* only 20")
    refused(external("weights.bin", tmp_path), "cannot")
    refused(external("weights.bin", tmp_path, offset="1000000"), "cannot")


@pytest.mark.parametrize("entries", [{"offset": "-4"}, {"length": "-1"}, {"offset": "x"}, {"length": "9" * 30}])
def test_external_data_with_bad_numbers(tmp_path, entries):
    (tmp_path / "weights.bin").write_bytes(b"\0" * 48)
    refused(external("weights.bin", tmp_path, **entries), "bad offset or length|cannot be read|should be")


# ---------------------------------------------------------------- interface


def test_dynamic_dimensions_that_are_not_the_first(save):
    refused(save(relu_model(("N", "height", 3))), r"dimension 1 of the input 'x' has no fixed size \(height\); only")
    refused(save(relu_model((1, None))), r"dimension 1 of the input 'x' has no fixed size \(unknown\)")
    model = relu_model((1, 3))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1
    refused(save(model), r"dimension 1 of the input 'x' has no fixed size \(-1\)")


def test_an_input_without_a_shape(save):
    model = relu_model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    refused(save(model), "the shape of the input 'x' is not given")


def test_an_input_that_is_too_large(save):
    refused(save(relu_model((1, 2**40))), "has more than")


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16", "INT64", "INT32", "UINT8", "BOOL", "STRING", "COMPLEX64"])
def test_inputs_that_are_not_float_or_double(save, dtype):
    model = make([node("Identity", ["x"])], (1, 3), dtype=TensorProto.DataType.Value(dtype))
    refused(save(model), rf"the input 'x' is {dtype}; only FLOAT and DOUBLE")


def test_an_input_that_is_not_a_tensor(save):
    model = relu_model()
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, (1, 3)))
    model.graph.input[0].type.CopyFrom(kind)
    refused(save(model), "is not a tensor|shape of the input 'x' is not given")


def test_several_inputs(save):
    model = make([node("Add", ["x", "z"])], (1, 3))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 3)))
    refused(save(model), r"the model has 2 inputs \('x', 'z'\), but exactly one")


def test_no_input(save):
    model = make([node("Relu", ["w"])], (1, 3), {"w": np.ones(3, np.float32)})
    del model.graph.input[:]
    refused(save(model), r"the model has 0 inputs \(none\)")


def test_several_outputs(save):
    model = relu_model()
    model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3)))
    refused(save(model), r"the model has 2 outputs \('y', 'x'\), but exactly one")


def test_no_output(save):
    model = relu_model()
    del model.graph.output[:]
    refused(save(model), "the model has 0 outputs")


def test_an_empty_output(save):
    weights = {name: np.array([value]) for name, value in (("b", 2), ("e", 2), ("a", 1))}
    refused(
        save(make([node("Slice", ["x", "b", "e", "a"])], (1, 3), weights)), r"its result is empty \(shape \(1, 0\)\)"
    )
    model = make([node("Relu", ["x"], ["r"])], (1, 3), {"c": np.zeros((1, 0), np.float32)}, output="c")
    refused(save(model), "the output 'c' has no values")


# ---------------------------------------------------------------- versions


def test_opsets_that_are_too_old_or_too_new(save):
    refused(
        save(make([node("Relu", ["x"])], (1, 3), opset=6)), r"opset 6, which is too old \(7 to \d+ are read\); convert"
    )
    refused(save(make([node("Relu", ["x"])], (1, 3), opset=999)), r"opset 999, which is too new \(7 to \d+ are read\)")
    model = relu_model()
    del model.opset_import[:]
    refused(save(model), "opset 1, which is too old")


def test_an_ir_version_that_is_too_new(save):
    model = relu_model()
    model.ir_version = 99
    refused(save(model), "onnxruntime .* cannot load the model .*IR version.* export it again")


# ---------------------------------------------------------------- unsupported nodes


def test_all_unsupported_nodes_are_listed_at_once(save):
    """Operators and attributes, also those behind other unsupported nodes."""
    nodes = [
        node("Sigmoid", ["x"], ["s1"]),
        node("Conv", ["s1", "w"], ["c"], auto_pad="VALID"),
        node("Sigmoid", ["c"], ["s2"]),
        node("Mul", ["s2", "s2"], ["m"]),
        node("MaxPool", ["m"], ["p", "places"], kernel_shape=[2, 2]),
        node("Cast", ["places"], ["f"], to=TensorProto.FLOAT),
        node("Add", ["f", "p"], ["a"]),
        node("Cast", ["a"], ["i"], to=TensorProto.FLOAT16),
        node("Cast", ["i"], ["back"], to=TensorProto.FLOAT),
        node("Flatten", ["back"], ["flat"]),
        node("Softmax", ["flat"]),
    ]
    message = refused(save(make(nodes, (1, 1, 5, 5), {"w": np.ones((1, 1, 2, 2), np.float32)})), "6 nodes that are not")
    for part in (
        "Sigmoid (nodes 'Sigmoid_s1', 'Sigmoid_s2'): operator not supported",
        "Mul (node 'Mul_m'): it multiplies two values that both depend on the input",
        "MaxPool (node 'MaxPool_p'): its second output (Indices) is used",
        "Cast (node 'Cast_i'): attribute to = FLOAT16 (only FLOAT and DOUBLE are)",
        "Softmax (node 'Softmax_y'): operator not supported, remove it from the end of the model",
    ):
        assert part in message


UNSUPPORTED = [
    ([node("Tanh", ["x"])], {}, r"Tanh \(node 'Tanh_y'\): operator not supported"),
    ([node("Exp", ["x"])], {}, "Exp"),
    ([node("Pow", ["x", "two"])], {"two": np.float32(2)}, "Pow"),
    ([node("MatMul", ["x", "x"])], {}, "multiplies two values"),
    ([node("Div", ["one", "x"])], {"one": np.float32(1)}, "divides by a value that depends on the input"),
    ([node("Div", ["x", "x"])], {}, "divides by a value that depends on the input"),
    ([node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Cast", ["i"], to=TensorProto.FLOAT)], {}, "INT64"),
    ([node("Dropout", ["x", "", "t"])], {"t": np.array(True)}, "training_mode = 1"),
    ([node("ArgMax", ["x"])], {}, "ArgMax .*state the property about the scores"),
    (
        [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "s"])],
        {"s": np.float32(0.1)},
        r"QuantizeLinear .*DequantizeLinear",
    ),
    (
        [node("SequenceConstruct", ["x", "x"], ["q"]), node("ConcatFromSequence", ["q"], axis=0)],
        {},
        "SequenceConstruct",
    ),
    ([node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"])], {}, "random results"),
    ([node("RandomNormal", [], ["r"], shape=[3, 3]), node("Add", ["x", "r"])], {}, "random results"),
    ([node("NonZero", ["x"], ["n"]), node("Cast", ["n"], to=TensorProto.FLOAT)], {}, "NonZero"),
    ([node("Resize", ["x", "", "s"])], {"s": np.float32([2, 2])}, "Resize"),
    ([node("Gather", ["w", "i"])], {"w": np.ones(3, np.float32)}, "Gather|Cast"),
]


@pytest.mark.parametrize(("nodes", "weights", "pattern"), UNSUPPORTED, ids=lambda value: "")
def test_unsupported_operators(save, nodes: list[NodeProto], weights, pattern):
    if "i" in nodes[0].input:
        nodes = [node("Cast", ["x"], ["i"], to=TensorProto.INT64), *nodes]
    refused(save(make(nodes, (3, 3), weights)), f"not supported.*{pattern}")


def test_double_models_that_continue_in_float(save):
    nodes = [node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), node("Cast", ["f"], to=TensorProto.DOUBLE)]
    refused(save(make(nodes, (1, 3), dtype=TensorProto.DOUBLE)), "to = FLOAT in a model with DOUBLE input")


def test_three_dimensional_convolutions(save):
    model = make([node("Conv", ["x", "w"])], (1, 1, 3, 3, 3), {"w": np.ones((1, 1, 2, 2, 2), np.float32)})
    refused(save(model), r"Conv \(node 'Conv_y'\): 3 spatial dimensions \(1 and 2 are supported\)")
    model = make([node("AveragePool", ["x"], kernel_shape=[2, 2, 2])], (1, 1, 3, 3, 3))
    refused(save(model), "3 spatial dimensions")


def test_convolutions_with_computed_weights(save):
    nodes = [node("Relu", ["x"], ["w"]), node("Conv", ["x", "w"])]
    refused(save(make(nodes, (1, 1, 3, 3))), "its weight is computed by the network")


def test_batch_normalization_for_training(save):
    weights = {name: np.ones(2, np.float32) for name in "abcd"}
    entry = node("BatchNormalization", ["x", *weights], ["y", "m", "v"], training_mode=1)
    refused(save(make([entry], (1, 2, 3, 3), weights)), "attribute training_mode = 1")


def test_windows_that_do_not_fit(save):
    model = make([node("MaxPool", ["x"], kernel_shape=[5, 5])], (1, 1, 3, 3))
    refused(save(model), r"cannot load|larger than its padded input")


@pytest.mark.parametrize("op", ["Loop", "Scan", "If"])
def test_control_flow(save, op):
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 3))],
    )
    if op == "If":
        entry = node("If", ["c"], then_branch=body, else_branch=body)
    else:
        entry = node(op, ["", "c", "x"] if op == "Loop" else ["x"], body=body)
    model = make([entry], (1, 3), {"c": np.array(True)})
    refused(save(model), f"{op} .*(operator with a subgraph|operator not supported)|cannot load the model")


def test_other_domains(save):
    gelu = helper.make_node("Gelu", ["x"], ["y"], name="act", domain="com.microsoft")
    model = make([gelu], (1, 3))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    refused(save(model), r"com.microsoft::Gelu \(node 'act'\): operator not supported")
    unknown = helper.make_node("Mystery", ["x"], ["y"], domain="some.where")
    model = make([unknown], (1, 3))
    model.opset_import.append(helper.make_opsetid("some.where", 1))
    refused(save(model), r"some.where::Mystery \(node '-> y'\): operator not supported")


def test_an_operator_that_does_not_exist(save):
    refused(save(make([node("Relux", ["x"])], (1, 3))), r"Relux \(node 'Relux_y'\): operator not supported")


def test_sparse_weights(save):
    model = relu_model()
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "s")
    places = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3]))
    refused(save(model), "sparse initializers, which are not supported")


# ---------------------------------------------------------------- broken contents


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
@pytest.mark.parametrize("op", ["MatMul", "Add", "Mul", "Gemm", "Conv", "BatchNormalization"])
def test_weights_that_are_not_numbers(save, op, value, kind):
    rng = np.random.default_rng(0)
    shape: tuple[int, ...] = (1, 3)
    if op == "Conv":
        shape, weights = (1, 2, 4, 4), {"weird": f32(rng, 2, 2, 2, 2)}
    elif op == "BatchNormalization":
        weights = {"weird": f32(rng, 3), "b": f32(rng, 3), "m": f32(rng, 3), "v": np.ones(3, np.float32)}
    else:
        weights = {"weird": f32(rng, 3, 3)}
    weights["weird"].flat[1] = value
    path = save(make([node(op, ["x", *weights])], shape, weights))
    refused(path, rf"tensor 'weird', read by {op} \(node '{op}_y'\), has {kind} entries")


def test_a_computed_constant_that_is_not_a_number(save):
    nodes = [node("Log", ["w"], ["l"]), node("Mul", ["x", "l"])]
    refused(save(make(nodes, (1, 3), {"w": np.float32([1, -1, 2])})), "tensor 'l', read by Mul .* has NaN entries")


def test_division_by_zero(save):
    refused(save(make([node("Div", ["x", "z"])], (1, 3), {"z": np.float32([1, 0, 2])})), "divides by 0")


def test_a_variance_that_is_not_positive(save):
    weights = {name: np.ones(3, np.float32) for name in "abc"} | {"v": np.float32([1, -1, 1])}
    refused(
        save(make([node("BatchNormalization", ["x", *weights])], (1, 3), weights)), "a variance that is not positive"
    )


def test_a_name_that_nothing_produces(save):
    refused(save(make([node("Add", ["x", "ghost"])], (1, 3))), "ghost|cannot load the model")


def test_shapes_that_do_not_fit(save):
    model = make([node("MatMul", ["x", "w"])], (1, 3), {"w": np.ones((4, 2), np.float32)})
    refused(save(model), "cannot load the model")
    model = make([node("Reshape", ["x", "s"])], (1, 3), {"s": np.array([7])})
    refused(save(model), "cannot (load|evaluate)")


def test_a_weight_with_too_few_bytes(save):
    model = dense_model()
    model.graph.initializer[0].raw_data = b"\0" * 7
    refused(save(model), "cannot")


def test_nodes_in_the_wrong_order(save):
    nodes = [node("Relu", ["h"]), node("Neg", ["x"], ["h"])]
    refused(save(make(nodes, (1, 3))), "cannot load the model|nothing in it produces")


def test_overflow_in_the_model(save):
    huge = {"w": np.float32(3e38)}
    nodes = [node("Mul", ["x", "w"], ["h"]), node("Mul", ["h", "w"])]
    refused(save(make(nodes, (1, 3), huge)), "NaN or infinite output .* check the model's weights")


@pytest.mark.parametrize(
    ("weight", "bias", "group"),
    [((1, 2, 3, 3), 1, 1), ((3, 1, 3, 3), 3, 2), ((2, 1, 3, 3), 3, 1), ((1, 1, 3, 3), 1, 0)],
)
def test_convolutions_whose_shapes_do_not_fit(save, weight, bias, group):
    """Found by damaging bytes: torch's own exception came out."""
    weights = {"w": np.ones(weight, np.float32), "b": np.ones(bias, np.float32)}
    model = make([node("Conv", ["x", "w", "b"], group=group)], (1, 1, 4, 4), weights)
    with pytest.raises(ModelError):
        load(save(model))


def test_a_convolution_for_other_channels_is_named(save):
    from verifier.model.lowering.call import UnsupportedError
    from verifier.model.lowering.convolution import check_channels

    check_channels((1, 4, 5, 5), (6, 2, 3, 3), (6,), 2)
    with pytest.raises(UnsupportedError, match="do not fit each other"):
        check_channels((1, 3, 5, 5), (6, 2, 3, 3), (6,), 2)


# ---------------------------------------------------------------- anything


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytes_never_raise_anything_else(save, damage):
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], ceil_mode=1),
        node("Reshape", ["p", "s"], ["f"]),
        node("Gemm", ["f", "v"], ["g"], transB=1),
        node("Clip", ["g", "low"]),
    ]
    weights = {"w": f32(rng, 1, 1, 3, 3), "s": np.array([1, -1]), "v": f32(rng, 2, 4), "low": np.float32(-1)}
    data = bytearray(make(nodes, (1, 1, 3, 3), weights).SerializeToString())
    for place, value in damage:
        data[int(place * len(data))] = value
    path = save(bytes(data))
    with contextlib.suppress(ModelError):
        load(path)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200))
def test_random_bytes(save, data):
    refused(save(data), ".")
