"""Random tiny binarised networks as ONNX models, in all idioms that are recognised, and their properties.

What they compute is found out by onnxruntime alone, on every combination of levels (``enumerate_points``): nothing of
the code under test takes part.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from verifier.model.replay import OnnxReplay
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

Floats = NDArray[np.float64]

STEPS = ("sign", "ternary", "twice", "greater", "where", "normalised", "stairs")


@dataclass(frozen=True, eq=False)
class Case:
    """model: bytes of the ONNX file.  steps: idioms used.  spec: a property of it."""

    model: bytes
    steps: tuple[str, ...]
    spec: Spec


class Writer:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: NDArray[np.generic] | float) -> str:
        name = f"c{len(self.constants)}"
        array = np.asarray(value)
        self.constants.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def model(self, n_inputs: int, output: str, n_outputs: int) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", n_inputs])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", n_outputs])],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(made.SerializeToString())


def quantise(writer: Writer, rng: np.random.Generator) -> str:
    """One of several quantisers with steps of about a tenth."""
    kind = rng.integers(5)
    if kind == 0:
        return writer.add("Round", writer.add("Div", "x", writer.constant(0.1)))
    if kind == 1:
        return writer.add("Floor", writer.add("Mul", "x", writer.constant(10.0)))
    if kind == 2:
        rounded = writer.add("Round", writer.add("Mul", "x", writer.constant(7.0)))
        return writer.add("Clip", rounded, writer.constant(1.0), writer.constant(6.0))
    if kind == 3:
        return writer.add("Ceil", writer.add("Mul", writer.add("Sub", writer.constant(0.7), "x"), writer.constant(9.0)))
    return writer.add("Sign", writer.add("Sub", "x", writer.constant(0.5)))


def step(writer: Writer, rng: np.random.Generator, name: str, sums: str, width: int, size: int) -> str:
    """sums: [n, width], of absolute value up to ``size``."""
    spread = max(1, size // 2)
    half = rng.integers(-spread, spread, width) + 0.5
    whole = rng.integers(-spread, spread + 1, width)
    if name == "sign":
        return writer.add("Sign", writer.add("Sub", sums, writer.constant(half)))
    if name == "ternary":
        return writer.add("Sign", writer.add("Sub", sums, writer.constant(whole)))
    if name == "twice":
        once = writer.add("Sign", writer.add("Add", sums, writer.constant(whole)))
        return writer.add("Sign", writer.add("Add", once, writer.constant(0.1)))
    if name == "greater":
        return writer.add("Cast", writer.add("Greater", sums, writer.constant(whole)), to=TensorProto.FLOAT)
    if name == "where":
        above = writer.add("LessOrEqual", sums, writer.constant(whole))
        return writer.add("Where", above, writer.constant(-1.0), writer.constant(1.0))
    if name == "normalised":
        scale, shift = rng.normal(size=width), rng.normal(size=width)
        mean, variance = rng.normal(size=width) * spread, rng.random(width) * 4 + 0.5
        parameters = [writer.constant(part) for part in (scale, shift, mean, variance)]
        return writer.add("Sign", writer.add("BatchNormalization", sums, *parameters, epsilon=1e-3))
    scaled = writer.add("Div", writer.add("Sub", sums, writer.constant(half)), writer.constant(2.0))
    return writer.add("Clip", writer.add("Round", scaled), writer.constant(-1.0), writer.constant(2.0))


def random_case(seed: int) -> Case:
    """A network with 2 to 4 inputs, up to three hidden layers and 2 to 4 classes, and a property about a small box."""
    rng = np.random.default_rng(seed)
    writer = Writer()
    n_inputs, n_outputs = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    value, width, size = quantise(writer, rng), n_inputs, 6
    steps = []
    for _ in range(int(rng.integers(1, 4))):
        wide = int(rng.integers(2, 7))
        choices = (-1, 1) if rng.random() < 0.5 else (-1, 0, 1)
        weights = rng.choice(choices, (width, wide))
        bias = writer.constant(rng.integers(-2, 3, wide)) if rng.random() < 0.3 else None
        sums = (
            writer.add("MatMul", value, writer.constant(weights))
            if bias is None
            else writer.add("Gemm", value, writer.constant(weights.T), bias, transB=1)
        )
        steps.append(str(rng.choice(STEPS)))
        value = step(writer, rng, steps[-1], sums, wide, size * width // 2 + 1)
        width, size = wide, 2
    sums = writer.add("MatMul", value, writer.constant(rng.choice((-1, 1), (width, n_outputs))))
    output = writer.add("Add", sums, writer.constant(rng.normal(size=n_outputs).round(1)))
    model = writer.model(n_inputs, output, n_outputs)
    return Case(model, tuple(steps), random_spec(rng, model, n_inputs, n_outputs))


def random_spec(rng: np.random.Generator, model: bytes, n_inputs: int, n_outputs: int) -> Spec:
    """Another class than at the centre, or rows at random."""
    centre = rng.random(n_inputs).round(2)
    radius = rng.choice([0.05, 0.1, 0.15])
    lower, upper = np.maximum(centre - radius, 0.0), np.minimum(centre + radius, 1.0)
    label = int(OnnxReplay(model).run(centre.astype(np.float32).astype(np.float64)).argmax())
    disjuncts = []
    if rng.random() < 0.7:
        for other in set(range(n_outputs)) - {label}:
            row = np.zeros((1, n_outputs))
            row[0, label], row[0, other] = 1.0, -1.0
            disjuncts.append(Disjunct(lower, upper, constraints(n_inputs, row, np.zeros(1), rng.random(1) < 0.3)))
    else:
        for _ in range(int(rng.integers(1, 3))):
            count = int(rng.integers(1, 3))
            rows = rng.choice((-1.0, 0.0, 1.0, 0.5), (count, n_outputs))
            bounds = rng.integers(-2, 3, count) + 0.3
            disjuncts.append(Disjunct(lower, upper, constraints(n_inputs, rows, bounds, np.zeros(count, bool))))
    return Spec(n_inputs, n_outputs, tuple(disjuncts))


def constraints(n_inputs: int, rows: Floats, bounds: Floats, strict: NDArray[np.bool_]) -> LinearConstraints:
    return LinearConstraints(np.zeros((len(rows), n_inputs)), rows, bounds, strict)


def enumerate_points(lower: Floats, upper: Floats) -> Floats:
    """Inputs (N, n_inputs), float32 inside the box, that reach every combination of levels of the quantisers above."""
    columns = []
    for low, high in zip(lower, upper, strict=True):
        edges = np.concatenate([np.arange(-1, 24) * step + shift for step, shift in JUMPS]).astype(np.float32)
        near = [edges, np.nextafter(edges, np.float32(9)), np.nextafter(edges, np.float32(-9))]
        grid = np.concatenate([*near, np.linspace(low, high, 9).astype(np.float32)]).astype(np.float64)
        inside = np.unique(grid[(grid >= low) & (grid <= high)])
        columns.append(thinned(inside))
    return np.array(list(itertools.product(*columns)))


JUMPS = ((0.1, 0.05), (0.1, 0.0), (1 / 7, 0.5 / 7), (1 / 9, 0.7 - 1.0), (0.5, 0.0))
"""Step and shift of the places where the quantisers jump."""


def thinned(values: Floats) -> Floats:
    """One value per combination of all quantisers' levels."""
    single = values.astype(np.float32)
    keys = np.stack(
        [
            np.rint(single / np.float32(0.1)),
            np.floor(single * np.float32(10)),
            np.rint(single * np.float32(7)),
            np.ceil((np.float32(0.7) - single) * np.float32(9)),
            np.sign(single - np.float32(0.5)),
        ],
        axis=1,
    )
    _, first = np.unique(keys, axis=0, return_index=True)
    return values[np.sort(first)]


def tiny_network(seed: int, n_inputs: int, n_outputs: int, step: float = 0.1) -> bytes:
    """Div and Round by ``step``, one to three layers of signs, a real bias on the scores."""
    rng = np.random.default_rng(seed)
    writer = Writer()
    value, width = writer.add("Round", writer.add("Div", "x", writer.constant(step))), n_inputs
    size = int(n_inputs / step)
    for _ in range(int(rng.integers(1, 4))):
        wide = int(rng.integers(3, 7))
        sums = writer.add("MatMul", value, writer.constant(rng.choice((-1, 1), (width, wide))))
        half = rng.integers(-(size // 4) - 1, size // 4 + 1, wide) + 0.5
        value, width, size = writer.add("Sign", writer.add("Sub", sums, writer.constant(half))), wide, wide
    sums = writer.add("MatMul", value, writer.constant(rng.choice((-1, 1), (width, n_outputs))))
    output = writer.add("Add", sums, writer.constant(rng.normal(size=n_outputs)))
    return writer.model(n_inputs, output, n_outputs)
