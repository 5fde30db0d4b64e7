"""Linear ONNX nodes as sparse matrices from the entries of their input to those of their output, both in C order.

A bias is not part of the matrix: it is returned beside it, in the shape of the output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Shape = tuple[int, ...]


class NotLinearError(Exception):
    """A form of the node that is not read; the message says which."""


def matmul(weights: Floats, shape: Shape, left: bool) -> tuple[sp.csr_array, Shape]:
    """``x @ weights``, or ``weights @ x`` where ``left``; x has ``shape``, all leading axes 1."""
    if weights.ndim != 2 or (any(size != 1 for size in shape[:-1]) and not left):
        raise NotLinearError("a product that is not one vector with one matrix")
    if left:
        if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
            raise NotLinearError("a product that is not one vector with one matrix")
        return sp.csr_array(weights), (weights.shape[0], *shape[1:])
    return sp.csr_array(np.ascontiguousarray(weights.T)), (*shape[:-1], weights.shape[1])


def windows(shape: Shape, attributes: dict[str, Any], kernel: tuple[int, ...]) -> tuple[NDArray[np.int64], Shape]:
    """For a 2-d window over x: [1, C, H, W]: positions (C, kernel entries, places), -1 where padding; places' shape."""
    if len(shape) != 4 or shape[0] != 1 or len(kernel) != 2:
        raise NotLinearError("windows over other than two dimensions")
    if attributes.get("ceil_mode", 0):
        raise NotLinearError("attribute ceil_mode")
    strides = attributes.get("strides") or (1, 1)
    dilations = attributes.get("dilations") or (1, 1)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(shape[2:], attributes, strides, spans)
    places = [(size + pads[i] + pads[i + 2] - spans[i]) // strides[i] + 1 for i, size in enumerate(shape[2:])]
    grid = np.arange(int(np.prod(shape))).reshape(shape[1:])
    padded = np.pad(grid, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=-1)
    rows = np.arange(places[0])[:, None] * strides[0]
    columns = np.arange(places[1])[None, :] * strides[1]
    found = [
        padded[:, (rows + i * dilations[0]), (columns + j * dilations[1])].reshape(shape[1], -1)
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return np.stack(found, axis=1), (places[0], places[1])


def _pads(sizes: Shape, attributes: dict[str, Any], strides: tuple[int, ...], spans: list[int]) -> list[int]:
    mode = attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(attributes.get("pads") or (0, 0, 0, 0))
    if mode == "VALID":
        return [0, 0, 0, 0]
    before, after = [], []
    for size, stride, span in zip(sizes, strides, spans, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + span - size)
        less, more = total // 2, total - total // 2
        before.append(less if mode == "SAME_UPPER" else more)
        after.append(more if mode == "SAME_UPPER" else less)
    return before + after


def convolution(weights: Floats, shape: Shape, attributes: dict[str, Any]) -> tuple[sp.csr_array, Shape]:
    """weights: [out, in / group, kh, kw]; padding is zero."""
    if weights.ndim != 4:
        raise NotLinearError("a convolution over other than two dimensions")
    positions, places = windows(shape, attributes, weights.shape[2:])
    groups = attributes.get("group", 1)
    outs, ins = weights.shape[0] // groups, weights.shape[1]
    count = positions.shape[-1]
    rows, columns, values = [], [], []
    for out in range(weights.shape[0]):
        group = out // outs
        read = positions[group * ins : (group + 1) * ins]
        filled = np.broadcast_to(weights[out].reshape(ins, -1)[..., None], read.shape)
        keep = (read >= 0) & (filled != 0)
        rows.append((np.broadcast_to(np.arange(count), read.shape) + out * count)[keep])
        columns.append(read[keep])
        values.append(filled[keep])
    matrix = sp.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(weights.shape[0] * count, int(np.prod(shape))),
    )
    return matrix, (1, weights.shape[0], *places)
