"""From an ONNX graph to the exact integer form, or the reason why the model has none.

The walk keeps for every tensor the last linear layer it depends on (its *base*), which entry of it every entry
depends on,
and the elementwise nodes in between.  When the next linear layer reads such a tensor, the chain of nodes is asked,
through onnxruntime, where it jumps: those are the thresholds.  So the idioms need not be known one by one: a
half-integer ``Sub`` before ``Sign``, BatchNormalization, ``Sign(Sign(z) + 0.1)``, ``Where(z > t, 1, 0)`` and
activations with more than two values are all step functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import scipy.sparse as sp
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from verifier.binarised.chain import MOVEMENT, Chain, exact_offsets, monotone
from verifier.binarised.closing import (
    EXACT_LIMIT,
    Base,
    Closed,
    Inputs,
    Quantiser,
    Sums,
    UnrecognisedError,
    any_of,
    closed_inputs,
    closed_sums,
)
from verifier.binarised.linear import NotLinearError, convolution, matmul, windows
from verifier.binarised.network import BinarisedNetwork, Gates, Outputs, RealGates
from verifier.errors import ModelError
from verifier.model.diagnostics import describe
from verifier.model.folding import evaluate
from verifier.model.interface import STANDARD_DOMAINS, Source

AnyArray = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Variable:
    """A tensor that depends on the input.  index: (*shape), entries of the base; nodes: between base and here."""

    base: Base
    index: NDArray[np.int64]
    nodes: tuple[NodeProto, ...] = ()


Value = Variable | AnyArray


def recognise(model: ModelProto, source: Source, name: str) -> BinarisedNetwork:
    """The integer form.  model: checked, external data loaded.  Raises UnrecognisedError with the reason."""
    if source.dtype != "float32":
        raise UnrecognisedError("its input is float64; export it with float32")
    walk = _Walk(model, source)
    for node in walk.needed():
        try:
            walk.visit(node)
        except (NotLinearError, UnrecognisedError) as error:
            raise UnrecognisedError(f"{describe(node)}: {error}") from None
        except (ModelError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise UnrecognisedError(f"{describe(node)} cannot be evaluated ({error})") from None
    return walk.result(name)


class _Walk:
    def __init__(self, model: ModelProto, source: Source) -> None:
        self._model, self._source = model, source
        self._opsets = list(model.opset_import)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        size = int(np.prod(source.shape))
        index = np.arange(size).reshape(source.shape)
        self._values: dict[str, Value] = {source.name: Variable(Inputs(source.name, source.shape), index)}
        self._constants: dict[str, AnyArray] = {}
        self._layers: list[Gates] = []
        self._first: RealGates | None = None
        self._quantiser: Quantiser | None = None
        self._largest = 1.0
        self._limit = float(EXACT_LIMIT)
        self._closed: dict[str, Closed] = {}
        self._softmax = ""

    def needed(self) -> list[NodeProto]:
        """The nodes that the output depends on, in order."""
        read = {output.name for output in self._model.graph.output}
        found = []
        for node in reversed(self._model.graph.node):
            if any(name in read for name in node.output):
                found.append(node)
                read.update(name for name in node.input if name)
        return found[::-1]

    def visit(self, node: NodeProto) -> None:
        inputs = [self._find(name) if name else None for name in node.input]
        variables = [i for i, value in enumerate(inputs) if isinstance(value, Variable)]
        if not variables:
            self._fold(node, inputs)
            return
        if node.domain not in STANDARD_DOMAINS:
            raise UnrecognisedError("an operator outside the ONNX standard")
        if len(variables) > 1:
            raise UnrecognisedError("it joins two branches of the network")
        if self._softmax:
            raise UnrecognisedError("a Softmax before it is read by more than the output")
        position = variables[0]
        x = inputs[position]
        assert isinstance(x, Variable)
        operator = node.op_type
        if operator in ("MatMul", "Gemm", "Conv"):
            self._linear(node, inputs, position, x)
        elif operator == "MaxPool":
            self._values[node.output[0]] = self._pool(node, x)
        elif operator == "Softmax":
            self._softmax = node.output[0]
            self._values[node.output[0]] = x
        elif operator in MOVEMENT and position == 0:
            arrays = [x.index, *(None if v is None else np.asarray(v) for v in inputs[1:])]
            (index,) = evaluate(node, arrays, self._opsets)
            self._values[node.output[0]] = Variable(x.base, np.asarray(index, np.int64), (*x.nodes, node))
        elif monotone(node, position):
            self._elementwise(node, inputs, x)
        else:
            raise UnrecognisedError("not an operator of binarised networks")

    def result(self, name: str) -> BinarisedNetwork:
        target = self._model.graph.output[0].name
        value = self._values.get(target)
        if not isinstance(value, Variable) or not (self._layers or self._first):
            raise UnrecognisedError("no layer of it is binarised")
        if self._softmax and target != self._softmax:
            raise UnrecognisedError("a Softmax inside the network")
        base = value.base
        if isinstance(base, Inputs):
            raise UnrecognisedError("its output does not depend on a binarised layer")
        chain = self._chain(value) if value.nodes else None
        rows = value.index.reshape(-1)
        weights, offset = base.weights[rows], base.offset[rows]
        exact = bool(np.all(weights.data == np.rint(weights.data)) and np.all(offset == np.rint(offset)))
        outputs = Outputs(sp.csr_array(weights), offset, chain, exact, bool(self._softmax))
        return BinarisedNetwork(
            name, self._source.shape, self._limit, self._quantiser, self._first, tuple(self._layers), outputs
        )

    def _find(self, name: str) -> Value:
        if name not in self._values:
            if name not in self._initializers:
                raise UnrecognisedError(f"it reads {name!r}, which nothing produces")
            self._values[name] = self._constants[name] = numpy_helper.to_array(self._initializers[name])
        return self._values[name]

    def _fold(self, node: NodeProto, inputs: Sequence[Value | None]) -> None:
        arrays = [None if value is None else np.asarray(value) for value in inputs]
        for name, array in zip(node.output, evaluate(node, arrays, self._opsets), strict=True):
            self._values[name] = self._constants[name] = array

    def _elementwise(self, node: NodeProto, inputs: Sequence[Value | None], x: Variable) -> None:
        shapes = [x.index.shape, *(np.shape(v) for v in inputs if v is not None and not isinstance(v, Variable))]
        own_shapes = ("BatchNormalization", "Clip", "Dropout")
        if node.op_type not in own_shapes and np.broadcast_shapes(*shapes) != x.index.shape:
            raise UnrecognisedError("it enlarges a tensor by broadcasting")
        self._values[node.output[0]] = Variable(x.base, x.index, (*x.nodes, node))

    def _chain(self, x: Variable) -> Chain:
        if len(np.unique(x.index)) != x.index.size:
            raise UnrecognisedError("a value is used in several places before it is binarised")
        return Chain(x.nodes, x.base.name, x.base.shape, x.index, self._constants, self._opsets)

    def _close(self, x: Variable) -> Closed:
        """The tensor as an affine function of bits, levels or real inputs; adds the layer that makes them."""
        key = x.nodes[-1].output[0] if x.nodes else x.base.name
        if key in self._closed:
            raise UnrecognisedError("a layer is read by two others")
        if isinstance(x.base, Closed):
            if x.nodes and any(node.op_type not in MOVEMENT for node in x.nodes):
                raise UnrecognisedError("an activation behind MaxPool")
            rows = x.index.reshape(-1)
            closed = Closed(x.base.name, x.index.shape, x.base.weights[rows], x.base.offset[rows])
        elif isinstance(x.base, Inputs):
            real = all(node.op_type in MOVEMENT for node in x.nodes)
            flat = np.sort(x.index.reshape(-1))
            if not np.array_equal(flat, np.arange(int(np.prod(x.base.shape)))):
                raise UnrecognisedError("the input is cropped or repeated before the first layer")
            self._quantiser = None if real else Quantiser(self._chain(x), x.index)
            self._largest = 1.0 if self._quantiser is None else self._quantiser.largest()
            closed = closed_inputs(x.base, x.index, self._quantiser)
        else:
            if not x.nodes:
                raise UnrecognisedError("two linear layers follow each other without a step between them")
            closed, gates = closed_sums(x.base, x.index, x.nodes, self._chain(x), self._constants, self._largest)
            if x.base.levels and not isinstance(gates, RealGates):
                exact = x.base.exact and exact_offsets(x.nodes, self._constants)
                widest = max(1.0, float(abs(gates.weights).sum(axis=1).max()))
                self._limit = EXACT_LIMIT / widest if exact else self._largest
            if isinstance(gates, RealGates):
                self._first = gates
            else:
                self._layers.append(gates)
        self._closed[key] = closed
        return closed

    def _linear(self, node: NodeProto, inputs: Sequence[Value | None], position: int, x: Variable) -> None:
        attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
        others = [np.asarray(v, np.float64) for i, v in enumerate(inputs) if i != position and v is not None]
        weights, bias = others[0], others[1] if len(others) > 1 else None
        if node.op_type == "Conv":
            matrix, shape = convolution(weights, x.index.shape, attributes)
            bias = None if bias is None else bias.reshape(1, -1, 1, 1)
        else:
            if node.op_type == "Gemm":
                if position != 0 or attributes.get("transA", 0):
                    raise UnrecognisedError("a Gemm whose first input is transposed or constant")
                weights = (weights.T if attributes.get("transB", 0) else weights) * attributes.get("alpha", 1.0)
                bias = None if bias is None else bias * attributes.get("beta", 1.0)
            matrix, shape = matmul(weights, x.index.shape, position == 1)
        closed = self._close(x)
        name = node.output[0]
        real = isinstance(x.base, Inputs) and self._quantiser is None
        exact = node.op_type == "MatMul" or bias is None
        index = np.arange(int(np.prod(shape))).reshape(shape)
        # With a bias the chain starts from the sums alone; the node's own output is what comes after the bias.
        start = name if bias is None else f"{name}/sums"
        product = sp.csr_array(matrix @ closed.weights)
        sums = Sums(start, shape, product, matrix @ closed.offset, closed.levels, real, exact)
        nodes: tuple[NodeProto, ...] = ()
        if bias is not None:
            added = f"{name}/bias"
            self._constants[added] = bias.astype(np.float32)
            nodes = (helper.make_node("Add", [start, added], [name]),)
        self._values[name] = Variable(sums, index, nodes)

    def _pool(self, node: NodeProto, x: Variable) -> Variable:
        attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
        positions, places = windows(x.index.shape, attributes, tuple(attributes["kernel_shape"]))
        closed = self._close(x)
        shape = (1, x.index.shape[1], *places)
        groups = positions.transpose(0, 2, 1).reshape(-1, positions.shape[1])
        pooled, gates = any_of(closed, groups, node.output[0], shape)
        self._layers.append(gates)
        return Variable(pooled, np.arange(int(np.prod(shape))).reshape(shape))


def _plain(value: Any) -> Any:
    """Bytes as text, lists as tuples."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, (int, float, str, onnx.TensorProto)) else tuple(value)
