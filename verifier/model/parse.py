"""From the bytes of a model to a checked network.

The order of the checks decides which message a user sees: is it ONNX at all, are its data there, does its
interface fit (one float input, one output, known sizes), does onnxruntime accept it, is every node supported,
and does the network compute what onnxruntime computes.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from verifier.errors import ModelError
from verifier.model import graph, load_check, simplify
from verifier.model.interface import checked_model
from verifier.model.network import Network
from verifier.model.replay import OnnxReplay


def parse(data: bytes, path: Path) -> tuple[Network, OnnxReplay, tuple[Path, ...]]:
    """The checked network, the replay, and the external data files the model uses.

    data: uncompressed.  Raises ModelError.
    """
    model, source, external_files = checked_model(data, path)
    replay = _replay(data, path, model)
    name = path.name.removesuffix(".gz").removesuffix(".onnx")
    network = graph.lower(model, source.name, source.shape, name, source.dtype)
    network = simplify.simplify(network)
    load_check.check(network, replay)
    return network, replay, external_files


def _replay(data: bytes, path: Path, model: onnx.ModelProto) -> OnnxReplay:
    try:
        return OnnxReplay(data, path.resolve().parent)
    except ModelError:
        # A list of what is not supported says more than onnxruntime's first complaint.
        if missing := graph.unknown_operators(model):
            raise ModelError(missing) from None
        raise
