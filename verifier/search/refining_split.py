"""Branch and bound on ReLU phases that recomputes the bounds of all later neurons in every region.

Where ``relu_split`` keeps the root's intermediate bounds and visits thousands of regions per second, this search
visits a hundred times fewer, each with bounds of its own (``bounds.refinement``): on deep networks, where one early
neuron blurs everything behind it, tens of regions do what millions of the others cannot.

All open disjuncts share one tree, since they share the intermediate bounds; a region drops the disjuncts it closes.
The worst region is split next.  Branching: the neuron whose relaxation costs most, directly or through the bounds of
later layers (``refinement.scores``; in the spirit of Henriksen and Lomuscio, DEEPSPLIT, IJCAI 2021).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
from verifier.search.candidates import Candidates, rows_of
from verifier.search.evidence_log import RegionLog
from verifier.search.pace import Pace
from verifier.search.relu_split import LEAF, BranchOutcome
from verifier.search.spill import Spill
from verifier.verdict import DisjunctBounds, EvidenceLevel, Witness

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


@dataclass(frozen=True, eq=False)
class _Region:
    """signs: [m]; inputs: [2, m].  owners: the disjuncts it leaves open, [o].

    slopes, multipliers: [o, m], per disjunct.  lower: [o], bounds on their margins.  branch: the neuron to split next,
    -1 where none is undecided.
    """

    signs: Tensor
    inputs: Tensor
    owners: Tensor
    slopes: Tensor
    multipliers: Tensor
    lower: Tensor
    branch: int

    @property
    def worst(self) -> float:
        return float(self.lower.min())

    @property
    def bytes(self) -> int:
        tensors = (self.signs, self.inputs, self.owners, self.slopes, self.multipliers, self.lower)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class RefiningSplitting:
    """The search for the disjuncts of a query over one box; ``work`` goes on where it stopped.

    query: all its disjuncts share the box; network in float64 on the CPU.  nodes: rigorous bounds on every node over
    the box, [1, *shape].  slopes: as ``alpha_crown.optimised_bounds`` found them along with the nodes.  log: is told of
    all regions.
    """

    def __init__(
        self,
        query: Query,
        nodes: Sequence[Bounds],
        slopes: Mapping[int, RowSlopes],
        options: RefineOptions | None = None,
        progress: Progress = silent,
        log: RegionLog | None = None,
    ) -> None:
        self._log = log
        self._options, self._progress, self._slopes = options or RefineOptions(), progress, slopes
        first = query.disjuncts[0]
        lower, upper = (torch.as_tensor(side, dtype=torch.float64)[None] for side in (first.lower, first.upper))
        self._root = Root(query.network, lower, upper, tuple(nodes))
        parts = [torch.full((s.stop - s.start,), k) for k, s in slices(self._root).items()]
        self._layer = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
        self._rows = rows_of(query)
        self._candidates = Candidates(query, self._rows)
        self._count = len(query.disjuncts)
        self._heap: list[tuple[float, int, _Region]] | None = None
        self._order = itertools.count()
        self._abandoned: set[int] = set()
        widest = max(node.size for node in query.network.nodes)
        rows = 2 * max([len(p) for p in self._root.places.values()], default=0)
        self._batch = max(1, min(self._options.largest_batch, self._options.most_bytes // (16 * widest * rows + 1)))
        self._spill, self._forgotten = Spill(), torch.zeros(0, dtype=torch.long)
        self._pace = Pace()
        self.regions = self.spilled = 0
        self.closed = {"bound": 0, "empty": 0}

    method = METHOD

    @property
    def exhausted(self) -> bool:
        return self._heap is not None and self.open == 0

    @property
    def open(self) -> int:
        """Regions left, in memory and on disk."""
        return len(self._heap or []) + len(self._spill)

    @property
    def worst(self) -> float:
        """The least bound of an open region, infinite where none is open."""
        if self._heap is None:
            return -torch.inf
        return min([self._heap[0][0] if self._heap else torch.inf, *self._spill.lowest.values()])

    def work(self, deadline: Deadline) -> BranchOutcome:
        """Split until every disjunct is decided or the deadline passes; what is known by then."""
        witness = None
        if self._heap is None:
            self._heap = []
            witness = self._bound([self._whole()])
        self._pace.start(self.regions)
        while witness is None and not self.exhausted and not deadline.expired:
            self._balance()
            if self._heap:
                witness = self._step()
        return BranchOutcome(witness, self._bounds(), self.regions, self.open)

    def forget(self, closed: Sequence[int]) -> None:
        """Drop disjuncts, by position, that someone else has closed."""
        self._forgotten = torch.tensor(closed, dtype=torch.long)
        if self._heap is not None:
            self._load([region for _, _, region in self._heap])

    def _load(self, regions: Sequence[_Region]) -> None:
        """Make these regions, as far as they are still of interest, the heap."""
        self._heap = []
        gone = torch.cat([self._forgotten, torch.tensor(sorted(self._abandoned), dtype=torch.long)])
        for region in regions:
            still = ~torch.isin(region.owners, gone)
            if bool(still.any()):
                self._push(_only(region, still))

    def _push(self, region: _Region) -> None:
        assert self._heap is not None
        heapq.heappush(self._heap, (region.worst, next(self._order), region))

    def _balance(self) -> None:
        """Move what does not fit in memory to disk, those nearest to closing first, and back when there is room."""
        assert self._heap is not None
        if not self._heap and len(self._spill):
            self._load(self._spill.pop())
        elif len(self._heap) > 1 and len(self._heap) * self._heap[0][2].bytes > self._options.frontier_bytes:
            ordered = sorted(self._heap)
            kept = max(1, len(ordered) // 2)
            away = [region for _, _, region in ordered[kept:]]
            self._heap = ordered[:kept]
            self.spilled += len(away)
            self._spill.push(away, len(away), _lowest(away))

    def _whole(self) -> _Region:
        """The undivided box."""
        start = self._root.undivided()
        sides = []
        for k, places in self._root.places.items():
            bounds = self._root.nodes[self._root.network.nodes[k].inputs[0]]
            sides.append(torch.stack([bounds.lower.flatten()[places], bounds.upper.flatten()[places]]))
        inputs = torch.cat(sides, 1) if sides else torch.zeros(2, 0, dtype=torch.float64)
        return _Region(
            start.signs[0],
            inputs,
            torch.arange(self._count),
            start.slopes.expand(self._count, -1),
            start.multipliers.expand(self._count, -1),
            torch.full((self._count,), -torch.inf, dtype=torch.float64),
            -1,
        )

    def _step(self) -> Witness | None:
        """Split the worst regions."""
        assert self._heap is not None
        taken = [heapq.heappop(self._heap)[2] for _ in range(min(self._batch, len(self._heap)))]
        children = [_child(region, sign) for region in taken for sign in (1, -1)]
        witness = self._bound(children)
        lowest = None if self.exhausted else self.worst
        rate = self._pace.rate(self.regions)
        self._progress(Event(METHOD, lower=lowest, open=self.open, unit="regions", rate=rate))
        return witness

    def _bound(self, regions: list[_Region]) -> Witness | None:
        """Bound regions, keep the open ones, try the points where their bounds are least."""
        root = self._root
        none = torch.zeros(len(regions), 0)
        splits = Splits(torch.stack([r.signs for r in regions]), none, none, torch.stack([r.inputs for r in regions]))
        first = min((int(self._layer[r.branch]) for r in regions if r.branch >= 0), default=0)
        refined = refine(root, self._slopes, splits, first, self._log is not None)
        if self._log is not None:
            self._log.regions(refined, [r.branch for r in regions], first)
        self.regions += len(regions)
        self.closed["empty"] += int((~refined.feasible).sum())
        if not bool(refined.feasible.any()):
            return None
        feasible = [r for i, r in enumerate(regions) if refined.feasible[i]]
        sizes = torch.tensor([len(r.owners) for r in feasible])
        pair = torch.nonzero(refined.feasible).squeeze(1).repeat_interleave(sizes)
        owner, known = (torch.cat([getattr(r, name) for r in feasible]) for name in ("owners", "lower"))
        slopes, multipliers = (torch.cat([getattr(r, name) for r in feasible]) for name in ("slopes", "multipliers"))
        result = self._margins(refined, pair, owner, slopes, multipliers, self._options.ascent)
        lower = torch.maximum(result.lower, known)
        weights = _weights(lower, pair, len(regions))
        pulls = torch.zeros(len(regions), root.size).index_add(0, pair, weights.float()[:, None] * result.pulls)
        gains = scores(root, refined, pulls)
        still = torch.nonzero(lower <= 0).squeeze(1)
        left = sorted(set(pair[still].tolist()))
        self.closed["bound"] += len(feasible) - len(left)
        for i in left:
            self._keep(i, still[pair[still] == i], refined, gains[i], owner, result, lower)
        return self._candidates.judge(result.points[still], owner[still])

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
        self._abandoned.update(owner[lower <= 0].tolist())
        self.forget(self._forgotten.tolist())

    def _keep(
        self, i: int, at: Tensor, refined: Refined, gains: Tensor, owner: Tensor, result: RegionBounds, lower: Tensor
    ) -> None:
        """Put region i back with its open disjuncts, those at rows ``at`` of the result."""
        assert self._heap is not None
        assert refined.splits.inputs is not None
        inputs = refined.splits.inputs[i]
        undecided = (inputs[0] < 0) & (inputs[1] > 0) & (refined.splits.signs[i] == 0)
        if not bool(undecided.any()):
            self._close_leaf(i, refined, owner[at], result.splits.pick(at))
            return
        # Zero gains still name an undecided neuron.
        branch = int(torch.where(undecided, gains + 1e-30, -1.0).argmax())
        region = _Region(
            refined.splits.signs[i],
            inputs,
            owner[at],
            result.splits.slopes[at],
            result.splits.multipliers[at],
            lower[at],
            branch,
        )
        self._push(region)

    def _bounds(self) -> tuple[DisjunctBounds, ...]:
        worst = dict.fromkeys(range(self._count), torch.inf)
        for found_open in (_lowest([region for _, _, region in self._heap or []]), self._spill.lowest):
            for owner, lower in found_open.items():
                worst[owner] = min(worst[owner], lower)
        found = []
        for position, lower in worst.items():
            if position in self._abandoned:
                found.append(DisjunctBounds())
            elif lower < torch.inf:
                found.append(DisjunctBounds(lower=lower))
            else:
                found.append(DisjunctBounds(lower=0.0, closed_by=METHOD, level=EvidenceLevel.RIGOROUS))
        return tuple(found)


def _lowest(regions: Sequence[_Region]) -> dict[int, float]:
    """The least bound of each disjunct that is open in some region."""
    found: dict[int, float] = {}
    for region in regions:
        for owner, lower in zip(region.owners.tolist(), region.lower.tolist(), strict=True):
            found[owner] = min(lower, found.get(owner, lower))
    return found


def _child(region: _Region, sign: int) -> _Region:
    signs = region.signs.clone()
    signs[region.branch] = sign
    return _Region(signs, region.inputs, region.owners, region.slopes, region.multipliers, region.lower, region.branch)


def _only(region: _Region, still: Tensor) -> _Region:
    """The region with some of its disjuncts."""
    return _Region(
        region.signs,
        region.inputs,
        region.owners[still],
        region.slopes[still],
        region.multipliers[still],
        region.lower[still],
        region.branch,
    )


def _weights(lower: Tensor, pair: Tensor, count: int) -> Tensor:
    """How much each disjunct of a region counts in the choice of the neuron: the worst most; closed ones not at all."""
    size = torch.zeros(count, dtype=lower.dtype).index_add(0, pair, lower.clamp(max=0).abs())
    number = torch.zeros(count, dtype=lower.dtype).index_add(0, pair, (lower <= 0).to(lower.dtype))
    mean = (size / number.clamp(min=1)).clamp(min=1e-12)[pair]
    weight = torch.where(lower <= 0, torch.exp((-lower / mean).clamp(max=30)), 0.0)
    return weight / torch.zeros(count, dtype=lower.dtype).index_add(0, pair, weight).clamp(min=1e-12)[pair]
