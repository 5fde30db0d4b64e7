"""Gradients through flat ReLUs: what a neuron gains over its whole range in place of its slope at a point.

A ReLU that is inactive at a point has no gradient, however little it would take to wake it.  Robust training makes
filters that ignore every change up to about its radius (Madry et al., ICLR 2018, appendix C), so that just beyond that
radius gradient attacks are blind in most inputs.  The backward pass therefore takes a blend of the true slope and the
slope of the chord over the neuron's range [l, u] in the ball, u / (u - l): a backward pass differentiable
approximation (Athalye, Carlini and Wagner, ICML 2018, section 4.1) that fits the ball.  Values are always true ones.

The blend may differ from point to point, and between the first ReLUs on the way from the input and the later ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verifier.bounds.interval import interval_bounds
from verifier.model.network import Network
from verifier.model.operators import Input, Relu


class ChordGradients:
    """A network whose gradients can see beyond flat pieces, for one box, lower and upper (n_inputs,)."""

    def __init__(self, network: Network, lower: Tensor, upper: Tensor) -> None:
        self._network = network
        nodes = interval_bounds(network, lower.unsqueeze(0), upper.unsqueeze(0))
        self._chords, first = {}, {0: True}
        self._first: set[int] = set()
        for index, node in enumerate(network.nodes[1:], 1):
            first[index] = all(first[source] for source in node.inputs)
            if isinstance(node.operator, Relu):
                before = nodes[node.inputs[0]]
                slope = before.upper / (before.upper - before.lower).clamp(min=1e-12)
                slope = torch.where(before.upper <= 0, 0.0, torch.where(before.lower >= 0, 1.0, slope))
                self._chords[index] = slope
                if first[index]:
                    self._first.add(index)
                first[index] = False

    def forward(self, x: Tensor, first: Tensor, later: Tensor) -> Tensor:
        """Outputs [K, n_outputs] for x [K, n_inputs]; first, later: (K,), the chord's share of the slopes."""
        network = self._network
        values = [x.reshape(len(x), *network.input_shape)]
        for index, node in enumerate(network.nodes[1:], 1):
            sources = [values[source] for source in node.inputs]
            assert not isinstance(node.operator, Input)
            if isinstance(node.operator, Relu):
                share = (first if index in self._first else later).reshape(-1, *[1] * (sources[0].ndim - 1))
                slope = share * self._chords[index] + (1 - share) * (sources[0] > 0)
                values.append(_Sloped.apply(sources[0], slope))  # type: ignore[no-untyped-call]  # torch's
            else:
                values.append(node.operator.forward(*sources))
        return values[-1].reshape(len(x), -1)


class _Sloped(torch.autograd.Function):
    """relu(z) with a slope of its own in the backward pass."""

    @staticmethod
    def forward(context: Any, z: Tensor, slope: Tensor) -> Tensor:
        context.save_for_backward(slope)
        return z.clamp(min=0)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = context.saved_tensors
        return gradient * slope, None
