"""A torch module as an ONNX model: traced by torch.fx, written operator by operator, compared with the module.

Covers what feed-forward classifiers are made of (``LAYERS`` and ``FUNCTIONS``), in evaluation mode.  Whatever else the
module does is named in one error, all of it at once.  torch's own exporter needs a further package and writes operators
that change from version to version; this one writes opset 17.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from verifier.errors import ModelError
from verifier.model.parse import parse
from verifier.model.read import Model
from verifier.model.write import IR_VERSION, OPSET

TOLERANCE = 1e-4
"""Of the outputs, relative to the largest: float32 sums in another order."""
POINTS = 4


def from_module(module: nn.Module, example: Any) -> Model:
    """The model of a module.

    example: one input with its batch axis, such as ``torch.zeros(1, 1, 28, 28)``; only its shape counts, of which the
    batch axis becomes 1.  Raises ModelError for what cannot be traced or written, and where the result differs.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"a torch.nn.Module is needed here, not {type(module).__name__}")
    x = torch.as_tensor(example).detach().cpu().float()
    if x.dim() < 2:
        raise ModelError(
            f"the example input has the shape {tuple(x.shape)}; give one with its batch axis, such as (1, 784)"
        )
    x = x[:1].contiguous()
    was_training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        data = _write(module, x)
        path = Path(type(module).__name__)
        network, replay, _ = parse(data, path)
        model = Model(network, replay, path, hashlib.sha256(data).hexdigest())
        _compare(module, model, x)
    finally:
        for part, training in was_training.items():
            part.training = training
    return model


def _write(module: nn.Module, x: Tensor) -> bytes:
    try:
        # A single layer would be traced into, down to the functions it is made of.
        traced = fx.symbolic_trace(nn.Sequential(module) if type(module) in LAYERS else module)
    except Exception as error:  # torch.fx raises whatever the module's own code does with a proxy
        raise ModelError(
            f"torch.fx cannot trace {type(module).__name__} ({str(error).splitlines()[0]}); write its forward without "
            "branches on values, or export it to ONNX by other means"
        ) from None
    with torch.no_grad():
        parameter = next(module.parameters(), x)
        ShapeProp(traced).propagate(x.to(parameter))
    writer = _Writer(traced)
    return writer.model(tuple(x.shape)).SerializeToString()


