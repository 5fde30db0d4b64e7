"""The walk over an ONNX graph: constants are folded, other nodes go to their lowering rules.

The walk knows no operator.  It keeps going past nodes it cannot lower (a stand-in of the inferred shape takes
their place), so that one error lists all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from verifier.errors import ModelError
from verifier.model.diagnostics import describe, first_line, node_name, operator_name
from verifier.model.folding import AnyArray, evaluate
from verifier.model.interface import STANDARD_DOMAINS
from verifier.model.lowering import RULES
from verifier.model.lowering.call import Builder, Call, Constant, UnsupportedError, Value, Variable, as_floats
from verifier.model.network import Network
from verifier.model.operators import Reshape
from verifier.model.operators.affine import Shape
from verifier.model.replay import InputType

RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
HINTS = {
    "Softmax": "remove it from the end of the model: it keeps the order of the outputs",
    "LogSoftmax": "remove it from the end of the model: it keeps the order of the outputs",
    "ArgMax": "remove it and state the property about the scores",
}
NO_RULE = "operator not supported"
Finding = tuple[NodeProto, str]  # a node and why it is not supported
# Initializers up to this size may say shapes, which inference needs to know.
_SHAPE_TENSOR = 1024
_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def lower(model: ModelProto, input_name: str, input_shape: Shape, name: str, input_dtype: InputType) -> Network:
    """The model's network, not yet simplified.

    model: checked by onnxruntime, with one input and one output, its external data loaded.
    Raises ModelError with the list of all unsupported nodes.
    """
    walk = _Walk(model, Builder(input_shape, input_name, input_dtype))
    for node in walk.needed:
        walk.visit(node)
    if walk.unsupported:
        raise ModelError(_summary(walk.unsupported))
    target = model.graph.output[0].name
    result = walk.lookup(target)
    if isinstance(result, Constant):
        result = walk.builder.constant(as_floats(result.value, result.name, "the output"))
    if not math.prod(result.shape):
        raise ModelError(f"the output {target!r} has no values (shape {result.shape}); export the model again")
    if result.index == 0:
        result = walk.builder.add(Reshape(result.shape), result)
    return Network(tuple(walk.builder.nodes[: result.index + 1]), name, input_dtype)


def unknown_operators(model: ModelProto) -> str | None:
    """The list of nodes that have no rule, without a look at attributes; None when all have one."""
    missing = [(node, NO_RULE) for node in model.graph.node if not (_known(node) or node.op_type == "Constant")]
    return _summary(missing) if missing else None


def _known(node: NodeProto) -> bool:
    return node.domain in STANDARD_DOMAINS and node.op_type in RULES


def _summary(findings: list[Finding]) -> str:
    """All findings in one sentence; nodes with the same operator and reason share an entry."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reason in findings:
        groups.setdefault((operator_name(node), reason), []).append(node_name(node))
    entries = []
    for (operator, reason), names in groups.items():
        hint = HINTS.get(operator)
        nodes = ("node " if len(names) == 1 else "nodes ") + ", ".join(map(repr, names))
        entries.append(f"{operator} ({nodes}): {reason}" + (f", {hint}" if hint else ""))
    count = "1 node that is" if len(findings) == 1 else f"{len(findings)} nodes that are"
    return f"the model has {count} not supported (replace or remove): " + "; ".join(entries)


