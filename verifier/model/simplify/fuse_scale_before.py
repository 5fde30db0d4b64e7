"""Absorb a Scale into the Linear or Conv after it: ``W (a x + c) + b = (W a) x + (W c + b)``.

Input normalisation.  Before a Conv with padding only where c = 0: the padding is not shifted.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from verifier.model.network import Network
from verifier.model.operators import Conv, Linear, Reshape, Scale
from verifier.model.operators.affine import Shape
from verifier.model.rounding import Offset, mapped_offset, product
from verifier.model.simplify.fuse_scale_after import along
from verifier.model.simplify.rewrite import Answer, Draft, Replacement, rewrite


def fuse_scale_before(network: Network) -> Network:
    return rewrite(network, _rule)


def _rule(draft: Draft, index: int) -> Answer:
    affine = draft.nodes[index].operator
    if not isinstance(affine, Linear | Conv):
        return None
    reader = draft.nodes[index].inputs[0]
    place = reader
    if isinstance(draft.nodes[reader].operator, Reshape) and draft.only_use(reader):
        place = draft.nodes[reader].inputs[0]  # Flatten between normalisation and the first layer
    inner = draft.nodes[place].operator
    if not isinstance(inner, Scale) or not draft.only_use(place):
        return None
    fused = _fuse(inner, affine, draft.nodes[place].shape, draft.nodes[reader].shape)
    if fused is None:
        return None
    source = draft.nodes[place].inputs
    if place != reader:
        draft.rewire(reader, draft.nodes[reader].operator, source)
        source = (reader,)
    return Replacement(fused, source)


def _fuse(inner: Scale, affine: Linear | Conv, before: Shape, after: Shape) -> Linear | Conv | None:
    """The fused operator.  before, after: the shape of the Scale's value, and as the operator reads it."""
    axis = len(after) - 1 if isinstance(affine, Linear) else 1
    scale, shift, error = (
        None if values is None else along(values.expand(before).reshape(after), after, axis)
        for values in (inner.scale, inner.shift, inner.offset_error)
    )
    if scale is None or shift is None or (error is None) != (inner.offset_error is None):
        return None
    shifts = bool(shift.any()) or error is not None
    if isinstance(affine, Conv) and any(affine.padding) and shifts:
        return None
    weight = product(affine.weight, affine.ulps, _columns(scale, affine), inner.ulps)
    if weight is None:
        return None
    bias = Offset(affine.bias, affine.offset_error)
    if shifts:
        full = affine.weight.shape
        rows = (full[0], -1)
        inputs = _columns(shift, affine).expand(full).reshape(rows)
        errors = None if error is None else _columns(error, affine).expand(full).reshape(rows)
        bias = mapped_offset(affine.weight.reshape(rows), affine.ulps, Offset(inputs, errors), bias)
    return dataclasses.replace(affine, weight=weight[0], bias=bias.value, ulps=weight[1], offset_error=bias.error)


def _columns(values: Tensor, affine: Linear | Conv) -> Tensor:
    """One value per input channel, (channels,), laid out to multiply the weight."""
    if isinstance(affine, Linear):
        return values.reshape(1, -1)
    out, per_group = affine.weight.shape[:2]
    groups = values.reshape(affine.groups, 1, per_group).expand(affine.groups, out // affine.groups, per_group)
    return groups.reshape(out, per_group, 1, 1)
