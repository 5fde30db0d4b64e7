"""Absorb a permutation into the Linear after it, by permuting the columns of its weight; exact.

Exporters that work channels-last leave a Transpose between the last convolution and the dense layers.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from verifier.model.network import Network
from verifier.model.operators import Gather, Linear, Reshape
from verifier.model.simplify.rewrite import Answer, Draft, Replacement, rewrite


def permute_columns(network: Network) -> Network:
    return rewrite(network, _rule)


def _rule(draft: Draft, index: int) -> Answer:
    node = draft.nodes[index]
    place = node.inputs[0] if node.inputs else 0
    moved = draft.nodes[place]
    if not isinstance(node.operator, Linear) or not isinstance(moved.operator, Gather):
        return None
    if not draft.only_use(place) or moved.size != moved.shape[-1]:
        return None
    inverse = inverse_permutation(moved.operator.index, math.prod(draft.nodes[moved.inputs[0]].shape))
    if inverse is None:
        return None
    weight = node.operator.weight[:, inverse].contiguous()
    draft.rewire(place, Reshape(moved.shape), moved.inputs)
    return Replacement(dataclasses.replace(node.operator, weight=weight), node.inputs)


def inverse_permutation(index: Tensor, size: int) -> Tensor | None:
    """For each of ``size`` entries the place a Gather puts it, or None where it is not a permutation."""
    flat = index.reshape(-1)
    if flat.numel() != size or bool((flat < 0).any()):
        return None
    inverse = torch.full((size,), -1, dtype=torch.int64, device=index.device)
    inverse[flat] = torch.arange(size, device=index.device)
    return None if bool((inverse < 0).any()) else inverse
