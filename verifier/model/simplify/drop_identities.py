"""Drop operators that change nothing: Reshape to the same shape, ``1 x + 0``, sums and joins of one value.

A network keeps at least one operator after its input: the output of an identity network is a ``Reshape``.
"""

from __future__ import annotations

import math

import torch

from verifier.model.network import Network
from verifier.model.operators import Concat, Gather, Operator, Reshape, Scale, Sum
from verifier.model.operators.affine import Shape
from verifier.model.simplify.rewrite import Answer, Draft, Replacement, SameAs, rewrite


def drop_identities(network: Network) -> Network:
    return rewrite(network, _rule)


def _rule(draft: Draft, index: int) -> Answer:
    node = draft.nodes[index]
    if len(node.inputs) != 1:
        return None
    source = node.inputs[0]
    if not _keeps_values(node.operator, draft.nodes[source].shape):
        return None
    if draft.nodes[source].shape != node.shape:
        return None if isinstance(node.operator, Reshape) else Replacement(Reshape(node.shape), node.inputs)
    if source == 0 and index == len(draft.nodes) - 1:
        return None if isinstance(node.operator, Reshape) else Replacement(Reshape(node.shape), node.inputs)
    return SameAs(source)


def _keeps_values(operator: Operator, shape: Shape) -> bool:
    """Whether the flattened output is the flattened input."""
    match operator:
        case Reshape() | Sum() | Concat():
            return True
        case Scale():
            exact = operator.ulps == 0 and operator.offset_error is None
            return exact and bool((operator.scale == 1).all()) and not bool(operator.shift.any())
        case Gather():
            index = operator.index.reshape(-1)
            return torch.equal(index, torch.arange(math.prod(shape), device=index.device))
        case _:
            return False
