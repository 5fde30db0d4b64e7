"""From the bytes of a model to a checked network.

The order of the checks decides which message a user sees: is it ONNX at all, are its data there, does its
interface fit (one float input, one output, known sizes), does onnxruntime accept it, is every node supported,
and does the network compute what onnxruntime computes.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto

from verifier.errors import ModelError
from verifier.model import graph, load_check, simplify
from verifier.model.diagnostics import element_name
from verifier.model.external import attach
from verifier.model.files import PICKLE_HINTS
from verifier.model.network import Network
from verifier.model.operators.affine import Shape
from verifier.model.replay import InputType, OnnxReplay

OLDEST_OPSET = 7
PROTOBUF_LIMIT = 2**31 - 1
MOST_INPUTS = 2**28
INPUT_TYPES: dict[int, InputType] = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}


def parse(data: bytes, path: Path) -> tuple[Network, OnnxReplay, tuple[Path, ...]]:
    """The checked network, the replay, and the external data files the model uses.

    data: uncompressed.  Raises ModelError.
    """
    model = _decode(data)
    external_files = attach(model, path)
    _check_opset(model)
    if model.graph.sparse_initializer:
        raise ModelError("the model has sparse initializers, which are not supported; store them as dense tensors")
    source = _only_input(model)
    shape, dtype = _input_shape(source), _input_type(source)
    _only_output(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    replay = _replay(data, path, model)
    name = path.name.removesuffix(".gz").removesuffix(".onnx")
    network = graph.lower(model, source.name, shape, name, dtype)
    network = simplify.simplify(network)
    load_check.check(network, replay)
    return network, replay, external_files


def _replay(data: bytes, path: Path, model: ModelProto) -> OnnxReplay:
    try:
        return OnnxReplay(data, path.resolve().parent)
    except ModelError:
        # A list of what is not supported says more than onnxruntime's first complaint.
        if missing := graph.unknown_operators(model):
            raise ModelError(missing) from None
        raise


def _decode(data: bytes) -> ModelProto:
    if data.startswith(PICKLE_HINTS):
        raise ModelError(
            "this is not an ONNX file but a pickle or zip archive (a PyTorch checkpoint?), which is never "
            "loaded because it can run code; export the model to ONNX"
        )
    if len(data) > PROTOBUF_LIMIT:
        raise ModelError("the file is larger than 2 GiB, the limit of ONNX files; save it with external data")
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError("this is not an ONNX file, or it is damaged or cut off; export or copy it again") from None
    if not model.HasField("graph") or not (model.graph.output or model.graph.node):
        raise ModelError("this is not an ONNX file (it holds no graph); export the model to ONNX")
    return model


def _check_opset(model: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    versions = [opset.version for opset in model.opset_import if opset.domain in graph.STANDARD_DOMAINS]
    version = max(versions, default=1)
    if version < OLDEST_OPSET:
        raise ModelError(
            f"the model uses opset {version}, which is too old ({OLDEST_OPSET} to {newest} are read); "
            "convert it with onnx.version_converter or export it again"
        )
    if version > newest:
        raise ModelError(
            f"the model uses opset {version}, which is too new ({OLDEST_OPSET} to {newest} are read); export "
            "it with an older opset or update onnx and onnxruntime"
        )


def _only_input(model: ModelProto) -> ValueInfoProto:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1:
        found = ", ".join(repr(value.name) for value in inputs) or "none"
        raise ModelError(
            f"the model has {len(inputs)} inputs ({found}), but exactly one is supported; export it with a single input"
        )
    source: ValueInfoProto = inputs[0]
    return source


def _only_output(model: ModelProto) -> None:
    names = [value.name for value in model.graph.output]
    if len(names) != 1:
        found = ", ".join(map(repr, names)) or "none"
        raise ModelError(
            f"the model has {len(names)} outputs ({found}), but exactly one is supported; "
            "export it with the one that the property is about"
        )


def _input_type(source: ValueInfoProto) -> InputType:
    element = source.type.tensor_type.elem_type
    if not source.type.HasField("tensor_type") or element not in INPUT_TYPES:
        kind = element_name(element) if source.type.HasField("tensor_type") else "not a tensor"
        raise ModelError(
            f"the input {source.name!r} is {kind}; only FLOAT and DOUBLE inputs are supported, "
            "convert and export the model again"
        )
    return INPUT_TYPES[element]


def _input_shape(source: ValueInfoProto) -> Shape:
    """Full shape; a dynamic first dimension is the batch size 1."""
    if not source.type.tensor_type.HasField("shape"):
        raise ModelError(f"the shape of the input {source.name!r} is not given; export the model with fixed sizes")
    shape = []
    for axis, dim in enumerate(source.type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            shape.append(dim.dim_value)
        elif axis == 0:
            shape.append(1)
        else:
            symbol = dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else "unknown")
            raise ModelError(
                f"dimension {axis} of the input {source.name!r} has no fixed size ({symbol}); only the first "
                "may be dynamic, export the model with fixed sizes"
            )
    if math.prod(shape) > MOST_INPUTS:
        raise ModelError(f"the input {source.name!r} of shape {tuple(shape)} has more than {MOST_INPUTS} values")
    return tuple(shape)
