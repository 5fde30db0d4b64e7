"""How nodes, tensors and foreign errors are named in messages."""

from __future__ import annotations

import re

from onnx import NodeProto, TensorProto

_LONGEST = 300


def first_line(error: BaseException) -> str:
    """The first line of a foreign exception's message, without onnxruntime's code prefix and source paths."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    text = re.sub(r"\S*/onnxruntime/\S+ ", "", text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def operator_name(node: NodeProto) -> str:
    """``Relu``, or ``com.microsoft::Gelu`` outside the standard domain."""
    return f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def node_name(node: NodeProto) -> str:
    """The node's name, or the name of its first output where it has none."""
    return node.name or next((f"-> {name}" for name in node.output if name), "unnamed")


def describe(node: NodeProto) -> str:
    """``Relu (node 'relu_1')``."""
    return f"{operator_name(node)} (node {node_name(node)!r})"


def element_name(element: int) -> str:
    """``FLOAT16`` and so on; the number where it is not a type that onnx knows."""
    return TensorProto.DataType.Name(element) if element in TensorProto.DataType.values() else f"type {element}"
