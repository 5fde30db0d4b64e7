"""Load a model as a binarised network, where it is one.

torch is not needed: a binarised network is loaded and attacked without it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from verifier.binarised.query import BinarisedModel
from verifier.errors import ModelError
from verifier.model.files import DEFAULT_LIMIT, expand, read_file

CHECKED_POINTS = 8
STEP_OPERATORS = ("Sign", "Round", "Floor", "Ceil", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
MARKS = tuple(bytes([0x22, len(name)]) + name.encode() for name in STEP_OPERATORS)
"""How an operator's name is written in an ONNX file (protobuf field 4 of a node): without one of these bytes there is
no need to parse the file."""


def load_binarised(path: str | Path, limit: int = DEFAULT_LIMIT) -> tuple[BinarisedModel | None, str]:
    """The model, or None and the reason where it is no binarised network ("" where nothing hints at one).

    Raises ModelError for a file that is no usable model at all, or whose integer form does not compute what
    onnxruntime computes.
    """
    path = Path(path)
    data = read_file(path)
    digest = hashlib.sha256(data)
    data = expand(data, path, limit)
    if not any(mark in data for mark in MARKS):
        return None, ""
    from verifier.binarised.closing import UnrecognisedError
    from verifier.binarised.goals import GoalMaker
    from verifier.binarised.levels import LevelFinder
    from verifier.binarised.recognise import recognise
    from verifier.model.interface import checked_model
    from verifier.model.replay import OnnxReplay

    try:
        model, source, files = checked_model(data, path)
        if not any(node.op_type in STEP_OPERATORS for node in model.graph.node):
            return None, ""
        replay = OnnxReplay(data, path.resolve().parent)
        name = path.name.removesuffix(".gz").removesuffix(".onnx")
        network = recognise(model, source, name)
    except UnrecognisedError as error:
        return None, str(error)
    except ModelError as error:
        raise error if str(error).startswith(str(path)) else ModelError(f"{path}: {error}") from None
    for file in files:
        digest.update(file.read_bytes())
    finder = None if network.quantiser is None else LevelFinder(network.quantiser)
    loaded = BinarisedModel(network, replay, path, digest.hexdigest(), finder, GoalMaker(network.outputs))
    check(loaded)
    for layer in network.layers:
        layer.products.prepare()
    return loaded, ""


def check(model: BinarisedModel, seed: int = 0, points: int = CHECKED_POINTS) -> None:
    """Compare the integer form with onnxruntime on random images.  Raises ModelError."""
    network = model.network
    if network.quantiser is None:
        return
    rng = np.random.default_rng(seed)
    for _ in range(points):
        x = rng.random(network.n_inputs).astype(np.float32).astype(np.float64)
        levels = network.quantiser(x).astype(np.int64)
        expected = network.outputs.values(network.hidden(levels[None])[-1][0])
        found = model.replay.run(x)
        size = np.abs(expected) + np.abs(found) + 1
        if not np.all(np.abs(expected - found) <= 1e-4 * size):
            raise ModelError(
                f"{model.path}: the integer form of the binarised network and onnxruntime disagree by "
                f"{np.abs(expected - found).max():.3g} on a random input; please report the model"
            )
