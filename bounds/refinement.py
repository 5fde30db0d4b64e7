"""Bounds on all ReLU inputs of regions cut by splits, recomputed layer by layer.

A split of an early neuron tightens the bounds of all neurons behind it; on deep networks that is worth far more than
what it does to the last bound directly (Henriksen and Lomuscio, VeriNet, ECAI 2020).  Per ReLU layer, in order:

1. One CROWN pass for both sides of every undecided neuron, with slopes that alpha-CROWN found for the same row on the
   whole box, shifted by how much the region turned the neuron's upper line.
2. Every split neuron's linear upper bound of  sign * z  becomes a halfspace that contains the region.
3. The least values over the box cut by the halfspaces so far are the new bounds (``halfspaces``).

Invariant: for every input of the box at which all splits of a region hold, the inputs of its ReLUs lie within the new
bounds, rounding covered; a region with crossed bounds contains no input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounds.alpha_crown import RowSlopes
from verifier.bounds.beta_crown import Root, Splits, pull
from verifier.bounds.crown import LinearBound, Relaxed, backward
from verifier.bounds.halfspaces import Halfspaces, over_cut_box
from verifier.bounds.level import Bounds
from verifier.bounds.relaxation import Relaxation, triangle

SHIFT = 1.5
"""By how much a slope follows the slope of its neuron's upper line, which a region changes.  On eran 9x200: 1,149
regions on one property where unshifted slopes need over 1,700 and adaptive ones 2,051."""

PASS_BYTES = 2**24
"""For one tensor of backward coefficients; rows are taken in pieces that fit."""


@dataclass(frozen=True, eq=False)
class Pass:
    """The backward pass that bounded the inputs of one ReLU node, in rows [B, R].

    neuron: positions among the m.  lower: whether a row bounds from below.  used: False for padding and split neurons.
    coefficients: per earlier ReLU node on the values of its undecided neurons, [B, R, V].
    multipliers: of the halfspaces, [B, R, K] in their order, where they were asked for.
    """

    neuron: Tensor
    lower: Tensor
    used: Tensor
    coefficients: Mapping[int, Tensor]
    multipliers: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Refined:
    """splits: with their new ``inputs``.  feasible: [B], False where no input satisfies the splits.

    cuts: halfspaces that contain the regions.  passes: what was computed on the way, in order of the layers.
    """

    splits: Splits
    feasible: Tensor
    cuts: Halfspaces
    passes: tuple[Pass, ...]


def refine(
    root: Root, slopes: Mapping[int, RowSlopes], splits: Splits, first: int, keep_multipliers: bool = False
) -> Refined:
    """Tighter ``inputs`` for a batch of regions.

    splits: with ``inputs`` that hold but for the latest split of each.  slopes: per ReLU node of those rows that have
    optimised ones.  first: the first ReLU node whose neurons were split latest; earlier bounds are kept.
    keep_multipliers: of the halfspaces, in the passes.
    """
    assert splits.inputs is not None
    network, batch = root.network, len(splits)
    low, high = (splits.inputs[:, side].clone() for side in (0, 1))
    low = torch.where(splits.signs > 0, low.clamp(min=0), low)
    high = torch.where(splits.signs < 0, high.clamp(max=0), high)
    most = int((splits.signs != 0).sum(1).max()) if batch else 0
    cuts = Halfspaces.none(batch, most, network.n_inputs)
    lines: dict[int, Relaxation] = {}
    passes = []
    for k, own in slices(root).items():
        signs = splits.signs[:, own]
        plan = _plan(low[:, own], high[:, own], signs, k >= first)
        count = plan.place.shape[1]
        if count:
            coefficients: dict[int, list[Tensor]] = {}
            values = torch.zeros(batch, count, dtype=torch.float64)
            used = torch.zeros(batch, count, most, dtype=torch.float64) if keep_multipliers else None
            for columns in _pieces(root, k, plan):
                part = plan.at(columns)
                bound = _pass(root, k, part, lines, _row_slopes(root, slopes.get(k, {}), part, low, high), coefficients)
                _cut(cuts, part, bound)
                told = None if used is None else used[:, columns].contiguous()
                values[:, columns] = over_cut_box(bound, root.lower, root.upper, cuts, told)
                if used is not None and told is not None:
                    used[:, columns] = told
            below, above = plan.valid & plan.lower, plan.valid & ~plan.lower
            low[:, own] = low[:, own].scatter_reduce(1, plan.place, values.where(below, -torch.inf), "amax")
            high[:, own] = high[:, own].scatter_reduce(1, plan.place, (-values).where(above, torch.inf), "amin")
            joined = {index: torch.cat(parts, 1) for index, parts in coefficients.items()}
            passes.append(Pass(own.start + plan.place, plan.lower, plan.valid & ~plan.split, joined, used))
        lines[k] = triangle(_spread(root, k, low[:, own], high[:, own]))
    inputs = torch.stack([low, high], 1)
    return Refined(replace(splits, inputs=inputs), (low <= high).all(1), cuts, tuple(passes))


def scores(root: Root, refined: Refined, pulls: Tensor) -> Tensor:
    """What splitting each undecided neuron may gain, [B, m]: directly and through the bounds of later layers.

    pulls: [B, m], gain of the regions' margins per unit of each neuron's intercept (``beta_crown.RegionBounds``).
    A row that bounds the input of a neuron passes that neuron's gain on: its intercept  -l u / (u - l)  moves by
    u^2 / (u - l)^2 per unit of l and by l^2 / (u - l)^2 per unit of u.
    """
    assert refined.splits.inputs is not None
    low, high = refined.splits.inputs[:, 0], refined.splits.inputs[:, 1]
    undecided = (low < 0) & (high > 0)
    width = (high - low).clamp(min=1e-12)
    gains = torch.where(undecided, pulls.double(), 0.0)
    own = slices(root)
    for layer in reversed(refined.passes):
        at = torch.where(layer.lower, high.gather(1, layer.neuron), low.gather(1, layer.neuron))
        weights = gains.gather(1, layer.neuron) * (at / width.gather(1, layer.neuron)) ** 2 * layer.used
        for k, coefficients in layer.coefficients.items():
            gains[:, own[k]] += (weights.unsqueeze(1) @ pull(coefficients)).squeeze(1)
    return torch.where(undecided, gains * (-low * high / width), 0.0)


def slices(root: Root) -> dict[int, slice]:
    """Where the undecided neurons of each ReLU node stand among the m."""
    found, at = {}, 0
    for k, places in root.places.items():
        found[k] = slice(at, at + len(places))
        at += len(places)
    return found


@dataclass(frozen=True, eq=False)
class _Plan:
    """Rows [B, R]: which neuron of the layer, from which side, whether a split one, whether a row at all."""

    place: Tensor
    lower: Tensor
    split: Tensor
    valid: Tensor

    def at(self, columns: Tensor) -> _Plan:
        return _Plan(*(side[:, columns] for side in (self.place, self.lower, self.split, self.valid)))


def _plan(low: Tensor, high: Tensor, signs: Tensor, all_undecided: bool) -> _Plan:
    """Of every split neuron the side that makes its halfspace, then both sides of every undecided one; padded."""
    undecided = (low < 0) & (high > 0) & all_undecided
    wanted = torch.cat([signs != 0, undecided, undecided], 1)
    count = int(wanted.sum(1).max()) if wanted.numel() else 0
    order = torch.argsort(wanted.to(torch.int8), dim=1, descending=True, stable=True)[:, :count]
    size = low.shape[1]
    place = order % size if size else order
    split = order < size
    lower = torch.where(split, signs.gather(1, place) < 0, order < 2 * size)
    return _Plan(place, lower, split, wanted.gather(1, order))


def _pieces(root: Root, k: int, plan: _Plan) -> list[Tensor]:
    """Columns that are bounded together: those with split neurons first, whose halfspaces serve all the others."""
    batch, count = plan.place.shape
    first = int((plan.split & plan.valid).sum(1).max())
    nodes = root.network.nodes
    sizes = [node.size for node in nodes[: nodes[k].inputs[0] + 1]]
    # On sparse matrices the coefficients on all nodes are kept until the pass is over.
    size = 8 * batch * (max(sizes) if root.matrices is None else sum(sizes))
    rest = torch.arange(first, count).split(max(1, PASS_BYTES // size)) if first < count else ()
    return [torch.arange(first), *rest] if first else list(rest)


def _pass(
    root: Root,
    k: int,
    plan: _Plan,
    lines: Mapping[int, Relaxation],
    own_slopes: Mapping[int, Tensor],
    coefficients: dict[int, list[Tensor]],
) -> LinearBound:
    """Linear lower bounds of the rows; ``coefficients`` gets those on undecided neurons."""
    network, source = root.network, root.network.nodes[k].inputs[0]
    batch, count = plan.place.shape
    relaxed = Relaxed(network, root.nodes, lines, root.sensitivities, matrices=root.matrices)

    def visit(index: int, values: Tensor) -> None:
        coefficients.setdefault(index, []).append(values.flatten(2)[:, :, root.places[index]].expand(batch, -1, -1))

    rows = torch.zeros(batch, count, network.nodes[source].size, dtype=torch.float64)
    side = torch.where(plan.lower, 1.0, -1.0).double()
    rows.scatter_(2, root.places[k][plan.place].unsqueeze(2), side.unsqueeze(2))
    own = {j: _sloped(root, j, lines[j], slopes) for j, slopes in own_slopes.items()}
    shaped = rows.reshape(batch, count, *network.nodes[source].shape)
    return backward(replace(relaxed, relaxations={**lines, **own}), source, shaped, visit=visit)


def _row_slopes(root: Root, slopes: RowSlopes, plan: _Plan, low: Tensor, high: Tensor) -> dict[int, Tensor]:
    """The rows' own slopes on earlier ReLU nodes, [B, R, V], shifted along with the upper lines of the neurons."""
    own, side, found = slices(root), (~plan.lower).long(), {}
    for j, table in slopes.items():
        bounds = root.nodes[root.network.nodes[j].inputs[0]]
        whole = (bounds.upper / (bounds.upper - bounds.lower)).flatten()[root.places[j]]
        inside = high[:, own[j]] / (high[:, own[j]] - low[:, own[j]])
        moved = torch.nan_to_num(inside, nan=0.0).clamp(0, 1) - whole
        found[j] = (table[side, plan.place].double() + SHIFT * moved.unsqueeze(1)).clamp(0, 1)
    return found


