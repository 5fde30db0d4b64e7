"""The bytes of a model as an ONNX graph, and what its interface has to be: one float input, one output.

Nothing here needs torch: every way of reading a model (the layer IR, the exact form of binarised networks) starts
with these checks, which decide what message a user sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto

from verifier.errors import ModelError
from verifier.model.diagnostics import element_name
from verifier.model.external import attach
from verifier.model.files import PICKLE_HINTS
from verifier.model.replay import InputType

STANDARD_DOMAINS = ("", "ai.onnx")
OLDEST_OPSET = 7
PROTOBUF_LIMIT = 2**31 - 1
MOST_INPUTS = 2**28
INPUT_TYPES: dict[int, InputType] = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}


@dataclass(frozen=True)
class Source:
    """The model's input: its name in the graph, its full shape (a dynamic batch size is 1), its element type."""

    name: str
    shape: tuple[int, ...]
    dtype: InputType


def checked_model(data: bytes, path: Path) -> tuple[ModelProto, Source, tuple[Path, ...]]:
    """The parsed model with external data read and functions inlined, its input, and the external files.

    data: uncompressed.  path: of the file, for its external data.  Raises ModelError.
    """
    model = _decode(data)
    external_files = attach(model, path)
    _check_opset(model)
    if model.graph.sparse_initializer:
        raise ModelError("the model has sparse initializers, which are not supported; store them as dense tensors")
    info = _only_input(model)
    source = Source(info.name, _input_shape(info), _input_type(info))
    _only_output(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return model, source, external_files


def _decode(data: bytes) -> ModelProto:
    """The parsed model.  data: uncompressed.  Raises ModelError for what is no ONNX file."""
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
    """Raises ModelError for opsets that are not read."""
    newest = onnx.defs.onnx_opset_version()
    versions = [opset.version for opset in model.opset_import if opset.domain in STANDARD_DOMAINS]
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
    """The one input.  Raises ModelError when there are none or several."""
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
    """Raises ModelError when there are none or several."""
    names = [value.name for value in model.graph.output]
    if len(names) != 1:
        found = ", ".join(map(repr, names)) or "none"
        raise ModelError(
            f"the model has {len(names)} outputs ({found}), but exactly one is supported; "
            "export it with the one that the property is about"
        )


def _input_type(source: ValueInfoProto) -> InputType:
    """What the input takes.  Raises ModelError unless it is float or double."""
    element = source.type.tensor_type.elem_type
    if not source.type.HasField("tensor_type") or element not in INPUT_TYPES:
        kind = element_name(element) if source.type.HasField("tensor_type") else "not a tensor"
        raise ModelError(
            f"the input {source.name!r} is {kind}; only FLOAT and DOUBLE inputs are supported, "
            "convert and export the model again"
        )
    return INPUT_TYPES[element]


def _input_shape(source: ValueInfoProto) -> tuple[int, ...]:
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
