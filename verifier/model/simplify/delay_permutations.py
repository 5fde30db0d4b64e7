"""Move permutations behind elementwise operators: ``relu(P x) = P relu(x)``.

Channels-last models have ``Transpose, Conv, Transpose, Relu, Transpose, Conv``: moved on, the two transposes
meet and cancel.
"""

from __future__ import annotations

import dataclasses
import math

from torch import Tensor

from verifier.model.network import Network
from verifier.model.operators import Gather, Relu, Scale
from verifier.model.operators.affine import Shape
from verifier.model.simplify.permute_columns import inverse_permutation
from verifier.model.simplify.rewrite import Answer, Draft, Replacement, rewrite


def delay_permutations(network: Network) -> Network:
    return rewrite(network, _rule)


def _rule(draft: Draft, index: int) -> Answer:
    node = draft.nodes[index]
    if not isinstance(node.operator, Relu | Scale):
        return None
    place = node.inputs[0]
    moved = draft.nodes[place]
    if not isinstance(moved.operator, Gather) or not draft.only_use(place):
        return None
    before = draft.nodes[moved.inputs[0]].shape
    inverse = inverse_permutation(moved.operator.index, math.prod(before))
    if inverse is None:
        return None
    operator = node.operator
    if isinstance(operator, Scale):
        operator = dataclasses.replace(
            operator,
            scale=_permuted(operator.scale, node.shape, inverse, before),
            shift=_permuted(operator.shift, node.shape, inverse, before),
            offset_error=None
            if operator.offset_error is None
            else _permuted(operator.offset_error, node.shape, inverse, before),
        )
    draft.rewire(place, operator, moved.inputs)
    return Replacement(moved.operator, (place,))


def _permuted(values: Tensor, shape: Shape, inverse: Tensor, before: Shape) -> Tensor:
    """Parameters of the permuted value as parameters of the value before; single numbers stay so."""
    if values.numel() == 1:
        return values.reshape(())
    return values.expand(shape).reshape(-1)[inverse].reshape(before)
