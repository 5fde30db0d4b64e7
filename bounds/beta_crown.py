"""Bounds for regions cut by ReLU splits: alpha-CROWN slopes and beta-CROWN multipliers, optimised together.

A region fixes the signs of some ReLU inputs.  Its bound is a backward pass (``crown``) in which

- a split neuron has its exact line, since its input's bound is clipped at 0,
- every undecided neuron has a lower slope alpha in [0, 1] of its own (Xu et al., Fast and Complete, ICLR 2021),
- every split constraint  sign * z >= 0  enters with a multiplier beta >= 0 (Wang et al., NeurIPS 2021, theorem 3.1).

The bound is concave in neither but improves under projected gradient ascent; any alpha and beta in range give a valid
bound.  So the ascent runs in float32 without rounding control, and the slopes and multipliers it ends with are
evaluated once more in float64 with all rounding errors subtracted: only that number counts.

Pre-activation bounds are those of the root box, or the region's own (``refinement``), clipped at the splits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from verifier.bounds.ascent import Choice, ascend, by_autograd
from verifier.bounds.crown import LinearBound, Relaxed, backward
from verifier.bounds.level import Bounds, Level
from verifier.bounds.reduced_ascent import ReducedNetwork, ReducedRegions, reduce_network
from verifier.bounds.relaxation import triangle
from verifier.bounds.rounding import sensitivity
from verifier.bounds.sparse_backward import Matrices
from verifier.deadline import Deadline
from verifier.model.network import Network

MOST_REDUCED = 2**24
"""Entries of the matrices of a reduced network."""
EVALUATED_BYTES = 2**22
"""For one value per neuron of the regions that are evaluated together; a dozen such arrays are alive at once."""


@dataclass(frozen=True)
class AscentOptions:
    """iterations: of the ascent.  slope_step; multiplier_step, in units of the largest row coefficient: at first.

    decay: of both steps, per iteration.
    """

    iterations: int = 10
    slope_step: float = 0.25
    multiplier_step: float = 0.1
    decay: float = 0.9


@dataclass(frozen=True, eq=False)
class Splits:
    """A batch of regions over the undecided neurons of a root (``m`` of them, in order of the ReLU nodes).

    signs: [B, m] int8, +1 active, -1 inactive, 0 undecided.  slopes, multipliers: [B, m] float32.
    inputs: rigorous bounds on the neurons' inputs within each region, [B, 2, m] float64, lower then upper; None where
    those of the root serve all regions.
    """

    signs: Tensor
    slopes: Tensor
    multipliers: Tensor
    inputs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.signs)

    def pick(self, index: Tensor) -> Splits:
        inputs = None if self.inputs is None else self.inputs[index]
        return Splits(self.signs[index], self.slopes[index], self.multipliers[index], inputs)

    def child(self, neuron: Tensor, sign: int) -> Splits:
        """One half of every region, cut at a neuron of its own, [B]."""
        signs = self.signs.clone()
        signs[torch.arange(len(self)), neuron] = sign
        return replace(self, signs=signs)

    @staticmethod
    def join(parts: Sequence[Splits]) -> Splits:
        """All regions of the parts, which all have ``inputs`` or all have none."""
        inputs = [p.inputs for p in parts if p.inputs is not None]
        signs, slopes, multipliers = (
            torch.cat([getattr(p, name) for p in parts]) for name in ("signs", "slopes", "multipliers")
        )
        return Splits(signs, slopes, multipliers, torch.cat(inputs) if inputs else None)


@dataclass(frozen=True, eq=False)
class RegionBounds:
    """lower: [B] rigorous bound on the margin, by the row at ``row`` [B].  splits: as evaluated.

    scores: [B, m], how much relaxation each undecided neuron costs the bound, 0 where decided.
    points: [B, n_inputs], where the linear bound is least.
    """

    lower: Tensor
    row: Tensor
    splits: Splits
    pulls: Tensor
    scores: Tensor
    points: Tensor

    @staticmethod
    def join(parts: Sequence[RegionBounds]) -> RegionBounds:
        """The regions of all parts, of which there is at least one."""
        if len(parts) == 1:
            return parts[0]
        names = ("pulls", "scores", "points")
        lower, row = (torch.cat([getattr(part, name) for part in parts]) for name in ("lower", "row"))
        splits = Splits.join([part.splits for part in parts])
        return RegionBounds(lower, row, splits, *(torch.cat([getattr(part, n) for part in parts]) for n in names))


class Objective(Protocol):
    """What the search asks of a linear bound, where it is not the least value over the box."""

    def values(self, bound: LinearBound, sides: Tensor) -> Tensor:
        """[B, R], differentiable; positive where a bound on rows that shall be <= sides, [B, R], closes the region."""
        ...

    def points(self, bound: LinearBound, sides: Tensor) -> Tensor:
        """Where the bounds, [B, 1], are least: [B, n_inputs]."""
        ...

    def float(self) -> Objective:
        """The same in float32."""
        ...


@dataclass(frozen=True, eq=False)
class Root:
    """One box of a network with bounds on all nodes (float64, CPU, [1, *shape]), and what is sought in it.

    ``fast`` is the same in float32.
    """

    network: Network
    lower: Tensor
    upper: Tensor
    nodes: tuple[Bounds, ...]
    objective: Objective | None = None

    def values(self, bound: LinearBound, sides: Tensor) -> Tensor:
        """Lower bounds on the margins of single rows, [B, R], or what the objective makes of them."""
        if self.objective is not None:
            return self.objective.values(bound, sides)
        return bound.over_box(self.lower, self.upper) - sides

    @cached_property
    def places(self) -> dict[int, Tensor]:
        """Per ReLU node the flat indices of its undecided neurons."""
        return {
            k: torch.nonzero(self.nodes[self.network.nodes[k].inputs[0]].unstable.flatten()).squeeze(1)
            for k in self.network.relus
        }

    @cached_property
    def size(self) -> int:
        """m, the number of undecided neurons."""
        return sum(len(places) for places in self.places.values())

    @cached_property
    def fast(self) -> Root:
        """The same in float32, for the ascent: without any care for rounding."""
        nodes = tuple(Bounds(n.lower.float(), n.upper.float(), Level.ESTIMATE) for n in self.nodes)
        objective = None if self.objective is None else self.objective.float()
        single = Root(self.network.to(torch.float32), self.lower.float(), self.upper.float(), nodes, objective)
        # Rounding to float32 may take away a sign, and both have to speak of the same neurons.
        vars(single)["places"] = self.places
        return single

    @cached_property
    def reduced(self) -> ReducedNetwork | None:
        """The network in its undecided neurons alone, or None where that is no smaller or not what is sought."""
        if self.objective is not None or not 0 < self.size * (self.network.n_inputs + self.size) <= MOST_REDUCED:
            return None
        return reduce_network(self.network, self.nodes, self.places)

    @cached_property
    def sensitivities(self) -> dict[int, Tensor | None]:
        """Of every node (``rounding``); empty, so that nothing is rounded outward, where the bounds are estimates."""
        if self.nodes[0].level is not Level.RIGOROUS:
            return {}
        return {k: sensitivity(self.network, k, self.nodes) for k in range(len(self.network.nodes))}

    @cached_property
    def matrices(self) -> Matrices | None:
        """For rigorous passes over many regions, where they suit the network."""
        matrices = Matrices(self.network)
        return matrices if matrices.suitable else None

    def undivided(self) -> Splits:
        """The whole box as one region, with CROWN's adaptive slopes."""
        slopes = []
        for k, places in self.places.items():
            pre = self.nodes[self.network.nodes[k].inputs[0]]
            slopes.append((pre.upper > -pre.lower).flatten()[places].float())
        joined = torch.cat(slopes) if slopes else torch.zeros(0)
        return Splits(torch.zeros(1, self.size, dtype=torch.int8), joined[None], torch.zeros(1, self.size))


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of each region's disjunct: outputs [B, R, n_outputs], inputs [B, R, n_inputs] or None, bounds [B, R]."""

    outputs: Tensor
    inputs: Tensor | None
    bounds: Tensor

    def pick(self, index: Tensor) -> Rows:
        inputs = None if self.inputs is None else self.inputs[index]
        return Rows(self.outputs[index], inputs, self.bounds[index])

    def float(self) -> Rows:
        return Rows(self.outputs.float(), None if self.inputs is None else self.inputs.float(), self.bounds.float())


