"""Merge chains of Reshape and Gather: two moves in a row are one.

``Gather`` indexes the flattened value, so a Reshape before it is void and one after it reshapes the index.
"""

from __future__ import annotations

import torch

from verifier.model.network import Network
from verifier.model.operators import Gather, Reshape
from verifier.model.simplify.rewrite import Answer, Draft, Replacement, rewrite


def merge_moves(network: Network) -> Network:
    return rewrite(network, _rule)


def _rule(draft: Draft, index: int) -> Answer:
    operator = draft.nodes[index].operator
    if not isinstance(operator, Reshape | Gather):
        return None
    source = draft.nodes[draft.nodes[index].inputs[0]]
    match source.operator, operator:
        case Reshape(), _:
            return Replacement(operator, source.inputs)
        case Gather(index=inner), Reshape(shape=shape):
            return Replacement(Gather(inner.reshape(shape)), source.inputs)
        case Gather(index=inner), Gather(index=outer):
            taken = inner.reshape(-1)[outer.clamp(min=0)]
            return Replacement(Gather(torch.where(outer >= 0, taken, -1)), source.inputs)
        case _:
            return None
