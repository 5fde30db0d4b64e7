"""The ascent of ``beta_crown`` on a network reduced to its undecided neurons, with gradients in closed form.

On the root box every decided ReLU is linear, so that the input of each undecided neuron j, and each row, is

    z_j = a_j . x + sum over earlier undecided u of C_ju relu(z_u) + c_j .

Written out once as dense matrices, a backward pass is a handful of matrix products over the m undecided neurons in
place of a walk through all nodes of the network, convolutions over decided neurons included.

Gradients.  With the minimiser x* of the linear bound and the forward values y^ that follow from it on the lines in
use (lower where the backward coefficient is positive, upper else), the bound's derivative by the line coefficient of
neuron j is z^_j (Danskin): a_j^+ z^_j for its lower slope, -sign z^_j for its multiplier.  One forward pass gives all.

Nothing here needs care with rounding: what the ascent finds is evaluated again, rigorously, on the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounds.ascent import Bound, Gradients
from verifier.bounds.crown import Relaxed, backward
from verifier.bounds.level import Bounds
from verifier.bounds.relaxation import Relaxation
from verifier.model.network import Network

CHUNK_BYTES = 2**22
"""Of the coefficients on the largest node, while the matrices are made."""


@dataclass(frozen=True, eq=False)
class RowTerms:
    """Rows over inputs and undecided neurons: on_inputs [B, n], on_neurons [B, m], constants [B]."""

    on_inputs: Tensor
    on_neurons: Tensor
    constants: Tensor

    def pick(self, index: Tensor, sides: Tensor) -> RowTerms:
        """Rows by index, [B], less sides, [B]."""
        return RowTerms(self.on_inputs[index], self.on_neurons[index], self.constants[index] - sides)


@dataclass(frozen=True, eq=False)
class ReducedNetwork:
    """The undecided neurons of a box in order of the ReLU nodes, in float32.

    segments: per ReLU node with undecided neurons, where its own begin and end.  low, high: [1, m], bounds on z.
    inputs: [m, n], a.  neurons: [m, m], C, zero from a neuron's own node on.  constants: [m], c.
    """

    network: Network
    lines: dict[int, Relaxation]
    places: dict[int, Tensor]
    segments: tuple[tuple[int, int], ...]
    low: Tensor
    high: Tensor
    inputs: Tensor
    neurons: Tensor
    constants: Tensor

    def rows(self, outputs: Tensor, inputs: Tensor | None) -> RowTerms:
        """outputs . f(x) + inputs . x in new terms; outputs [B, n_outputs], inputs [B, n] or None."""
        last = len(self.network.nodes) - 1
        shaped = outputs.reshape(1, len(outputs), *self.network.output_shape)
        return _written_out(self.network, self.lines, self.places, last, shaped, inputs)


def reduce_network(network: Network, nodes: Sequence[Bounds], places: dict[int, Tensor]) -> ReducedNetwork:
    """network, nodes: in float32, [1, *shape].  places: per ReLU node the flat indices of its undecided neurons."""
    lines = {}
    for k in network.relus:
        pre = nodes[network.nodes[k].inputs[0]]
        slope = (pre.lower >= 0).to(pre.lower.dtype).flatten(1)
        slope[:, places[k]] = 0.0
        slope = slope.reshape(pre.lower.shape).unsqueeze(1)
        lines[k] = Relaxation(slope, slope, torch.zeros_like(slope))
    m = sum(len(own) for own in places.values())
    inputs, neurons, constants = torch.zeros(m, network.n_inputs), torch.zeros(m, m), torch.zeros(m)
    segments, at = [], 0
    largest = 4 * max(node.size for node in network.nodes)
    for k, own in places.items():
        source = network.nodes[k].inputs[0]
        for part in own.split(max(1, CHUNK_BYTES // largest)):
            rows = torch.zeros(1, len(part), network.nodes[source].size)
            rows[0, torch.arange(len(part)), part] = 1.0
            shaped = rows.reshape(1, len(part), *network.nodes[source].shape)
            here = slice(at, at + len(part))
            found = _written_out(network, lines, places, source, shaped, None)
            inputs[here], neurons[here], constants[here] = found.on_inputs, found.on_neurons, found.constants
            at += len(part)
        if len(own):
            segments.append((at - len(own), at))
    low, high = (
        torch.cat([getattr(nodes[network.nodes[k].inputs[0]], side).flatten()[own] for k, own in places.items()])[None]
        for side in ("lower", "upper")
    )
    return ReducedNetwork(network, lines, places, tuple(segments), low, high, inputs, neurons, constants)


def _written_out(
    network: Network,
    lines: dict[int, Relaxation],
    places: dict[int, Tensor],
    start: int,
    rows: Tensor,
    inputs: Tensor | None,
) -> RowTerms:
    seen: dict[int, Tensor] = {}
    with torch.no_grad():
        relaxed = Relaxed(network, (), lines, {})
        found = backward(relaxed, start, rows, None if inputs is None else inputs.unsqueeze(0), seen.__setitem__)
    count = rows.shape[1]
    on_neurons = [
        seen[k].flatten(2)[0, :, own] if k in seen else torch.zeros(count, len(own)) for k, own in places.items()
    ]
    return RowTerms(found.coefficients[0], torch.cat(on_neurons, 1), found.constants[0].expand(count))


@dataclass(frozen=True, eq=False)
class Lines:
    """Of a batch of regions, [B, m] each: lower slopes where they are not to be chosen, upper lines, and what is free.

    free: neurons whose lower slope is to be chosen, as 0 or 1.  signs: of split neurons, else 0.
    """

    fixed: Tensor
    upper_slope: Tensor
    intercept: Tensor
    free: Tensor
    signs: Tensor

    @staticmethod
    def of(low: Tensor, high: Tensor, signs: Tensor) -> Lines:
        """From bounds on the neurons' inputs within the regions, [B or 1, m], clipped here at the splits."""
        signs = signs.to(low.dtype)
        low = torch.where(signs > 0, 0.0, low)
        high = torch.where(signs < 0, 0.0, high)
        active, inactive = low >= 0, high <= 0
        slope = torch.nan_to_num(high / (high - low), nan=1.0).clamp(0, 1)
        slope = torch.where(inactive, 0.0, torch.where(active, 1.0, slope))
        free = ~(active | inactive)
        intercept = torch.where(free, -slope * low, 0.0)
        return Lines(torch.where(active & ~inactive, 1.0, 0.0), slope, intercept, free.to(low.dtype), signs)


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """values: [B], lower bounds of the rows.  above: [B, m], coefficients on relu(z).  at_inputs: [B, n].

    lower_slopes: [B, m], the lower lines in use.
    """

    values: Tensor
    above: Tensor
    at_inputs: Tensor
    lower_slopes: Tensor


