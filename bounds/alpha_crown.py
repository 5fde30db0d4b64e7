"""Pre-activation bounds with optimised slopes: alpha-CROWN on every undecided neuron (Xu et al., ICLR 2021, section 3).

CROWN takes one lower slope per neuron for all bounds.  Here every row, that is every side of every undecided neuron,
has slopes of its own on all ReLUs before it, and they ascend its bound: projected Adam in float32, the best slopes
evaluated once more in float64 with rounding subtracted.  Layers go in order, so deep ones profit from shallow ones.
On deep dense networks this is what makes branch and bound possible at all; on shallow ones it changes little.
The slopes are kept: shifted by how a region changed the lines, they serve all regions of the box (``refinement``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from verifier.bounds.ascent import Choice, ascend, by_autograd
from verifier.bounds.crown import Relaxed, backward
from verifier.bounds.interval import step
from verifier.bounds.level import Bounds
from verifier.bounds.relaxation import Relaxation, triangle
from verifier.bounds.rounding import sensitivity
from verifier.deadline import Deadline
from verifier.model.network import Network

BYTES = 2**25
"""For the slopes of the rows that ascend together."""
KEPT_BYTES = 2**27
"""For the slopes that are kept; a network with more keeps none."""


@dataclass(frozen=True)
class AlphaOptions:
    """iterations of Adam per layer; step: of a slope, at first; decay: of the step, per iteration."""

    iterations: int = 12
    step: float = 0.25
    decay: float = 0.9


RowSlopes = Mapping[int, Tensor]
"""Per ReLU node, the lower slopes of the rows of one earlier pass: [2, U, V] float32, where [0, i, j] is the slope of
the node's j-th undecided neuron in the lower bound of the i-th undecided neuron bounded, and [1, i, j] in the upper."""


Visit = Callable[[int, bool, Tensor, Mapping[int, Tensor]], None]
"""Told the ReLU node whose input was bounded, whether from below, the flat places of the rows, and their slopes [R, V]
on the undecided neurons of every ReLU node before."""


@dataclass(frozen=True, eq=False)
class Optimised:
    """nodes: bounds on every node, [1, *shape].  slopes: per ReLU node, those of the rows that bound its input."""

    nodes: tuple[Bounds, ...]
    slopes: Mapping[int, RowSlopes]


def optimised_bounds(
    network: Network,
    nodes: Sequence[Bounds],
    deadline: Deadline,
    options: AlphaOptions | None = None,
    visit: Visit | None = None,
) -> Optimised:
    """Tighter bounds over one box from rigorous ones (float64, CPU, [1, *shape] per node).

    What the deadline leaves undone keeps its old bounds.  visit: shown all rows and their slopes.
    """
    options = options or AlphaOptions()
    fast = network.to(torch.float32)
    found = list(nodes)
    reader = {network.nodes[k].inputs[0]: k for k in network.relus}
    slopes: dict[int, RowSlopes] = {}
    for index in range(1, len(network.nodes)):
        found[index] = found[index].intersect(step(network, index, found))
        before = [k for k in network.relus if k < index and bool(found[network.nodes[k].inputs[0]].unstable.any())]
        if index in reader and before and not deadline.expired:
            known = found[index].unstable.flatten()
            told = None if visit is None else partial(visit, reader[index])
            found[index], used = _tighten(network, fast, found, index, before, deadline, options, told)
            still = found[index].unstable.flatten()[known]
            slopes[reader[index]] = {k: rows[:, still] for k, rows in used.items()}
    return Optimised(tuple(found), slopes)


