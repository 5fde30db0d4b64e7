"""Best-first branch and bound on ReLU phases for a minimum: the least value, or the distance of a counterexample.

The frontier holds regions cut by ReLU signs, each with a rigorous lower bound (``bounds.beta_crown`` with an objective
of ``bounds.ball_objective``); the region with the least bound is split next, so the least bound of all only rises.  A
region whose bound exceeds the cutoff is closed: the caller's best point less its tolerance.  A region without undecided
neurons is a convex program, whose multipliers ``leaf`` finds.

The caller owns points and cutoff: ``work`` hands it the points where bounds are least and is told the cutoff anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verifier.bounds.alpha_crown import AlphaOptions, optimised_bounds
from verifier.bounds.ball import Norm
from verifier.bounds.ball_objective import Lowest, Nearest
from verifier.bounds.beta_crown import AscentOptions, Root, Rows, Splits, bound_regions
from verifier.bounds.level import Bounds
from verifier.deadline import Deadline
from verifier.model.network import Network
from verifier.search.frontier import Frontier, Regions
from verifier.search.leaf import close
from verifier.search.pace import BatchSize

FIRST_BATCH = 8
LONGEST_STEP = 1.0
"""Seconds between looks at the clock."""
Try = Callable[[Tensor, Tensor], float]
"""Told points (K, n_inputs) and the rows they belong to (K,); answers the cutoff from now on."""


@dataclass(frozen=True)
class RegionOptions:
    """root, ascent: of the slopes and multipliers, on undivided and on split regions.

    most_bytes: of one batch's values.  shown: points per batch that the caller is told.
    """

    root: AscentOptions = field(default_factory=lambda: AscentOptions(iterations=20))
    ascent: AscentOptions = field(default_factory=AscentOptions)
    most_bytes: int = 2**26
    largest_batch: int = 1024
    shown: int = 8


class RegionSearch:
    """network: float64, CPU.  nodes: rigorous bounds over the objective's ball, [1, *shape].

    rows: one entry per disjunct, [D, R, ...]; the minimum is over all of them.
    """

    def __init__(
        self,
        network: Network,
        nodes: Sequence[Bounds],
        rows: Rows,
        objective: Nearest | Lowest,
        options: RegionOptions | None = None,
    ) -> None:
        self._options, self._rows = options or RegionOptions(), rows
        self._objective = objective
        self._root = _root(network, nodes, objective)
        self._frontier, self._started = Frontier(), False
        self._settled = math.inf
        self._busy = math.inf
        """The least bound of the regions that a step has taken out, until their children are in."""
        size = 4 * sum(node.size for node in network.nodes) * rows.bounds.shape[1]
        most = min(self._options.largest_batch, self._options.most_bytes // size)
        self._batch = BatchSize(FIRST_BATCH, most, LONGEST_STEP)
        self.regions = 0

    @property
    def lower(self) -> float:
        """No point of the ball has less; -inf before any work."""
        if not self._started:
            return -math.inf
        return min(self._settled, self._busy, self._frontier.worst)

    @property
    def open(self) -> int:
        return len(self._frontier)

    @property
    def undecided(self) -> int:
        """Neurons of the root that may be either way."""
        return self._root.size

    @property
    def exhausted(self) -> bool:
        return self._started and len(self._frontier) == 0

    def work(self, deadline: Deadline, attempt: Try) -> None:
        """Split until nothing is open or the deadline passes."""
        self._deadline = deadline
        if not self._started:
            count = len(self._rows.bounds)
            whole = self._root.undivided().pick(torch.zeros(count, dtype=torch.long))
            self._started, self._busy = True, -math.inf
            owner, known = torch.arange(count), torch.full((count,), -torch.inf, dtype=torch.float64)
            self._bound(whole, owner, known, self._options.root, attempt)
            self._busy = math.inf
        while len(self._frontier) and not deadline.expired:
            self._step(attempt)

    def focus(self, nodes: Sequence[Bounds], objective: Nearest | Lowest) -> None:
        """Go on with better bounds, over a ball that is not larger: neurons they decide drop out of all regions.

        Regions that contradict them are empty.
        """
        old, self._root = self._root, _root(self._root.network, nodes, objective)
        self._objective = objective
        columns, crossed, at = [], [], 0
        for k, places in old.places.items():
            pre = nodes[old.network.nodes[k].inputs[0]]
            low, high = pre.lower.flatten()[places], pre.upper.flatten()[places]
            columns.append(at + torch.nonzero((low < 0) & (high > 0)).squeeze(1))
            crossed.append(torch.stack([high < 0, low > 0]))
            at += len(places)
        kept = torch.cat(columns) if columns else torch.zeros(0, dtype=torch.long)
        assert len(kept) == self._root.size, "bounds after the first must not be looser"
        inactive, active = torch.cat(crossed, 1) if crossed else torch.zeros(2, 0, dtype=torch.bool)
        # Where the neuron to split is decided now, -1, the region is bounded anew instead.
        new_place = torch.full((old.size + 1,), -1, dtype=torch.long)
        new_place[kept] = torch.arange(len(kept))

        def narrowed(regions: Regions) -> Regions:
            splits = regions.splits
            empty = (((splits.signs > 0) & inactive) | ((splits.signs < 0) & active)).any(1)
            alive = regions.only(~empty)
            splits = Splits(*(getattr(alive.splits, name)[:, kept] for name in ("signs", "slopes", "multipliers")))
            return Regions.single(splits, alive.owner, alive.lower, new_place[alive.branch])

        self._frontier.rewrite(narrowed)

    def _step(self, attempt: Try) -> None:
        begun = time.monotonic()
        taken = self._frontier.take(self._batch.count)
        assert taken is not None
        worth = taken.lower <= self._objective.cutoff
        self._settle(taken.lower[~worth])
        if not bool(worth.any()):  # the least bounds exceed the cutoff, so all do
            self._settled = min(self._settled, self._frontier.worst)
            self._frontier = Frontier()
            return
        taken = taken.only(worth)
        self._busy = float(taken.lower.min())
        stale, ready = (taken.pick(torch.nonzero(which).squeeze(1)) for which in (taken.branch < 0, taken.branch >= 0))
        parts = [stale.splits, *(ready.splits.child(ready.branch, sign) for sign in (1, -1))]
        owner = torch.cat([stale.owner, ready.owner, ready.owner])
        known = torch.cat([stale.lower, ready.lower, ready.lower])
        self._bound(Splits.join(parts), owner, known, self._options.ascent, attempt)
        self._busy = math.inf
        self._batch.learn(len(taken), time.monotonic() - begun)

    def _bound(self, splits: Splits, owner: Tensor, known: Tensor, ascent: AscentOptions, attempt: Try) -> None:
        """Bound regions, keep the open ones, let the caller try the points where their bounds are least."""
        cutoff = self._objective.cutoff
        result = bound_regions(self._root, self._rows.pick(owner), splits, ascent, deadline=self._deadline)
        self.regions += len(splits)
        # Rounding of the sum; the cutoff had been subtracted.
        lower = torch.maximum(result.lower + cutoff - 2.0**-51 * (result.lower.abs() + abs(cutoff)), known)
        closed = result.lower > 0
        self._settle(torch.maximum(known, torch.full_like(known, cutoff))[closed])
        still = torch.nonzero(~closed).squeeze(1)
        if not len(still):
            return
        undecided = result.splits.signs[still] == 0
        splittable = undecided.any(1)
        for i in still[~splittable].tolist():
            one = torch.tensor([i])
            self._finish(splits.pick(one), owner[one], float(lower[i]), attempt)
        kept = still[splittable]
        if len(kept):
            chosen = torch.where(undecided, result.scores[still] + 1e-30, -1.0).argmax(1)[splittable]
            self._frontier.add(Regions.single(result.splits.pick(kept), owner[kept], lower[kept], chosen))
        shown = still[torch.argsort(lower[still])[: self._options.shown]]
        self._learn(attempt(result.points[shown], owner[shown]))

    def _finish(self, splits: Splits, owner: Tensor, known: float, attempt: Try) -> None:
        """A region where all is linear."""
        found = close(self._root, self._objective, self._rows.pick(owner), splits)
        # As a tensor of torch's own choice it would be rounded to float32, up or down.
        self._settled = min(self._settled, max(known, found.lower))
        if len(found.points):
            self._learn(attempt(found.points, owner.expand(len(found.points))))

    def _settle(self, bounds: Tensor) -> None:
        if len(bounds):
            self._settled = min(self._settled, float(bounds.min()))

    def _learn(self, cutoff: float) -> None:
        if cutoff < self._objective.cutoff:
            self._objective = replace(self._objective, cutoff=cutoff)
            fast = self._root.fast
            self._root = replace(self._root, objective=self._objective)
            # The caches of the root hold no matter what the cutoff is.
            vars(self._root)["fast"] = replace(fast, objective=self._objective.float())


def sharper(
    network: Network, nodes: Sequence[Bounds], objective: Nearest | Lowest, deadline: Deadline
) -> tuple[Bounds, ...]:
    """Optimised bounds where the ball is a box, the same ones elsewhere."""
    if objective.ball.norm is not Norm.LINF:
        return tuple(nodes)
    return optimised_bounds(network, nodes, deadline, AlphaOptions()).nodes


def _root(network: Network, nodes: Sequence[Bounds], objective: Nearest | Lowest) -> Root:
    lower, upper = objective.ball.box()
    return Root(network, lower[None], upper[None], tuple(nodes), objective)
