"""Gemm and MatMul with one constant factor."""

from __future__ import annotations

import numpy as np
import torch

from verifier.model.lowering.call import Builder, Call, Floats, UnsupportedError, Value, Variable, tensor
from verifier.model.lowering.elementwise import broadcast
from verifier.model.lowering.registry import Rules
from verifier.model.operators import Concat, Linear
from verifier.model.rounding import product


def times(builder: Builder, x: Variable, matrix: Floats, bias: Floats | None = None, ulps: int = 0) -> Variable:
    """``x @ matrix + bias`` on the last axis; matrix: (in, out), bias: (out,)."""
    offset = np.zeros(matrix.shape[1]) if bias is None else bias
    return builder.add(Linear(tensor(matrix.T), tensor(offset), ulps), x)


def swap(builder: Builder, x: Variable) -> Variable:
    """x with its last two axes exchanged."""
    axes = list(range(len(x.shape)))
    axes[-2:] = axes[-1], axes[-2]
    return builder.permute(x, axes)


def gemm(call: Call) -> Value:
    """``alpha A' B' + beta C`` with A or B constant."""
    builder = call.builder
    alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    trans_a, trans_b = call.attribute("transA", 0), call.attribute("transB", 0)
    a, b = call.value(0), call.value(1)
    if isinstance(a, Variable) and isinstance(b, Variable):
        raise UnsupportedError("it multiplies two values that both depend on the input")
    constant_left = isinstance(b, Variable)
    moving, position = (b, 0) if isinstance(b, Variable) else (call.variable(0), 1)
    matrix = call.floats(position, "weight")
    # With the constant on the left the transposed problem is solved: (A B)^T = B^T A^T.
    matrix = matrix.T if bool(trans_a if constant_left else trans_b) != constant_left else matrix
    if bool(trans_b if constant_left else trans_a) != constant_left:
        moving = swap(builder, moving)
    ulps = 0
    if alpha != 1.0:
        scaled = product(tensor(matrix), 0, torch.tensor(alpha, dtype=torch.float64), 0)
        if scaled is None:
            raise UnsupportedError(f"attribute alpha = {alpha:g} (the weights overflow or underflow)")
        matrix, ulps = scaled[0].numpy(), scaled[1]
    bias = None
    pending = call.has(2) and beta != 0.0
    if pending and not constant_left and beta == 1.0 and not isinstance(call.value(2), Variable):
        offset = call.floats(2, "bias")
        if offset.ndim == 1 or (offset.ndim == 2 and offset.shape[0] == 1):
            bias = np.broadcast_to(offset.reshape(-1), matrix.shape[1:]).copy()
            pending = False
    result = times(builder, moving, matrix, bias, ulps)
    result = swap(builder, result) if constant_left else result
    return _add_offset(call, result, beta) if pending else result


def _add_offset(call: Call, result: Variable, beta: float) -> Variable:
    """``result + beta C`` for a C that is not simply a bias."""
    builder = call.builder
    c = call.variable(2)
    left, right = broadcast(builder, result, builder.scale(c, beta) if beta != 1.0 else c)
    return builder.sum(left, right)


def matmul(call: Call) -> Value:
    """numpy's matmul: vectors, matrices and stacks of matrices, one of the two constant."""
    a, b = call.value(0), call.value(1)
    if isinstance(a, Variable) and isinstance(b, Variable):
        raise UnsupportedError("it multiplies two values that both depend on the input")
    if isinstance(a, Variable):
        return _times_stack(call.builder, a, call.floats(1, "weight"))
    assert isinstance(b, Variable)
    return _stack_times(call.builder, call.floats(0, "weight"), b)


def _times_stack(builder: Builder, x: Variable, matrix: Floats) -> Variable:
    """``x @ matrix`` for a constant matrix, vector or stack of matrices."""
    if matrix.ndim == 1:
        column = times(builder, x, matrix[:, None])
        return builder.reshape(column, column.shape[:-1])
    if all(size == 1 for size in matrix.shape[:-2]):
        result = times(builder, x, matrix.reshape(matrix.shape[-2:]))
        shape = (*(1,) * (matrix.ndim - len(result.shape)), *result.shape)
        return builder.reshape(result, shape) if len(x.shape) > 1 else _drop_row(builder, result, matrix.ndim)
    return _stacked(builder, x, matrix)


def _drop_row(builder: Builder, result: Variable, rank: int) -> Variable:
    """The result of vector @ stack: the vector's axis is absent, the stack's leading ones stay."""
    return builder.reshape(result, (*(1,) * (rank - 2), *result.shape))


def _stacked(builder: Builder, x: Variable, matrix: Floats) -> Variable:
    """One ``Linear`` per matrix of the stack, concatenated."""
    vector = len(x.shape) == 1
    shaped = builder.reshape(x, (1, *x.shape)) if vector else x
    lead = np.broadcast_shapes(shaped.shape[:-2], matrix.shape[:-2])
    rows, inner = shaped.shape[-2:]
    shaped = builder.expand(shaped, (*lead, rows, inner))
    matrices = np.broadcast_to(matrix, (*lead, *matrix.shape[-2:])).reshape(-1, *matrix.shape[-2:])
    places = np.arange(shaped.size).reshape(-1, 1, rows, inner)
    parts = [
        times(builder, builder.gather(shaped, place), weight) for place, weight in zip(places, matrices, strict=True)
    ]
    joined = builder.add(Concat(0), *parts)
    middle = () if vector else (rows,)
    return builder.reshape(joined, (*lead, *middle, matrix.shape[-1]))


def _stack_times(builder: Builder, matrix: Floats, x: Variable) -> Variable:
    """``matrix @ x`` as ``(x^T matrix^T)^T``."""
    if len(x.shape) == 1:
        # matrix @ vector contracts the matrix's last axis.
        if matrix.ndim <= 2:
            return _times_stack(builder, x, matrix.T if matrix.ndim == 2 else matrix)
        flat = times(builder, x, matrix.reshape(-1, matrix.shape[-1]).T)
        return builder.reshape(flat, matrix.shape[:-1])
    stack = matrix[None] if matrix.ndim == 1 else matrix
    product_ = swap(builder, _times_stack(builder, swap(builder, x), stack.swapaxes(-1, -2)))
    if matrix.ndim == 1:
        return builder.reshape(product_, (*product_.shape[:-2], product_.shape[-1]))
    return product_


RULES: Rules = {"Gemm": gemm, "MatMul": matmul}
