"""External data: tensors whose bytes lie in files beside the model.

They are read into the parsed model here, with our own checks of where the files are; see ``files``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

from verifier.errors import ModelError
from verifier.model.files import external_file, read_slice


def attach(model: ModelProto, path: Path) -> tuple[Path, ...]:
    """Read all external tensors into the model; returns the files used, sorted by name.

    path: of the model; the files must lie in its folder.  Raises ModelError.
    """
    folder = path.resolve().parent
    files: set[Path] = set()
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = external_file(entries.get("location", ""), folder, path, tensor.name)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries["length"]) if "length" in entries else None
        except ValueError:
            offset = length = -1
        if offset < 0 or (length is not None and length < 0):
            raise ModelError(f"tensor {tensor.name!r} has external data with a bad offset or length; export it again")
        tensor.raw_data = read_slice(file, offset, length, path, tensor.name)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
        files.add(file)
    return tuple(sorted(files))


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the model, those in attributes, subgraphs and functions included."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)


def _graph_tensors(root: GraphProto) -> Iterator[TensorProto]:
    waiting = [root]
    while waiting:
        graph = waiting.pop()
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                waiting.extend(attribute.graphs)
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
