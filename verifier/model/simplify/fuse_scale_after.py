"""Absorb a Scale into the Linear or Conv before it: ``a (W x + b) + c = (a W) x + (a b + c)``.

BatchNormalization after Conv, and MatMul followed by Add.  Needs one scale and shift per row or channel.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from verifier.model.network import Network
from verifier.model.operators import Conv, Linear, Scale
from verifier.model.operators.affine import Shape
from verifier.model.rounding import Offset, product, scaled_offset
from verifier.model.simplify.rewrite import Answer, Draft, Replacement, rewrite


def fuse_scale_after(network: Network) -> Network:
    return rewrite(network, _rule)


def _rule(draft: Draft, index: int) -> Answer:
    node = draft.nodes[index]
    if not isinstance(node.operator, Scale):
        return None
    source = draft.nodes[node.inputs[0]]
    affine, outer = source.operator, node.operator
    if not isinstance(affine, Linear | Conv) or not draft.only_use(node.inputs[0]):
        return None
    axis = len(node.shape) - 1 if isinstance(affine, Linear) else 1
    scale, shift = along(outer.scale, node.shape, axis), along(outer.shift, node.shape, axis)
    error = None if outer.offset_error is None else along(outer.offset_error, node.shape, axis)
    if scale is None or shift is None or (error is None) != (outer.offset_error is None):
        return None
    column = scale.reshape(-1, *(1,) * (affine.weight.dim() - 1))
    weight = product(column, outer.ulps, affine.weight, affine.ulps)
    if weight is None:
        return None
    offset = scaled_offset(Offset(affine.bias, affine.offset_error), scale, outer.ulps, Offset(shift, error))
    fused = dataclasses.replace(affine, weight=weight[0], bias=offset.value, ulps=weight[1], offset_error=offset.error)
    return Replacement(fused, source.inputs)


def along(values: Tensor, shape: Shape, axis: int) -> Tensor | None:
    """The values per index of one axis, (shape[axis],), or None where they vary along another axis.

    values: broadcastable to shape.
    """
    full = values.reshape((1,) * (len(shape) - values.dim()) + tuple(values.shape))
    for other, size in enumerate(full.shape):
        if other != axis and size != 1:
            first = full.narrow(other, 0, 1)
            if not bool((full == first).all()):
                return None
            full = first
    return full.reshape(-1).expand(shape[axis]).contiguous()