def _sloped(root: Root, j: int, line: Relaxation, slopes: Tensor) -> Relaxation:
    """The relaxation of ReLU node j with these lower slopes [B, R, V] where a region leaves its neurons undecided."""
    places, shape = root.places[j], line.lower_slope.shape
    known = line.lower_slope.flatten(2)
    undecided = line.upper_intercept.flatten(2)[:, :, places] > 0
    chosen = torch.where(undecided, slopes, known[:, :, places])
    spread = known.expand(-1, slopes.shape[1], -1).index_copy(2, places, chosen)
    return replace(line, lower_slope=spread.reshape(shape[0], slopes.shape[1], *shape[2:]))


def _spread(root: Root, k: int, low: Tensor, high: Tensor) -> Bounds:
    """Bounds on the whole input of ReLU node k, [B, *shape], from those on its undecided neurons."""
    bounds = root.nodes[root.network.nodes[k].inputs[0]]
    shape = (len(low), *bounds.lower.shape[1:])
    lower, upper = (side.expand(shape).flatten(1) for side in (bounds.lower, bounds.upper))
    lower, upper = lower.index_copy(1, root.places[k], low), upper.index_copy(1, root.places[k], high)
    return Bounds(lower.reshape(shape), upper.reshape(shape), bounds.level)


def _cut(cuts: Halfspaces, plan: _Plan, bound: LinearBound) -> None:
    """Add the halfspaces of the split rows:  -sign z >= C x + d - e  makes  -C x - d + e >= sign z >= 0."""
    region, row = torch.nonzero(plan.valid & plan.split, as_tuple=True)
    shape = plan.place.shape
    coefficients = bound.coefficients.expand(*shape, -1)[region, row]
    constants, error = (part.expand(shape)[region, row] for part in (bound.constants, bound.error))
    cuts.append(region, -coefficients, -constants, 1.001 * error)
