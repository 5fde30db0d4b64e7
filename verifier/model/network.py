"""The intermediate representation of a network: a short list of nodes over the small operator set.

Invariants: node 0 is the only ``Input``; nodes are in topological order; the last node is the output;
every node but the output is used.  Parameters are float64 tensors, so float32 weights are kept exactly.
A shape is that of one sample and is the full ONNX shape, its leading 1 included; the batch axis that
``forward`` works on stands in front of it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from verifier.model.operators import Input, Operator, Relu
from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Node:
    """One operator, the indices of the nodes it reads, and the shape of its value for one sample."""

    operator: Operator
    inputs: tuple[int, ...]
    shape: Shape
    name: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Network:
    """nodes: see the module docstring.  input_dtype: what the ONNX model takes."""

    nodes: tuple[Node, ...]
    name: str = "network"
    input_dtype: Literal["float32", "float64"] = "float32"

    @property
    def input_shape(self) -> Shape:
        return self.nodes[0].shape

    @property
    def output_shape(self) -> Shape:
        return self.nodes[-1].shape

    @property
    def n_inputs(self) -> int:
        return self.nodes[0].size

    @property
    def n_outputs(self) -> int:
        return self.nodes[-1].size

    @cached_property
    def relus(self) -> tuple[int, ...]:
        """Indices of the ReLU nodes, in order."""
        return tuple(i for i, node in enumerate(self.nodes) if isinstance(node.operator, Relu))

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For every node the nodes that read it (twice if twice)."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for i, node in enumerate(self.nodes):
            for source in node.inputs:
                found[source].append(i)
        return tuple(tuple(readers) for readers in found)

    def input_shapes(self, index: int) -> tuple[Shape, ...]:
        """The shapes of what node ``index`` reads."""
        return tuple(self.nodes[source].shape for source in self.nodes[index].inputs)

    def values(self, x: Tensor) -> list[Tensor]:
        """Every node's value, [B, *shape], for inputs x: [B, *input_shape] or [B, n_inputs]."""
        values = [x.reshape(x.shape[0], *self.input_shape)]
        for node in self.nodes[1:]:
            assert not isinstance(node.operator, Input)
            values.append(node.operator.forward(*(values[source] for source in node.inputs)))
        return values

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, flattened: [B, n_outputs] for x: [B, n_inputs] (or shaped)."""
        return self.values(x)[-1].reshape(x.shape[0], -1)

    def to(self, dtype: torch.dtype, device: str | torch.device = "cpu") -> Network:
        """A copy with its parameters in ``dtype`` on ``device``."""
        nodes = tuple(dataclasses.replace(node, operator=_convert(node.operator, dtype, device)) for node in self.nodes)
        return dataclasses.replace(self, nodes=nodes)

    @property
    def dtype(self) -> torch.dtype:
        for node in self.nodes:
            for value in vars(node.operator).values():
                if isinstance(value, Tensor) and value.is_floating_point():
                    return value.dtype
        return torch.float64

    @property
    def device(self) -> torch.device:
        for node in self.nodes:
            for value in vars(node.operator).values():
                if isinstance(value, Tensor):
                    return value.device
        return torch.device("cpu")


def build(
    nodes: list[tuple[Operator, tuple[int, ...]]],
    name: str = "network",
    input_dtype: Literal["float32", "float64"] = "float32",
) -> Network:
    """A network from operators and the indices they read; shapes are worked out here."""
    built: list[Node] = []
    for operator, inputs in nodes:
        shape = operator.output_shape(tuple(built[source].shape for source in inputs))
        built.append(Node(operator, inputs, tuple(shape), f"{type(operator).__name__.lower()}_{len(built)}"))
    return Network(tuple(built), name, input_dtype)


def _convert(operator: Operator, dtype: torch.dtype, device: str | torch.device) -> Operator:
    record: Any = operator  # a frozen dataclass, which the protocol of affine operators cannot say
    changes = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = value.to(device, dtype) if value.is_floating_point() else value.to(device=device)
    return dataclasses.replace(record, **changes) if changes else operator
