"""What a lowering rule sees: the values a node reads, its attributes, and a builder for IR nodes.

A value is either a ``Constant`` (known when the model is read) or a ``Variable`` (computed from the input).
Rules never see a node whose inputs are all constants: those are folded beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, OperatorSetIdProto
from torch import Tensor

from verifier.errors import ModelError
from verifier.model.diagnostics import describe
from verifier.model.folding import AnyArray
from verifier.model.network import Node
from verifier.model.operators import Gather, Input, Operator, Relu, Reshape, Scale, Sum
from verifier.model.operators.affine import Shape
from verifier.model.replay import InputType

Floats = NDArray[np.float64]


class UnsupportedError(Exception):
    """A node that has no lowering; the message says which part of it."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the network's input, and its name in the file."""

    value: AnyArray
    name: str

    @property
    def shape(self) -> Shape:
        return tuple(self.value.shape)


@dataclass(frozen=True)
class Variable:
    """The value of IR node ``index``, of the given ONNX shape."""

    index: int
    shape: Shape

    @property
    def size(self) -> int:
        return math.prod(self.shape)


Value = Constant | Variable


def tensor(values: NDArray[Any] | float) -> Tensor:
    """A float64 torch tensor with the same entries."""
    array = np.ascontiguousarray(values, dtype=np.float64).reshape(np.shape(values))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _finite(values: Tensor) -> bool:
    # Extremes instead of isfinite: they propagate NaN and need no array of the size of the weights.
    return not values.numel() or (math.isfinite(values.min()) and math.isfinite(values.max()))


class Builder:
    """Collects IR nodes; the short methods are the vocabulary of the lowering rules."""

    def __init__(self, input_shape: Shape, input_name: str, input_dtype: InputType) -> None:
        self.input_dtype = input_dtype
        self.nodes: list[Node] = [Node(Input(input_shape), (), input_shape, input_name)]
        self.current = ""

    @property
    def source(self) -> Variable:
        """The network's input."""
        return Variable(0, self.nodes[0].shape)

    def add(self, operator: Operator, *inputs: Variable) -> Variable:
        """A new IR node.  Raises ModelError when a parameter is NaN or infinite."""
        for parameter in vars(operator).values():
            if isinstance(parameter, Tensor) and not _finite(parameter):
                raise ModelError(f"node {self.current!r} works with NaN or infinite numbers; check the model's weights")
        shape = tuple(operator.output_shape(tuple(value.shape for value in inputs)))
        self.nodes.append(Node(operator, tuple(value.index for value in inputs), shape, self.current))
        return Variable(len(self.nodes) - 1, shape)

    def relu(self, x: Variable) -> Variable:
        return self.add(Relu(), x)

    def sum(self, *inputs: Variable) -> Variable:
        return self.add(Sum(), *inputs)

    def scale(
        self,
        x: Variable,
        scale: NDArray[Any] | float = 1.0,
        shift: NDArray[Any] | float = 0.0,
        ulps: int = 0,
        offset_error: NDArray[Any] | None = None,
    ) -> Variable:
        """``scale * x + shift``; both broadcast to x's shape without enlarging it."""
        error = None if offset_error is None else tensor(offset_error)
        return self.add(Scale(tensor(scale), tensor(shift), ulps, error), x)

    def reshape(self, x: Variable, shape: Shape) -> Variable:
        return x if shape == x.shape else self.add(Reshape(shape), x)

    def gather(self, x: Variable, index: NDArray[Any]) -> Variable:
        """Entry ``index`` of the flattened x, 0 where the index is -1; the result has the index's shape."""
        return self.add(Gather(torch.from_numpy(np.array(index, dtype=np.int64, order="C"))), x)

    def expand(self, x: Variable, shape: Shape) -> Variable:
        """x broadcast to ``shape``."""
        if shape == x.shape:
            return x
        if math.prod(shape) == x.size:
            return self.reshape(x, shape)
        return self.gather(x, np.broadcast_to(positions(x), shape))

    def permute(self, x: Variable, axes: Sequence[int]) -> Variable:
        """x with its axes in a new order."""
        return self.gather(x, positions(x).transpose(axes))

    def constant(self, value: NDArray[Any]) -> Variable:
        """A variable that always has this value."""
        zeros = self.gather(self.source, np.full(value.shape, -1))
        return self.scale(zeros, 1.0, value)


def positions(x: Variable) -> NDArray[np.int64]:
    """The index of every entry of x in C order, in x's shape."""
    return np.arange(x.size).reshape(x.shape)


@dataclass
class Call:
    """One ONNX node with its inputs resolved.

    opset: the version of the standard operator set.  Attributes that a rule neither reads nor ignores make
    the node unsupported: a rule cannot overlook one.
    """

    node: NodeProto
    inputs: tuple[Value | None, ...]
    attributes: dict[str, Any]
    opset: int
    opsets: Sequence[OperatorSetIdProto]
    needed: frozenset[int]
    builder: Builder
    _seen: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return describe(self.node)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value: int, float, str, tuple, array or the default."""
        self._seen.add(name)
        return self.attributes.get(name, default)

    def ignore(self, *names: str) -> None:
        """These attributes do not matter here."""
        self._seen.update(names)

    def ignore_all(self) -> None:
        """onnxruntime interprets all attributes of this node."""
        self._seen.update(self.attributes)

    def overlooked(self) -> list[str]:
        """Attributes that the rule did not look at, as ``name = value``."""
        return [f"attribute {name} = {value}" for name, value in self.attributes.items() if name not in self._seen]

    def has(self, position: int) -> bool:
        """Whether the optional input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def value(self, position: int) -> Value:
        found = self.inputs[position] if self.has(position) else None
        if found is None:
            raise ModelError(f"{self} lacks its input number {position + 1}; export the model again")
        return found

    def variable(self, position: int) -> Variable:
        """An input as a variable, even where it is constant."""
        value = self.value(position)
        return value if isinstance(value, Variable) else self.builder.constant(self.floats(position))

    def constant(self, position: int, role: str) -> AnyArray:
        """A constant input of any type.  Raises UnsupportedError when the network computes it."""
        value = self.value(position)
        if isinstance(value, Variable):
            raise UnsupportedError(f"its {role} is computed by the network instead of being constant")
        return value.value

    def floats(self, position: int, role: str = "input", finite: bool = True) -> Floats:
        """A constant input as float64.  Raises ModelError when it has NaN or (unless allowed) infinities."""
        array = self.constant(position, role)
        name = getattr(self.value(position), "name", "")
        return as_floats(array, name, str(self), finite)

    def integers(self, position: int, role: str) -> tuple[int, ...]:
        """A constant input as a tuple of integers."""
        return tuple(int(entry) for entry in np.asarray(self.constant(position, role)).reshape(-1))


def as_floats(array: AnyArray, name: str, where: str, finite: bool = True) -> Floats:
    """The array as float64; bad numbers are reported with the tensor's name."""
    values = np.asarray(array).astype(np.float64, copy=False)
    extremes = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if math.isnan(extremes[0]) or (finite and not all(map(math.isfinite, extremes))):
        kind = "NaN" if math.isnan(extremes[0]) else "infinite"
        raise ModelError(f"tensor {name!r}, read by {where}, has {kind} entries; train or export the model again")
    return values