def bound_regions(
    root: Root,
    rows: Rows,
    splits: Splits,
    options: AscentOptions,
    least: Callable[[LinearBound], Tensor] | None = None,
    deadline: Deadline | None = None,
) -> RegionBounds:
    """Bounds on the margins (the largest row) over a batch of regions.

    least: rigorous least values [B, R] of a linear bound over the regions' inputs; by default those over the box.
    deadline: ends the ascent early; what it has come to is evaluated.
    """
    best = ascended(root, rows, splits, options, deadline)
    if least is not None:
        return evaluate(root, rows, best, least)
    size = 8 * sum(node.size for node in root.network.nodes)
    pieces = torch.arange(len(best)).split(max(1, EVALUATED_BYTES // size))
    return RegionBounds.join([evaluate(root, rows.pick(piece), best.pick(piece)) for piece in pieces])


def evaluate(
    root: Root, rows: Rows, best: Splits, least: Callable[[LinearBound], Tensor] | None = None
) -> RegionBounds:
    """The bounds that given slopes and multipliers make, in the precision of root and rows: rigorous in float64."""
    coefficients: dict[int, Tensor] = {}
    dtype = root.lower.dtype
    with torch.no_grad():
        relaxed = _relaxed(root, best, best.slopes.to(dtype), best.multipliers.to(dtype))
        relaxed = replace(relaxed, sensitivities=root.sensitivities, matrices=root.matrices)
        bound = _backward(relaxed, rows, coefficients)
        if least is None:
            values = root.values(bound, rows.bounds)
            values = values - 2.0**-52 * values.abs()
        else:
            values = least(_shifted(bound, rows.bounds))
        lower, row = values.max(1)
        pick = torch.arange(len(row)), row
        points = _points(root, bound, rows.bounds, pick)
        pulls, costs = _pulls(root, best, relaxed, coefficients, pick)
    return RegionBounds(lower, row, best, pulls, pulls * costs, points)


def _shifted(bound: LinearBound, by: Tensor) -> LinearBound:
    """The bound on what is left after subtracting ``by``: [B, R]."""
    constants = bound.constants - by
    return replace(bound, constants=constants, error=bound.error + 2.0**-52 * constants.abs())


def _points(root: Root, bound: LinearBound, sides: Tensor, pick: tuple[Tensor, Tensor]) -> Tensor:
    """Where the linear bounds of the picked rows are least: [B, n_inputs]."""
    slopes = bound.coefficients.expand(len(pick[0]), -1, -1)[pick]
    if root.objective is None:
        return torch.where(slopes > 0, root.lower, root.upper)
    parts = (side.expand(len(pick[0]), -1)[pick].unsqueeze(1) for side in (bound.constants, bound.error, sides))
    constants, error, chosen = parts
    return root.objective.points(LinearBound(slopes.unsqueeze(1), constants, error), chosen)


def linear_bound(root: Root, rows: Rows, splits: Splits) -> LinearBound:
    """The rows over each region as functions of the input, rounding covered, with the slopes and multipliers given."""
    with torch.no_grad():
        relaxed = _relaxed(root, splits, splits.slopes.double(), splits.multipliers.double())
        relaxed = replace(relaxed, sensitivities=root.sensitivities, matrices=root.matrices)
        return _backward(relaxed, rows, None)


def neuron_bounds(root: Root, splits: Splits) -> list[tuple[Tensor, LinearBound]]:
    """Lower bounds on the signed inputs of the neurons split in one region: (places in ``signs`` [S], the bounds).

    Where all neurons before are decided, these are the inputs themselves.
    """
    found, at = [], 0
    with torch.no_grad():
        relaxed = _relaxed(root, splits, splits.slopes.double(), splits.multipliers.double())
        relaxed = replace(relaxed, sensitivities=root.sensitivities, matrices=root.matrices, multipliers={})
        for k, places in root.places.items():
            own = torch.arange(at, at + len(places))
            at += len(places)
            split = splits.signs[0, own] != 0
            if not bool(split.any()):
                continue
            source = root.network.nodes[k].inputs[0]
            rows = torch.zeros(1, int(split.sum()), root.network.nodes[source].size, dtype=torch.float64)
            rows[0, torch.arange(rows.shape[1]), places[split]] = splits.signs[0, own[split]].double()
            shaped = rows.reshape(1, rows.shape[1], *root.network.nodes[source].shape)
            found.append((own[split], backward(relaxed, source, shaped)))
    return found


def ascended(
    root: Root, rows: Rows, splits: Splits, options: AscentOptions, deadline: Deadline | None = None
) -> Splits:
    """The regions with slopes and multipliers that make their bounds large, found in float32."""
    root, rows = root.fast, rows.float()
    split = splits.signs != 0
    scale = float(rows.outputs.abs().max().clamp(min=1e-6))

    def bound(leaves: list[Tensor]) -> Tensor:
        found = _backward(_relaxed(root, splits, *leaves), rows, None)
        return root.values(found, rows.bounds).max(1).values

    choices = [
        Choice(splits.slopes, options.slope_step, lambda s: s.clamp(0, 1)),
        Choice(splits.multipliers, options.multiplier_step * scale, lambda m: m.clamp(min=0) * split),
    ]
    regions = reduced_regions(root, rows, splits)
    fast = by_autograd(bound) if regions is None else regions.ascent(splits.signs)
    best = ascend(choices, fast, lambda better, _: better[:, None], options.iterations, options.decay, deadline)
    slopes, multipliers = best
    return replace(splits, slopes=slopes, multipliers=multipliers)


def reduced_regions(root: Root, rows: Rows, splits: Splits) -> ReducedRegions | None:
    """The regions over the undecided neurons alone, where these are few and every disjunct is one row; else None.

    root, rows: in float32.
    """
    reduced = root.reduced
    if reduced is None or rows.outputs.shape[1] != 1:
        return None
    # Many regions share a disjunct.
    parts = [rows.outputs[:, 0]] if rows.inputs is None else [rows.outputs[:, 0], rows.inputs[:, 0]]
    distinct, which = torch.cat(parts, 1).unique(dim=0, return_inverse=True)
    outputs, inputs = distinct.tensor_split([rows.outputs.shape[2]], 1)
    terms = reduced.rows(outputs, inputs if inputs.shape[1] else None).pick(which, rows.bounds[:, 0])
    low, high = reduced.low, reduced.high
    if splits.inputs is not None:
        low, high = splits.inputs[:, 0].float(), splits.inputs[:, 1].float()
    box = (root.lower + root.upper)[0] / 2, (root.upper - root.lower)[0] / 2
    return ReducedRegions(reduced, terms, box, low, high)


def _relaxed(root: Root, splits: Splits, slopes: Tensor, multipliers: Tensor) -> Relaxed:
    """Relaxations of a batch of regions; ``slopes`` and ``multipliers`` in the dtype of the root."""
    relaxations, signed = {}, {}
    at = 0
    for k, places in root.places.items():
        own = slice(at, at + len(places))
        at += len(places)
        pre = root.nodes[root.network.nodes[k].inputs[0]]
        if not len(places):
            relaxations[k] = triangle(pre)
            continue
        signs = splits.signs[:, own]
        low, high = (side.expand(len(splits), *side.shape[1:]).flatten(1).clone() for side in (pre.lower, pre.upper))
        if splits.inputs is not None:
            low[:, places], high[:, places] = (
                splits.inputs[:, 0, own].to(low.dtype),
                splits.inputs[:, 1, own].to(low.dtype),
            )
        low[:, places] = torch.where(signs > 0, 0.0, low[:, places])
        high[:, places] = torch.where(signs < 0, 0.0, high[:, places])
        shape = (len(splits), *pre.lower.shape[1:])
        lines = torch.zeros(len(splits), low.shape[1], dtype=low.dtype).index_copy(1, places, slopes[:, own])
        clipped = Bounds(low.reshape(shape), high.reshape(shape), pre.level)
        relaxations[k] = triangle(clipped, lines.reshape(len(splits), 1, *shape[1:]))
        if bool((signs != 0).any()):
            weights = multipliers[:, own] * signs
            spread = torch.zeros(len(splits), low.shape[1], dtype=low.dtype).index_copy(1, places, weights)
            signed[k] = spread.reshape(len(splits), 1, *shape[1:])
    return Relaxed(root.network, root.nodes, relaxations, {}, signed)


def _backward(relaxed: Relaxed, rows: Rows, coefficients: dict[int, Tensor] | None) -> LinearBound:
    network = relaxed.network
    shaped = rows.outputs.reshape(*rows.outputs.shape[:2], *network.output_shape)
    visit = None if coefficients is None else coefficients.__setitem__
    return backward(relaxed, len(network.nodes) - 1, shaped, rows.inputs, visit)


def _pulls(
    root: Root, splits: Splits, relaxed: Relaxed, coefficients: dict[int, Tensor], pick: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """What a smaller intercept gains the chosen row, and the intercepts themselves (the intercept part of BaBSR, Bunel
    et al. 2020); [B, m] each."""
    pulls, costs = [], []
    at = 0
    for k, places in root.places.items():
        signs = splits.signs[:, at : at + len(places)]
        at += len(places)
        if not len(places):
            continue
        if k not in coefficients:
            pulls.append(torch.zeros(len(splits), len(places)))
            costs.append(torch.zeros(len(splits), len(places)))
            continue
        rows = coefficients[k].expand(len(splits), -1, *coefficients[k].shape[2:])[pick].flatten(1)[:, places]
        intercept = relaxed.relaxations[k].upper_intercept
        intercept = intercept.expand(len(splits), -1, *intercept.shape[2:])[:, 0]
        pulls.append((pull(rows) * (signs == 0)).float())
        costs.append(intercept.flatten(1)[:, places].float())
    if not pulls:
        return torch.zeros(len(splits), 0), torch.zeros(len(splits), 0)
    return torch.cat(pulls, 1), torch.cat(costs, 1)


def pull(coefficients: Tensor) -> Tensor:
    """Loss of a lower bound per unit of intercept at neurons with these backward coefficients.

    Where the coefficient is positive the lower line is at fault; it costs less than the intercept, not nothing.
    """
    return torch.where(coefficients < 0, -coefficients, POSITIVE_SHARE * coefficients)


POSITIVE_SHARE = 0.3
