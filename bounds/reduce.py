"""Leave out what a box makes constant: dense ReLU neurons that are inactive all over it.

Over a box where z_j <= 0 for certain, ReLU neuron j is the constant 0: its row of the dense layer before and its
column of every dense layer behind change nothing and are dropped.  On deep dense networks most neurons of the
first layers go, and every later pass over the box is as many times cheaper.

Invariant: for every point of the box the reduced network has, in exact arithmetic, the values of the original at
all nodes that remain; bounds on these carry over as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from verifier.bounds.level import Bounds
from verifier.model.network import Network, Node
from verifier.model.operators import Linear


def without_inactive(network: Network, nodes: Sequence[Bounds]) -> tuple[Network, tuple[Bounds, ...]]:
    """The network without its inactive dense neurons, and the bounds on what remains.

    nodes: rigorous bounds over one box, [1, *shape] per node.
    """
    built, bounds = list(network.nodes), list(nodes)
    for k in network.relus:
        source = network.nodes[k].inputs[0]
        if not _droppable(network, k):
            continue
        kept = torch.nonzero(nodes[source].upper.flatten() > 0).squeeze(1)
        if len(kept) == network.nodes[k].size:
            continue
        if not len(kept):
            kept = torch.zeros(1, dtype=torch.long)  # a layer of no neurons at all is no shape for an operator
        built[source] = _rows(built[source], kept)
        built[k] = replace(built[k], shape=built[source].shape)
        for reader in set(network.consumers[k]):
            built[reader] = _columns(built[reader], kept)
        for index in (source, k):
            bounds[index] = _pick(bounds[index], kept)
    return replace(network, nodes=tuple(built)), tuple(bounds)


def _droppable(network: Network, k: int) -> bool:
    """Whether a plain vector comes from one dense layer, and only dense layers read it."""
    source = network.nodes[k].inputs[0]
    flat = network.nodes[k].shape[-1] == network.nodes[k].size
    readers = network.consumers[k]
    dense = all(isinstance(network.nodes[i].operator, Linear) for i in (source, *readers))
    return flat and dense and bool(readers) and network.consumers[source] == (k,)


def _rows(node: Node, kept: Tensor) -> Node:
    linear = node.operator
    assert isinstance(linear, Linear)
    error = linear.offset_error
    if error is not None and error.numel() > 1:
        error = error.flatten()[kept]
    part = replace(linear, weight=linear.weight[kept], bias=linear.bias[kept], offset_error=error)
    return replace(node, operator=part, shape=(*node.shape[:-1], len(kept)))


def _columns(node: Node, kept: Tensor) -> Node:
    linear = node.operator
    assert isinstance(linear, Linear)
    return replace(node, operator=replace(linear, weight=linear.weight[:, kept]))


def _pick(bounds: Bounds, kept: Tensor) -> Bounds:
    return Bounds(bounds.lower[..., kept], bounds.upper[..., kept], bounds.level)