def _tighten(
    network: Network,
    fast: Network,
    found: list[Bounds],
    index: int,
    before: list[int],
    deadline: Deadline,
    options: AlphaOptions,
    visit: Callable[[bool, Tensor, Mapping[int, Tensor]], None] | None,
) -> tuple[Bounds, RowSlopes]:
    """Bounds of the node and the slopes [2, undecided before, V] that gave them."""
    known = found[index]
    low, high = known.lower.flatten().clone(), known.upper.flatten().clone()
    undecided = torch.nonzero((low < 0) & (high > 0)).squeeze(1)
    position = torch.zeros(low.numel(), dtype=torch.long).index_copy(0, undecided, torch.arange(len(undecided)))
    columns = {k: torch.nonzero(found[network.nodes[k].inputs[0]].unstable.flatten()).squeeze(1) for k in before}
    kept = _adaptive(network, found, before, len(undecided))
    relaxed = Relaxed(
        network,
        found,
        {k: triangle(found[network.nodes[k].inputs[0]]) for k in network.relus if k < index},
        {k: sensitivity(network, k, found) for k in range(index + 1)},
    )
    size = 4 * sum(network.nodes[k].size for k in before)
    likely_active = low + high > 0
    for side in (likely_active, ~likely_active):
        for from_below in (True, False):
            places = torch.nonzero((low < 0) & (high > 0) & (side == from_below)).squeeze(1)
            for part in places.split(max(1, BYTES // size)):
                if deadline.expired or not len(part):
                    break
                sign = 1.0 if from_below else -1.0
                rows = torch.zeros(1, len(part), low.numel(), dtype=torch.float64)
                rows[0, torch.arange(len(part)), part] = sign
                shaped = rows.reshape(1, len(part), *network.nodes[index].shape)
                bound, chosen = _optimise(relaxed, fast, shaped, index, before, options, deadline)
                undecided_slopes = {k: chosen[k][0].flatten(1)[:, columns[k]] for k in before}
                if visit is not None:
                    visit(from_below, part, undecided_slopes)
                for k, own in kept.items():
                    own[0 if from_below else 1, position[part]] = undecided_slopes[k]
                if from_below:
                    low[part] = torch.maximum(low[part], bound)
                else:
                    high[part] = torch.minimum(high[part], -bound)
    return Bounds(low.reshape(known.lower.shape), high.reshape(known.upper.shape), known.level), kept


def _adaptive(network: Network, found: list[Bounds], before: list[int], rows: int) -> dict[int, Tensor]:
    """CROWN's slopes for that many rows, per ReLU node [2, rows, V]; nothing where that were too much to keep."""
    undecided = {k: found[network.nodes[k].inputs[0]] for k in before}
    if 8 * rows * sum(int(bounds.unstable.sum()) for bounds in undecided.values()) > KEPT_BYTES // len(network.relus):
        return {}
    return {
        k: (bounds.upper > -bounds.lower)[bounds.unstable].float().expand(2, rows, -1).clone()
        for k, bounds in undecided.items()
    }


def _optimise(
    relaxed: Relaxed,
    fast: Network,
    rows: Tensor,
    index: int,
    before: list[int],
    options: AlphaOptions,
    deadline: Deadline,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Rigorous lower bounds of the rows, [R], after ascending their slopes, and these, [1, R, *shape]."""
    network, nodes = relaxed.network, relaxed.bounds
    single = [Bounds(b.lower.float(), b.upper.float(), b.level) for b in nodes]
    lower, upper = (side.flatten(1) for side in (nodes[0].lower, nodes[0].upper))
    low32, high32, rows32 = lower.float(), upper.float(), rows.float()
    fixed = {k: _single(r) for k, r in relaxed.relaxations.items() if k not in before}

    def bound(slopes: list[Tensor]) -> Tensor:
        lines = {k: triangle(single[network.nodes[k].inputs[0]], s) for k, s in zip(before, slopes, strict=True)}
        return backward(Relaxed(fast, single, {**fixed, **lines}, {}), index, rows32).over_box(low32, high32)[0]

    def start(k: int) -> Tensor:
        return relaxed.relaxations[k].lower_slope.float().expand(1, rows.shape[1], *network.nodes[k].shape)

    best = ascend(
        [Choice(start(k), options.step, lambda s: s.clamp(0, 1)) for k in before],
        by_autograd(bound),
        lambda better, like: better.reshape(1, -1, *[1] * (like.dim() - 2)),
        options.iterations,
        options.decay,
        deadline,
    )
    chosen = dict(zip(before, best, strict=True))
    with torch.no_grad():
        lines = {k: triangle(nodes[network.nodes[k].inputs[0]], s.double()) for k, s in chosen.items()}
        exact = replace(relaxed, relaxations={**relaxed.relaxations, **lines})
        return backward(exact, index, rows).over_box(lower, upper)[0], chosen


def _single(relaxation: Relaxation) -> Relaxation:
    return Relaxation(
        relaxation.lower_slope.float(), relaxation.upper_slope.float(), relaxation.upper_intercept.float()
    )
