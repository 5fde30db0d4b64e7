"""Merge two elementwise affine maps in a row: ``a2 (a1 x + c1) + c2 = (a2 a1) x + (a2 c1 + c2)``."""

from __future__ import annotations

from verifier.model.network import Network
from verifier.model.operators import Scale
from verifier.model.rounding import Offset, product, scaled_offset
from verifier.model.simplify.rewrite import Answer, Draft, Replacement, rewrite


def merge_scales(network: Network) -> Network:
    return rewrite(network, _rule)


def _rule(draft: Draft, index: int) -> Answer:
    node = draft.nodes[index]
    if not isinstance(node.operator, Scale):
        return None
    source = draft.nodes[node.inputs[0]]
    if not isinstance(source.operator, Scale) or not draft.only_use(node.inputs[0]):
        return None
    inner, outer = source.operator, node.operator
    scale = product(outer.scale, outer.ulps, inner.scale, inner.ulps)
    if scale is None:
        return None
    shift = scaled_offset(
        Offset(inner.shift, inner.offset_error),
        outer.scale,
        outer.ulps,
        Offset(outer.shift, outer.offset_error),
    )
    return Replacement(Scale(scale[0], shift.value, scale[1], shift.error), source.inputs)
