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
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.candidates import Candidates, rows_of
from verifier.search.relu_split import BranchOutcome
from verifier.verdict import DisjunctBounds, EvidenceLevel, Witness

METHOD = "refining relu splitting"


@dataclass(frozen=True)
class RefineOptions:
    """ascent: of the margins in every region.  most_bytes: of one pass's coefficients; limits the batch.

    largest_batch: regions split at once; more cost less each but are less well chosen.
    """

    ascent: AscentOptions = field(default_factory=lambda: AscentOptions(iterations=4))
    most_bytes: int = 2**24
    largest_batch: int = 4


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


class RefiningSplitting:
    """The search for the disjuncts of a query over one box; ``work`` goes on where it stopped.

    query: all its disjuncts share the box; network in float64 on the CPU.  nodes: rigorous bounds on every node over
    the box, [1, *shape].  slopes: as ``alpha_crown.optimised_bounds`` found them along with the nodes.
    """

    def __init__(
        self,
        query: Query,
        nodes: Sequence[Bounds],
        slopes: Mapping[int, RowSlopes],
        options: RefineOptions | None = None,
        progress: Progress = silent,
    ) -> None:
        self._options, self._progress, self._slopes = options or RefineOptions(), progress, slopes
        first = query.disjuncts[0]
        lower, upper = (torch.as_tensor(side, dtype=torch.float64)[None] for side in (first.lower, first.upper))
        self._root = Root(query.network, lower, upper, tuple(nodes))
        self._layer = torch.cat([torch.full((s.stop - s.start,), k) for k, s in slices(self._root).items()])
        self._rows = rows_of(query)
        self._candidates = Candidates(query, self._rows)
        self._count = len(query.disjuncts)
        self._heap: list[tuple[float, int, _Region]] | None = None
        self._order = itertools.count()
        self._abandoned: set[int] = set()
        widest = max(node.size for node in query.network.nodes)
        rows = 2 * max([len(p) for p in self._root.places.values()], default=0)
        self._batch = max(1, min(self._options.largest_batch, self._options.most_bytes // (16 * widest * rows + 1)))
        self.regions = 0

    @property
    def exhausted(self) -> bool:
        return self._heap is not None and not self._heap

    @property
    def worst(self) -> float:
        """The least bound of an open region, infinite where none is open."""
        return self._heap[0][0] if self._heap else torch.inf

    def work(self, deadline: Deadline) -> BranchOutcome:
        """Split until every disjunct is decided or the deadline passes; what is known by then."""
        witness = None
        if self._heap is None:
            self._heap = []
            witness = self._bound([self._whole()])
        while witness is None and self._heap and not deadline.expired:
            witness = self._step()
        return BranchOutcome(witness, self._bounds(), self.regions, len(self._heap))

    def forget(self, closed: Sequence[int]) -> None:
        """Drop disjuncts, by position, that someone else has closed."""
        kept = []
        for _, _, region in self._heap or []:
            still = ~torch.isin(region.owners, torch.tensor(closed, dtype=torch.long))
            if bool(still.any()):
                left = _only(region, still)
                kept.append((left.worst, next(self._order), left))
        if self._heap is not None:
            heapq.heapify(kept)
            self._heap = kept

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
        self._progress(Event(METHOD, lower=self.worst if self._heap else None, open=len(self._heap), unit="regions"))
        return witness

    def _bound(self, regions: list[_Region]) -> Witness | None:
        """Bound regions, keep the open ones, try the points where their bounds are least."""
        root = self._root
        none = torch.zeros(len(regions), 0)
        splits = Splits(torch.stack([r.signs for r in regions]), none, none, torch.stack([r.inputs for r in regions]))
        first = min((int(self._layer[r.branch]) for r in regions if r.branch >= 0), default=0)
        refined = refine(root, self._slopes, splits, first)
        self.regions += len(regions)
        if not bool(refined.feasible.any()):
            return None
        feasible = [r for i, r in enumerate(regions) if refined.feasible[i]]
        sizes = torch.tensor([len(r.owners) for r in feasible])
        pair = torch.nonzero(refined.feasible).squeeze(1).repeat_interleave(sizes)
        owner, known = (torch.cat([getattr(r, name) for r in feasible]) for name in ("owners", "lower"))
        result = self._margins(feasible, refined, pair, owner)
        lower = torch.maximum(result.lower, known)
        weights = _weights(lower, pair, len(regions))
        pulls = torch.zeros(len(regions), root.size).index_add(0, pair, weights.float()[:, None] * result.pulls)
        gains = scores(root, refined, pulls)
        still = torch.nonzero(lower <= 0).squeeze(1)
        for i in sorted(set(pair[still].tolist())):
            self._keep(i, still[pair[still] == i], refined, gains[i], owner, result, lower)
        return self._candidates.judge(result.points[still], owner[still])

    def _margins(self, regions: list[_Region], refined: Refined, pair: Tensor, owner: Tensor) -> RegionBounds:
        """Bounds for every open disjunct of every region."""
        root, cuts = self._root, refined.cuts
        slopes, multipliers = (torch.cat([getattr(r, name) for r in regions]) for name in ("slopes", "multipliers"))
        assert refined.splits.inputs is not None
        splits = Splits(refined.splits.signs[pair], slopes, multipliers, refined.splits.inputs[pair])
        own = Halfspaces(cuts.coefficients[pair], cuts.constants[pair], cuts.slack[pair], cuts.counts[pair])

        def least(bound: LinearBound) -> Tensor:
            return over_cut_box(bound, root.lower, root.upper, own)

        return bound_regions(root, self._rows.pick(owner), splits, self._options.ascent, least)

    def _keep(
        self, i: int, at: Tensor, refined: Refined, gains: Tensor, owner: Tensor, result: RegionBounds, lower: Tensor
    ) -> None:
        """Put region i back with its open disjuncts, those at rows ``at`` of the result."""
        assert self._heap is not None
        assert refined.splits.inputs is not None
        inputs = refined.splits.inputs[i]
        undecided = (inputs[0] < 0) & (inputs[1] > 0) & (refined.splits.signs[i] == 0)
        if not bool(undecided.any()):
            # Nothing left to split: a linear program, for the MILP stage.
            self._abandoned.update(owner[at].tolist())
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
        heapq.heappush(self._heap, (region.worst, next(self._order), region))

    def _bounds(self) -> tuple[DisjunctBounds, ...]:
        worst = dict.fromkeys(range(self._count), torch.inf)
        for _, _, region in self._heap or []:
            for owner, lower in zip(region.owners.tolist(), region.lower.tolist(), strict=True):
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