class _Walk:
    """The values known so far, by name, and the IR nodes built so far."""

    def __init__(self, model: ModelProto, builder: Builder) -> None:
        self.model = model
        self.opset = max((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), default=1)
        self.builder = builder
        self.unsupported: list[Finding] = []
        self._initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values: dict[str, Value | None] = {builder.nodes[0].name: builder.source}
        self._read = {output.name for output in model.graph.output}
        self.needed = self._needed_nodes()
        self._shapes: dict[str, Shape] | None = None

    def _needed_nodes(self) -> list[NodeProto]:
        """The nodes that the output depends on, in order; what they read is noted."""
        needed = []
        for node in reversed(self.model.graph.node):
            if any(name in self._read for name in node.output):
                needed.append(node)
                self._read.update(name for name in node.input if name)
        return needed[::-1]

    def lookup(self, name: str) -> Value:
        """The value of a name that is known to be defined."""
        value = self._find(name)
        assert value is not None
        return value

    def visit(self, node: NodeProto) -> None:
        self.builder.current = node.name or (node.output[0] if node.output else "")
        try:
            values = self._evaluate(node)
        except UnsupportedError as error:
            self.unsupported.append((node, str(error)))
            values = tuple(self._stand_in(name) for name in node.output)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # A malformed node, or a rule that does not know some corner of its operator.
            raise ModelError(
                f"{describe(node)} cannot be understood ({first_line(error)}); export the model again or report it"
            ) from error
        for name, value in zip(node.output, values, strict=False):
            if name:
                self._values[name] = value

    def _evaluate(self, node: NodeProto) -> tuple[Value | None, ...]:
        """The values of a node's outputs; None where the input of a node could not even be guessed."""
        known = _known(node)
        if any(attribute.type in _SUBGRAPHS for attribute in node.attribute):
            raise UnsupportedError("operator with a subgraph")
        if node.op_type in RANDOM:
            raise UnsupportedError("operator with random results")
        inputs = tuple(self._find(name) if name else None for name in node.input)
        lost = any(name and value is None for name, value in zip(node.input, inputs, strict=True))
        if not lost and all(value is None or isinstance(value, Constant) for value in inputs):
            return self._fold(node, tuple(value for value in inputs if not isinstance(value, Variable)))
        if not known:
            raise UnsupportedError(NO_RULE)
        if lost:
            return (None,) * len(node.output)
        needed = frozenset(i for i, name in enumerate(node.output) if name in self._read)
        attributes = {a.name: _attribute(a) for a in node.attribute}
        call = Call(node, inputs, attributes, self.opset, self.model.opset_import, needed, self.builder)
        result = RULES[node.op_type](call)
        if overlooked := call.overlooked():
            raise UnsupportedError(", ".join(overlooked))
        return result if isinstance(result, tuple) else (result,)

    def _fold(self, node: NodeProto, inputs: tuple[Constant | None, ...]) -> tuple[Value | None, ...]:
        if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS:
            return (Constant(_constant(node), node.output[0]),)
        if node.op_type == "Identity" and node.domain in STANDARD_DOMAINS:
            return inputs
        arrays = [None if value is None else value.value for value in inputs]
        results = evaluate(node, arrays, self.model.opset_import)
        return tuple(Constant(value, name) for value, name in zip(results, node.output, strict=True))

    def _find(self, name: str) -> Value | None:
        if name in self._values:
            return self._values[name]
        if name not in self._initializers:
            raise ModelError(f"the model reads {name!r}, which nothing in it produces; export it again")
        try:
            array = numpy_helper.to_array(self._initializers[name])
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"tensor {name!r} cannot be read: {first_line(error)}; export it again") from None
        self._values[name] = Constant(array, name)
        return self._values[name]

    def _stand_in(self, name: str) -> Value | None:
        """A value of the right shape for the output of an unsupported node, so that the walk can go on."""
        if self._shapes is None:
            self._shapes = _inferred_shapes(self.model, self.builder.source.shape)
        shape = self._shapes.get(name)
        return None if shape is None else self.builder.constant(np.zeros(shape))


def _inferred_shapes(model: ModelProto, input_shape: Shape) -> dict[str, Shape]:
    """The static shapes that onnx infers; large weights count only with their own shapes."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        small = math.prod(tensor.dims) <= _SHAPE_TENSOR
        light.graph.initializer.append(
            tensor if small else TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        )
    initializers = {tensor.name for tensor in model.graph.initializer}
    for value in light.graph.input:
        if value.name not in initializers:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, input_shape, strict=False):
                dim.dim_value = size
    try:
        inferred = onnx.shape_inference.infer_shapes(light)
    except Exception:  # a missing stand-in only shortens the list of unsupported nodes
        return {}
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.HasField("shape")
        and all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)
    }


def _attribute(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (str, int, float, TensorProto)):
        return value
    return tuple(value)


def _constant(node: NodeProto) -> AnyArray:
    """The value of a Constant node."""
    attributes: Mapping[str, AttributeProto] = {a.name: a for a in node.attribute}
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in attributes:
            return np.array(_attribute(attributes[name]), dtype=dtype)
    if "value" in attributes:
        return numpy_helper.to_array(attributes["value"].t)
    raise UnsupportedError("constant that is neither numbers nor a tensor")