@dataclass(frozen=True, eq=False)
class ReducedRegions:
    """A batch of regions with one row each.  box: centre and radius of the inputs, [n] each.

    low, high: [B or 1, m], bounds on z within the regions, but for their splits.
    """

    network: ReducedNetwork
    rows: RowTerms
    box: tuple[Tensor, Tensor]
    low: Tensor
    high: Tensor

    def lines(self, signs: Tensor) -> Lines:
        """The lines of regions split with these signs, [B, m]."""
        return Lines.of(self.low, self.high, signs)

    def backward(self, lines: Lines, slopes: Tensor, multipliers: Tensor) -> BackwardPass:
        """CROWN with the slopes, and the multipliers of split neurons, [B, m] each."""
        reduced, (centre, radius) = self.network, self.box
        lower_slopes = lines.fixed + lines.free * slopes
        above = self.rows.on_neurons.clone()
        handed = torch.empty_like(above)
        for start, stop in reversed(reduced.segments):
            own = slice(start, stop)
            a = above[:, own]
            positive = a.clamp(min=0)
            p = positive * lower_slopes[:, own] + (a - positive) * lines.upper_slope[:, own]
            p -= lines.signs[:, own] * multipliers[:, own]
            handed[:, own] = p
            above[:, :start].addmm_(p, reduced.neurons[own, :start])
        constants = self.rows.constants + (above.clamp(max=0) * lines.intercept).sum(1) + handed @ reduced.constants
        at_inputs = torch.addmm(self.rows.on_inputs, handed, reduced.inputs)
        return BackwardPass(constants + at_inputs @ centre - at_inputs.abs() @ radius, above, at_inputs, lower_slopes)

    def forward(self, lines: Lines, found: BackwardPass) -> tuple[Tensor, Tensor]:
        """Where the linear bound is least: z, and what the lines in use make of relu(z); [B, m] each."""
        reduced, (centre, radius) = self.network, self.box
        z = torch.addmm(reduced.constants, centre - found.at_inputs.sign() * radius, reduced.inputs.T)
        y = torch.empty_like(z)
        for start, stop in reduced.segments:
            own = slice(start, stop)
            z[:, own].addmm_(y[:, :start], reduced.neurons[own, :start].T)
            upper = lines.upper_slope[:, own] * z[:, own] + lines.intercept[:, own]
            y[:, own] = torch.where(found.above[:, own] >= 0, found.lower_slopes[:, own] * z[:, own], upper)
        return z, y

    def ascent(self, signs: Tensor) -> Bound:
        """What ``ascent`` asks of slopes and multipliers."""
        lines = self.lines(signs)

        def bound(chosen: list[Tensor]) -> tuple[Tensor, Gradients]:
            found = self.backward(lines, *chosen)

            def gradients() -> list[Tensor]:
                z, _ = self.forward(lines, found)
                return [found.above.clamp(min=0) * lines.free * z, -lines.signs * z]

            return found.values, gradients

        return bound
