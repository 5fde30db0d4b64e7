"""Loading models that are fine: compression, external data, dynamic batches, odd but valid graphs."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from support.onnx_models import check_invariants, f32, make, node
from verifier.errors import ModelError
from verifier.model.operators import Input, Linear, Relu
from verifier.model.read import Model, load

BENCHMARKS = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"


def small(rng: np.random.Generator, shape: tuple = (1, 4)) -> onnx.ModelProto:
    weights = {"w": f32(rng, 4, 5), "b": f32(rng, 5), "v": f32(rng, 5, 2)}
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "v"]),
    ]
    return make(nodes, shape, weights)


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def loaded(model: onnx.ModelProto, tmp_path: Path) -> Model:
    return load(save(model, tmp_path / "model.onnx"))


def kinds(model: Model) -> list[str]:
    return [type(entry.operator).__name__ for entry in model.network.nodes]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_plain_and_compressed(rng, tmp_path):
    data = small(rng).SerializeToString()
    plain, packed, pieces = (tmp_path / name for name in ("net.onnx", "net.onnx.gz", "pieces.gz"))
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    pieces.write_bytes(gzip.compress(data[:50]) + gzip.compress(data[50:]) + b"\0" * 7)
    x = torch.from_numpy(rng.normal(size=(3, 4)))
    models = [load(plain), load(str(packed)), load(pieces)]
    for path, model in zip((plain, packed, pieces), models, strict=True):
        assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert model.path == path
        assert kinds(model) == ["Input", "Linear", "Relu", "Linear"]
        assert torch.equal(model.network.forward(x), models[0].network.forward(x))
    assert models[0].network.name == models[1].network.name == "net"


def test_compression_is_detected_by_content(rng, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(gzip.compress(small(rng).SerializeToString()))
    assert load(path).network.n_outputs == 2


@pytest.mark.parametrize("packed", [False, True])
def test_external_data(rng, tmp_path, packed):
    model = small(rng)
    reference = load(save(model, tmp_path / "reference.onnx"))
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path)
    if packed:
        data = path.read_bytes()
        path = tmp_path / "model.onnx.gz"
        path.write_bytes(gzip.compress(data))
    found = load(path)
    x = rng.normal(size=4).astype(np.float32).astype(float)
    assert torch.equal(
        found.network.forward(torch.from_numpy(x[None])), reference.network.forward(torch.from_numpy(x[None]))
    )
    assert np.array_equal(found.replay.run(x), reference.replay.run(x))
    digest = hashlib.sha256(path.read_bytes() + (tmp_path / "weights.bin").read_bytes()).hexdigest()
    assert found.sha256 == digest


def test_external_data_of_a_model_loaded_from_elsewhere(rng, tmp_path, monkeypatch):
    """Relative paths: the data are found beside the model, not in the working folder."""
    folder = tmp_path / "models"
    folder.mkdir()
    onnx.save_model(
        small(rng), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)
    assert load("models/model.onnx").network.n_outputs == 2


@pytest.mark.parametrize("first", ["N", None, 1])
def test_a_dynamic_first_dimension_is_one(rng, tmp_path, first):
    model = loaded(small(rng, (first, 4)), tmp_path)
    assert model.network.input_shape == (1, 4)
    assert model.network.output_shape == (1, 2)
    assert model.replay.input_shape == (1, 4)


def test_a_first_dimension_of_minus_one(rng, tmp_path):
    model = small(rng)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert loaded(model, tmp_path).network.input_shape == (1, 4)


def test_initializers_listed_as_inputs(rng, tmp_path):
    model = small(rng)
    for name, shape in (("w", (4, 5)), ("b", (5,)), ("v", (5, 2))):
        model.graph.input.insert(0, helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    assert loaded(model, tmp_path).network.n_inputs == 4


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1, 1), ()])
def test_one_input_and_one_output(tmp_path, shape):
    nodes = [node("Mul", ["x", "c"], ["h"]), node("Relu", ["h"])]
    model = loaded(make(nodes, shape, {"c": np.float32(-2)}), tmp_path)
    assert (model.network.n_inputs, model.network.n_outputs) == (1, 1)
    assert model.network.input_shape == shape
    assert model.replay.run(np.array([-3.0])).tolist() == [6.0]


def test_a_constant_network(tmp_path):
    """The output does not depend on the input, not even formally."""
    nodes = [node("Relu", ["x"], ["unused"]), node("Constant", [], ["c"], value_floats=[1.0, 2.5]), node("Neg", ["c"])]
    model = loaded(make(nodes, (1, 3)), tmp_path)
    check_invariants(model.network)
    x = torch.randn(4, 3, dtype=torch.float64)
    assert model.network.forward(x).tolist() == [[-1.0, -2.5]] * 4


def test_an_initializer_as_output(tmp_path):
    model = loaded(make([node("Relu", ["x"], ["r"])], (1, 3), {"c": np.ones((1, 2), np.float32)}, output="c"), tmp_path)
    assert model.network.forward(torch.zeros(1, 3, dtype=torch.float64)).tolist() == [[1.0, 1.0]]


def test_multiplication_by_zero(tmp_path):
    model = loaded(make([node("Mul", ["x", "c"])], (1, 3), {"c": np.zeros(3, np.float32)}), tmp_path)
    assert not model.network.forward(torch.ones(1, 3, dtype=torch.float64)).any()


def test_an_identity_network(tmp_path):
    model = loaded(make([node("Identity", ["x"])], (1, 3)), tmp_path)
    assert kinds(model) == ["Input", "Reshape"]


def test_an_output_in_the_middle(rng, tmp_path):
    """Nodes that the output does not need may be anything; the output may be read by them."""
    nodes = [
        node("Gemm", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Sigmoid", ["r"], ["beyond"]),
        node("Relu", ["beyond"], ["far"]),
    ]
    model = make(nodes, (1, 4), {"w": f32(rng, 4, 3)}, output="h")
    found = loaded(model, tmp_path)
    assert kinds(found) == ["Input", "Linear"]
    assert isinstance(found.network.nodes[0].operator, Input)


def test_200_layers(rng, tmp_path):
    nodes, weights, current = [], {}, "x"
    for layer in range(200):
        weights |= {f"w{layer}": f32(rng, 4, 4), f"b{layer}": f32(rng, 4)}
        nodes += [
            node("MatMul", [current, f"w{layer}"], [f"m{layer}"]),
            node("Add", [f"m{layer}", f"b{layer}"], [f"a{layer}"]),
            node("Relu", [f"a{layer}"], [f"r{layer}"]),
        ]
        current = f"r{layer}"
    model = loaded(make(nodes, (1, 4), weights, output=current), tmp_path)
    assert kinds(model) == ["Input", *["Linear", "Relu"] * 200]


def test_names_come_from_the_file(rng, tmp_path):
    model = loaded(small(rng), tmp_path)
    assert [entry.name for entry in model.network.nodes] == ["x", "Gemm_h", "Relu_r", "MatMul_y"]
    relu = next(entry for entry in model.network.nodes if isinstance(entry.operator, Relu))
    assert relu.name == "Relu_r"


def test_functions_are_inlined(rng, tmp_path):
    """Newer exporters wrap layers into functions of the model."""
    body = [helper.make_node("MatMul", ["a", "b"], ["m"]), helper.make_node("Relu", ["m"], ["c"])]
    function = helper.make_function("mine", "Layer", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    call = helper.make_node("Layer", ["x", "w"], ["y"], name="call", domain="mine")
    model = make([call], (1, 4), {"w": f32(rng, 4, 3)})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert kinds(loaded(model, tmp_path)) == ["Input", "Linear", "Relu"]


def test_weights_keep_every_bit(rng, tmp_path):
    weight = rng.normal(size=(4, 3))
    model = loaded(make([node("MatMul", ["x", "w"])], (1, 4), {"w": weight}, dtype=TensorProto.DOUBLE), tmp_path)
    operator = model.network.nodes[1].operator
    assert isinstance(operator, Linear)
    assert np.array_equal(operator.weight.numpy(), weight.T)
    assert model.network.input_dtype == model.replay.input_dtype == "float64"


def test_importing_the_reader_imports_nothing_heavy():
    code = (
        "import sys, verifier.model.read\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def real_models() -> list:
    """One parameter per file; those of nn4sys take seconds and 2 GB each."""
    folders = (BENCHMARKS / name for name in ("vnncomp2021", "mnist_wk17a", "deepgo"))
    found = [path for folder in folders for path in sorted(folder.rglob("*.onnx*"))] or [BENCHMARKS]
    return [
        pytest.param(path, marks=[pytest.mark.slow] if "nn4sys" in path.parts else [], id=path.name) for path in found
    ]


@pytest.mark.parametrize("path", real_models())
def test_benchmark_models(path):
    if not path.is_file():
        pytest.skip(f"{BENCHMARKS} is absent")
    if "SIGMOID" in path.name:
        with pytest.raises(ModelError, match=r"6 nodes that are not supported.*Sigmoid \(nodes 'Sigmoid_6', "):
            load(path)
        return
    model = load(path)
    check_invariants(model.network)
    # Nothing but the operators of the paper's figure is left: biases, means and deviations are absorbed.
    assert "Scale" not in kinds(model) or "maxpool" in path.name


@pytest.mark.parametrize(
    "path", sorted((BENCHMARKS / "bnn_mnist").rglob("*.onnx")) or [BENCHMARKS], ids=lambda p: p.name
)
def test_binarised_models_are_refused_by_name(path):
    if not path.is_file():
        pytest.skip(f"{BENCHMARKS} is absent")
    with pytest.raises(ModelError, match=r"Round \(node .*\): operator not supported; Sign \(nodes "):
        load(path)
