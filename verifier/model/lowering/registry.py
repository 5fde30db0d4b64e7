"""The type of a lowering rule, and how to add one.

A rule takes a ``Call`` and returns the node's value (or a tuple of values, one per output).  It builds IR
nodes with ``call.builder`` and raises ``UnsupportedError`` with a reason where it cannot.  To support another
operator:

1. write a function in the family's file (or a new file of this folder);
2. enter it in that file's ``RULES`` under the ONNX operator's name;
3. add random attribute combinations to ``tests/differential/test_ir_vs_onnxruntime.py``.

The operators of a ``Network`` are exact on real numbers: where a parameter has to be computed (1/k, a fused
scale), the rule states its rounding through ``ulps`` and ``offset_error``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from verifier.model.lowering.call import Call, Value

Rule = Callable[[Call], Value | tuple[Value | None, ...]]
Rules = Mapping[str, Rule]
