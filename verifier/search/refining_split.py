"""Branch and bound on ReLU phases that recomputes the bounds of all later neurons in every region.

Where ``relu_split`` keeps the root's intermediate bounds and visits thousands of regions per second, this search
visits a hundred times fewer, each with bounds of its own (``bounds.refinement``): on deep networks, where one early
neuron blurs everything behind it, tens of regions do what millions of the others cannot.

All open disjuncts share one tree, since they share the intermediate bounds; a region drops the disjuncts it closes.
The worst region is split next.  Branching: the neuron whose relaxation costs most, directly or through the bounds of
later layers (``refinement.scores``; in the spirit of Henriksen and Lomuscio, DEEPSPLIT, IJCAI 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verifier.bounds.alpha_crown import RowSlopes
from verifier.bounds.beta_crown import AscentOptions, RegionBounds, Root, Splits, bound_regions
from verifier.bounds.crown import LinearBound
from verifier.bounds.halfspaces import Halfspaces, over_cut_box
from verifier.bounds.level import Bounds
from verifier.bounds.refinement import Refined, refine, scores, slices
from verifier.deadline import Deadline
from verifier.evidence.file import REFINING_SPLITTING
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.candidates import Candidates, root_of, rows_of
from verifier.search.evidence_log import RegionLog
from verifier.search.frontier import Frontier, Regions
from verifier.search.outcome import SearchOutcome, bounds_of
from verifier.search.pace import Pace
from verifier.search.relu_split import LEAF
from verifier.verdict import Witness

METHOD = REFINING_SPLITTING


@dataclass(frozen=True)
class RefineOptions:
    """ascent: of the margins in every region; leaf: where no neuron is undecided any more.

    most_bytes: of one pass's coefficients; limits the batch.  largest_batch: regions split at once; more cost less each
    but are less well chosen.  frontier_bytes: of the regions kept in memory; the rest wait on disk.
    """

    ascent: AscentOptions = field(default_factory=lambda: AscentOptions(iterations=4))
    leaf: AscentOptions = LEAF
    most_bytes: int = 2**24
    largest_batch: int = 4
    frontier_bytes: int = 2**31


class RefiningSplitting:
    """The search for the disjuncts of a query over one box; ``work`` goes on where it stopped.

    query: all its disjuncts share the box; network in float64 on the CPU.  nodes: rigorous bounds on every node over
    the box, [1, *shape].  slopes: as ``alpha_crown.optimised_bounds`` found them along with the nodes.  log: is told of
    all regions.  root: of query and nodes, to share what it derives.
    """

    def __init__(
        self,
        query: Query,
        nodes: Sequence[Bounds],
        slopes: Mapping[int, RowSlopes],
        options: RefineOptions | None = None,
        progress: Progress = silent,
        log: RegionLog | None = None,
        root: Root | None = None,
    ) -> None:
        self._log = log
        self._options, self._progress, self._slopes = options or RefineOptions(), progress, slopes
        self._root = root_of(query, nodes) if root is None else root
        parts = [torch.full((s.stop - s.start,), k) for k, s in slices(self._root).items()]
        self._layer = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
        self._rows = rows_of(query)
        self._candidates = Candidates(query, self._rows)
        self._count = len(query.disjuncts)
        self._frontier = Frontier(self._options.frontier_bytes)
        self._abandoned: set[int] = set()
        widest = max(node.size for node in query.network.nodes)
        rows = 2 * max([len(p) for p in self._root.places.values()], default=0)
        self._batch = max(1, min(self._options.largest_batch, self._options.most_bytes // (16 * widest * rows + 1)))
        self._pace, self._started = Pace(), False
        self.regions = 0
        self.closed = {"bound": 0, "empty": 0}

    method = METHOD

    @property
    def exhausted(self) -> bool:
        return self._started and self.open == 0

    @property
    def open(self) -> int:
        """Regions left, in memory and on disk."""
        return len(self._frontier)

    @property
    def spilled(self) -> int:
        """Regions that have been moved to disk."""
        return self._frontier.spilled

    @property
    def worst(self) -> float:
        """The least bound of an open region, infinite where none is open."""
        return self._frontier.worst if self._started else -torch.inf

    def forget(self, closed: Sequence[int]) -> None:
        """Drop disjuncts, by position, that someone else has closed."""
        self._frontier.forget(closed)

    def work(self, deadline: Deadline) -> SearchOutcome:
        """Split until every disjunct is decided or the deadline passes; what is known by then."""
        witness = None
        if not self._started:
            self._started = True
            witness = self._bound(self._whole())
        self._pace.start(self.regions)
        while witness is None and not self.exhausted and not deadline.expired:
            parents = self._frontier.take(self._batch)
            if parents is not None:
                witness = self._split(parents)
        bounds = bounds_of(self._count, self._frontier, self._abandoned, METHOD)
        return SearchOutcome(witness, bounds, self.regions, self.open)

    def _whole(self) -> Regions:
        """The undivided box."""
        start = self._root.undivided()
        sides = []
        for k, places in self._root.places.items():
            bounds = self._root.nodes[self._root.network.nodes[k].inputs[0]]
            sides.append(torch.stack([bounds.lower.flatten()[places], bounds.upper.flatten()[places]]))
        inputs = torch.cat(sides, 1) if sides else torch.zeros(2, 0, dtype=torch.float64)
        return Regions(
            counts=torch.tensor([self._count]),
            branch=torch.tensor([-1]),
            owner=torch.arange(self._count),
            lower=torch.full((self._count,), -torch.inf, dtype=torch.float64),
            signs=start.signs,
            inputs=inputs[None],
            slopes=start.slopes.expand(self._count, -1),
            multipliers=start.multipliers.expand(self._count, -1),
        )

    def _split(self, parents: Regions) -> Witness | None:
        """Split regions and bound both halves of each."""
        witness = self._bound(_halves(parents))
        lowest = None if self.exhausted else self.worst
        rate = self._pace.rate(self.regions)
        self._progress(Event(METHOD, lower=lowest, open=self.open, unit="regions", rate=rate))
        return witness

    def _bound(self, regions: Regions) -> Witness | None:
        """Bound regions, keep the open ones, try the points where their bounds are least."""
        root, count = self._root, len(regions)
        assert regions.signs is not None
        none = torch.zeros(count, 0)
        splits = Splits(regions.signs, none, none, regions.inputs)
        branch = regions.branch.tolist()
        first = min((int(self._layer[neuron]) for neuron in branch if neuron >= 0), default=0)
        refined = refine(root, self._slopes, splits, first, self._log is not None)
        if self._log is not None:
            self._log.regions(refined, branch, first)
        self.regions += count
        self.closed["empty"] += int((~refined.feasible).sum())
        if not bool(refined.feasible.any()):
            return None
        at = torch.nonzero(refined.feasible).squeeze(1)
        feasible = regions.pick(at)
        pair, owner = at[feasible.region], feasible.owner
        assert feasible.slopes is not None
        assert feasible.multipliers is not None
        result = self._margins(refined, pair, owner, feasible.slopes, feasible.multipliers, self._options.ascent)
        lower = torch.maximum(result.lower, feasible.lower)
        weights = _weights(lower, pair, count)
        pulls = torch.zeros(count, root.size).index_add(0, pair, weights.float()[:, None] * result.pulls)
        assert refined.splits.inputs is not None
        bounded = replace(
            feasible,
            lower=lower,
            inputs=refined.splits.inputs[at],
            slopes=result.splits.slopes,
            multipliers=result.splits.multipliers,
        )
        self._keep(bounded, at, refined, scores(root, refined, pulls)[at])
        still = torch.nonzero(lower <= 0).squeeze(1)
        return self._candidates.judge(result.points[still], owner[still])

    def _keep(self, regions: Regions, at: Tensor, refined: Refined, gains: Tensor) -> None:
        """Put back what is open of regions, which stand at these positions of the batch."""
        assert regions.signs is not None
        assert regions.inputs is not None
        is_open, region = regions.lower <= 0, regions.region
        self.closed["bound"] += len(regions) - len(region[is_open].unique())
        undecided = (regions.inputs[:, 0] < 0) & (regions.inputs[:, 1] > 0) & (regions.signs == 0)
        divisible = undecided.any(1)
        if bool(divisible.any()):
            # Zero gains still name an undecided neuron.
            branch = torch.where(undecided, gains + 1e-30, -1.0).argmax(1)
            self._frontier.add(replace(regions, branch=branch).only(is_open & divisible[region]))
        for leaf in region[is_open & ~divisible[region]].unique().tolist():
            claims = torch.nonzero(is_open & (region == leaf)).squeeze(1)
            self._close_leaf(int(at[leaf]), refined, regions.owner[claims], regions.splits.pick(claims))

    def _margins(
        self,
        refined: Refined,
        pair: Tensor,
        owner: Tensor,
        slopes: Tensor,
        multipliers: Tensor,
        ascent: AscentOptions,
    ) -> RegionBounds:
        """Bounds for pairs of a region (position in the batch) and a disjunct, from these slopes and multipliers on."""
        root, cuts, inputs = self._root, refined.cuts, refined.splits.inputs
        assert inputs is not None
        splits = Splits(refined.splits.signs[pair], slopes, multipliers, inputs[pair])
        own = Halfspaces(cuts.coefficients[pair], cuts.constants[pair], cuts.slack[pair], cuts.counts[pair])

        weights: list[Tensor] = []

        def least(bound: LinearBound) -> Tensor:
            if self._log is not None:
                rows = bound.coefficients.shape[1]
                weights.append(torch.zeros(len(pair), rows, own.constants.shape[1], dtype=torch.float64))
            return over_cut_box(bound, root.lower, root.upper, own, weights[0] if weights else None)

        result = bound_regions(root, self._rows.pick(owner), splits, ascent, least)
        if self._log is not None:
            self._log.closed(result, pair, owner, weights[0])
        return result

    def _close_leaf(self, i: int, refined: Refined, owner: Tensor, splits: Splits) -> None:
        """Region i of the batch has nothing to split; what it leaves open is open for good, and for the MILP stage."""
        pair = torch.full((len(owner),), i)
        lower = self._margins(refined, pair, owner, splits.slopes, splits.multipliers, self._options.leaf).lower
        if bool((lower > 0).all()):
            self.closed["bound"] += 1
            return
        abandoned = owner[lower <= 0].tolist()
        self._abandoned.update(abandoned)
        self._frontier.forget(abandoned)


def _halves(parents: Regions) -> Regions:
    """Both halves of every region, next to each other."""
    halves = parents.pick(torch.arange(len(parents)).repeat_interleave(2))
    assert halves.signs is not None
    signs = halves.signs.clone()
    signs[torch.arange(len(halves)), halves.branch] = torch.tensor([1, -1], dtype=signs.dtype).repeat(len(parents))
    return replace(halves, signs=signs)


def _weights(lower: Tensor, pair: Tensor, count: int) -> Tensor:
    """How much each disjunct of a region counts in the choice of the neuron: the worst most; closed ones not at all."""
    size = torch.zeros(count, dtype=lower.dtype).index_add(0, pair, lower.clamp(max=0).abs())
    number = torch.zeros(count, dtype=lower.dtype).index_add(0, pair, (lower <= 0).to(lower.dtype))
    mean = (size / number.clamp(min=1)).clamp(min=1e-12)[pair]
    weight = torch.where(lower <= 0, torch.exp((-lower / mean).clamp(max=30)), 0.0)
    return weight / torch.zeros(count, dtype=lower.dtype).index_add(0, pair, weight).clamp(min=1e-12)[pair]