class _Writer:
    """Goes through the trace once; ``refused`` collects what has no rule."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self._traced = traced
        self._modules = dict(traced.named_modules())
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.refused: list[str] = []
        self._output = ""

    def model(self, shape: tuple[int, ...]) -> onnx.ModelProto:
        inputs = [node for node in self._traced.graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise ModelError(f"the module takes {len(inputs)} inputs; exactly one is supported")
        for node in self._traced.graph.nodes:
            self._visit(node)
        if self.refused:
            names = "; ".join(dict.fromkeys(self.refused))
            raise ModelError(f"no rule to write {names}; replace them by layers among: {_supported()}")
        self.emit("Identity", [self._output], "Y")
        graph = helper.make_graph(
            self.nodes,
            type(self._traced).__name__,
            [helper.make_tensor_value_info(inputs[0].name, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, producer_name="nn-verifier", opset_imports=opsets, ir_version=IR_VERSION)

    def _visit(self, node: fx.Node) -> None:
        if node.op == "output":
            result = node.args[0]
            if not isinstance(result, fx.Node):
                self.refused.append("several outputs")
            else:
                self._output = result.name
        elif node.op == "get_attr":
            value: Any = self._traced
            for part in str(node.target).split("."):
                value = getattr(value, part)
            self.weight(value, node.name)
        elif node.op == "call_module":
            layer = self._modules[str(node.target)]
            rule = LAYERS.get(type(layer))
            if rule is None:
                self.refused.append(f"{type(layer).__name__} ({node.target})")
            else:
                rule(self, node, layer)
        elif node.op in ("call_function", "call_method"):
            function = FUNCTIONS.get(node.target)
            if function is None:
                name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
                self.refused.append(f"{name}()")
            else:
                function(self, node)

    def emit(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{op}_{output}", **attributes))

    def weight(self, values: Any, name: str | None = None) -> str:
        """An initializer; float unless the values are whole numbers."""
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        name = name or f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def operand(self, value: Any) -> str:
        """The name of a value, or of a constant made from a number."""
        return value.name if isinstance(value, fx.Node) else self.weight(np.float32(value))

    def source(self, node: fx.Node) -> str:
        return self.operand(node.args[0] if node.args else node.kwargs["input"])


Rule = Callable[[_Writer, fx.Node, Any], None]


def _linear(w: _Writer, node: fx.Node, layer: nn.Linear) -> None:
    product = f"{node.name}_product"
    w.emit("MatMul", [w.source(node), w.weight(layer.weight.T)], product if layer.bias is not None else node.name)
    if layer.bias is not None:
        w.emit("Add", [product, w.weight(layer.bias)], node.name)


def _conv(w: _Writer, node: fx.Node, layer: Any) -> None:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        w.refused.append(f"{type(layer).__name__} with padding {layer.padding!r}, {layer.padding_mode} ({node.target})")
        return
    inputs = [w.source(node), w.weight(layer.weight)]
    if layer.bias is not None:
        inputs.append(w.weight(layer.bias))
    w.emit(
        "Conv",
        inputs,
        node.name,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=[*layer.padding, *layer.padding],
        dilations=list(layer.dilation),
        group=layer.groups,
    )


def _batch_norm(w: _Writer, node: fx.Node, layer: Any) -> None:
    if layer.running_mean is None:
        w.refused.append(f"{type(layer).__name__} without running statistics ({node.target})")
        return
    count = layer.num_features
    scale = torch.ones(count) if layer.weight is None else layer.weight
    shift = torch.zeros(count) if layer.bias is None else layer.bias
    parts = [w.weight(value) for value in (scale, shift, layer.running_mean, layer.running_var)]
    w.emit("BatchNormalization", [w.source(node), *parts], node.name, epsilon=layer.eps)


def _pool(op: str) -> Rule:
    def rule(w: _Writer, node: fx.Node, layer: Any) -> None:
        kernel, stride, padding = (_pair(v) for v in (layer.kernel_size, layer.stride, layer.padding))
        if _pair(getattr(layer, "dilation", 1)) != [1, 1] or layer.ceil_mode:
            w.refused.append(f"{type(layer).__name__} with dilation or ceil_mode ({node.target})")
            return
        more = {"count_include_pad": int(layer.count_include_pad)} if op == "AveragePool" else {}
        w.emit(op, [w.source(node)], node.name, kernel_shape=kernel, strides=stride, pads=padding * 2, **more)

    return rule


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple) else [int(value)] * 2


def _plain(op: str) -> Rule:
    return lambda w, node, layer: w.emit(op, [w.source(node)], node.name)


def _leaky(w: _Writer, node: fx.Node, layer: nn.LeakyReLU) -> None:
    w.emit("LeakyRelu", [w.source(node)], node.name, alpha=layer.negative_slope)


def _clip(w: _Writer, node: fx.Node, layer: nn.Hardtanh) -> None:
    sides = [w.weight(np.float32(layer.min_val)), w.weight(np.float32(layer.max_val))]
    w.emit("Clip", [w.source(node), *sides], node.name)


def _shaped(w: _Writer, node: fx.Node, layer: Any = None) -> None:
    """Everything that only gives the values another shape."""
    shape = np.array(node.meta["tensor_meta"].shape, np.int64)
    w.emit("Reshape", [w.source(node), w.weight(shape)], node.name)


LAYERS: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.ReLU: _plain("Relu"),
    nn.LeakyReLU: _leaky,
    nn.ReLU6: _clip,
    nn.Hardtanh: _clip,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _pool("MaxPool"),
    nn.AvgPool2d: _pool("AveragePool"),
    nn.Flatten: _shaped,
    nn.Unflatten: _shaped,
    nn.Identity: _plain("Identity"),
    nn.Dropout: _plain("Identity"),
    nn.Dropout2d: _plain("Identity"),
}
"""Layers with a rule."""


def _binary(op: str) -> Callable[[_Writer, fx.Node], None]:
    return lambda w, node: w.emit(op, [w.operand(value) for value in node.args[:2]], node.name)


def _relu(w: _Writer, node: fx.Node) -> None:
    w.emit("Relu", [w.source(node)], node.name)


def _same(w: _Writer, node: fx.Node) -> None:
    w.emit("Identity", [w.source(node)], node.name)


FUNCTIONS: dict[Any, Callable[[_Writer, fx.Node], None]] = {
    **dict.fromkeys((torch.relu, F.relu, "relu", "relu_"), _relu),
    **dict.fromkeys((torch.flatten, torch.reshape, torch.unsqueeze, torch.squeeze), _shaped),
    **dict.fromkeys(("flatten", "view", "reshape", "unsqueeze", "squeeze", "unflatten"), _shaped),
    **dict.fromkeys(("contiguous", "float", F.dropout), _same),
    **dict.fromkeys((operator.add, torch.add, "add", operator.iadd), _binary("Add")),
    **dict.fromkeys((operator.sub, torch.sub, "sub"), _binary("Sub")),
    **dict.fromkeys((operator.mul, torch.mul, "mul"), _binary("Mul")),
    **dict.fromkeys((operator.truediv, torch.div, "div"), _binary("Div")),
    operator.matmul: _binary("MatMul"),
}
"""Functions and methods with a rule."""


def _supported() -> str:
    return ", ".join(layer.__name__ for layer in LAYERS)


def _compare(module: nn.Module, model: Model, x: Tensor) -> None:
    """Raises ModelError where the written model and the module differ."""
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([x, torch.rand((POINTS, *x.shape[1:]), generator=generator)])
    parameter = next(module.parameters(), x)
    for point in points:
        with torch.no_grad():
            expected = module(point[None].to(parameter)).cpu().double().numpy().ravel()
        found = model.replay.run(point.double().numpy().ravel())
        size = 1e-6 + float(np.abs(expected).max(initial=0.0))
        if found.shape != expected.shape or np.abs(found - expected).max() > TOLERANCE * size:
            raise ModelError(
                "the written model does not compute what the module does; does its forward depend on more than its "
                "input?  Export it to ONNX by other means and load the file"
            )
