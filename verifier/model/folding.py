"""Nodes evaluated by onnxruntime itself, on a model of one node.

Used for constant folding, so that folded constants carry the same rounding as the replay, and to learn where
nodes that only move values move them (see ``verifier.model.lowering.movement``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, OperatorSetIdProto, helper, numpy_helper

from verifier.errors import ModelError
from verifier.model.diagnostics import describe, first_line
from verifier.model.session import open_session

AnyArray = NDArray[np.generic]
_IR_VERSION = 8


def evaluate(
    node: NodeProto, inputs: Sequence[AnyArray | None], opsets: Sequence[OperatorSetIdProto]
) -> list[AnyArray]:
    """The values of the node's outputs ([] for outputs without a name) for constant inputs.

    inputs: one array per input of the node, None for omitted ones.  opsets: those of the model.
    Raises ModelError when onnxruntime refuses.
    """
    initializers = {
        name: numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        for name, value in zip(node.input, inputs, strict=True)
        if value is not None
    }
    wanted = [name for name in node.output if name]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    graph = helper.make_graph([node], "one_node", [], outputs, list(initializers.values()))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    try:
        session = open_session(model.SerializeToString(), optimise=False)
        values = session.run(wanted, {})
    except Exception as error:  # onnxruntime's own classes, most of them bare
        raise ModelError(f"onnxruntime cannot evaluate {describe(node)}: {first_line(error)}") from None
    found = dict(zip(wanted, values, strict=True))
    return [np.asarray(found[name]) if name else np.empty(0) for name in node.output]
