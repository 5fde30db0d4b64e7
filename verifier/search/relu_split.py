"""Branch and bound on ReLU phases: split an undecided neuron, bound both halves, close what is positive.

The order of the frontier is best-first (the worst bound next, which moves the global bound and finds counterexamples)
until it grows large, then the regions nearest to closing come first, which keeps it small.  Bounds and branching
scores come from ``bounds.beta_crown``; a closing there is rigorous.  Children start from their parent's slopes and
multipliers.  The point where a region's linear bound is least is tried as a counterexample.

Branching: the neuron whose relaxation costs the bound most (Bunel et al., JMLR 2020, section 4.3; the intercept part),
or a better one found by looking ahead (``look_ahead``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.beta_crown import AscentOptions, Root, Splits, bound_regions
from verifier.bounds.level import Bounds
from verifier.deadline import Deadline
from verifier.evidence.file import RELU_SPLITTING
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.candidates import Candidates, rows_of
from verifier.search.evidence_log import LeafLog
from verifier.search.look_ahead import look_ahead
from verifier.search.pace import Pace
from verifier.search.spill import Spill
from verifier.verdict import DisjunctBounds, EvidenceLevel, Witness

Array = NDArray[np.float64]

METHOD = RELU_SPLITTING
FIRST_BATCH = 16


LEAF = AscentOptions(iterations=150, decay=0.97)
"""Without an undecided neuron only multipliers are left to choose: a linear program, solved by ascending longer."""


@dataclass(frozen=True)
class BranchOptions:
    """root: the ascent on undivided boxes.  ascent: in every region; leaf: where no neuron is undecided any more.

    most_bytes: of one batch's values; limits the batch on large networks.  crowded: regions in the frontier from which
    on those nearest to closing come first.  frontier_bytes: of the regions kept in memory; the rest wait on disk.
    """

    root: AscentOptions = field(default_factory=lambda: AscentOptions(iterations=20))
    ascent: AscentOptions = field(default_factory=AscentOptions)
    leaf: AscentOptions = LEAF
    most_bytes: int = 2**24
    largest_batch: int = 1024
    crowded: int = 20_000
    frontier_bytes: int = 2**31


@dataclass(frozen=True, eq=False)
class BranchOutcome:
    """As ``input_split.SplitOutcome``, for regions cut by ReLU phases."""

    witness: Witness | None
    bounds: tuple[DisjunctBounds, ...]
    regions: int
    open: int


@dataclass(eq=False)
class _Frontier:
    """Open regions: their splits, bounds, owners (position of the disjunct) and a neuron to split next."""

    splits: Splits
    lower: Tensor
    owner: Tensor
    branch: Tensor

    def __len__(self) -> int:
        return len(self.lower)

    def take(self, count: int, nearest: bool) -> _Frontier:
        """Remove and return ``count`` regions: the worst, or the nearest to closing."""
        order = torch.argsort(self.lower, descending=nearest, stable=True)
        taken, kept = self.pick(order[:count]), self.pick(torch.sort(order[count:]).values)
        self.splits, self.lower, self.owner, self.branch = kept.splits, kept.lower, kept.owner, kept.branch
        return taken

    def add(self, other: _Frontier) -> None:
        self.splits = Splits.join([self.splits, other.splits])
        self.lower = torch.cat([self.lower, other.lower])
        self.owner = torch.cat([self.owner, other.owner])
        self.branch = torch.cat([self.branch, other.branch])

    def pick(self, index: Tensor) -> _Frontier:
        return _Frontier(self.splits.pick(index), self.lower[index], self.owner[index], self.branch[index])


class ReluSplitting:
    """The search for the disjuncts of a query over one box; ``work`` goes on where it stopped.

    query: all its disjuncts share the box; network in float64 on the CPU.  nodes: rigorous bounds on every node over
    the box, [1, *shape].  log: is told of all closed regions.
    """

    def __init__(
        self,
        query: Query,
        nodes: Sequence[Bounds],
        options: BranchOptions | None = None,
        progress: Progress = silent,
        log: LeafLog | None = None,
    ) -> None:
        self._log = log
        self._query, self._options, self._progress = query, options or BranchOptions(), progress
        first = query.disjuncts[0]
        lower, upper = (torch.as_tensor(side, dtype=torch.float64)[None] for side in (first.lower, first.upper))
        self._root = Root(query.network, lower, upper, tuple(nodes))
        self._rows = rows_of(query)
        self._candidates = Candidates(query, self._rows)
        self._frontier: _Frontier | None = None
        self._abandoned = np.zeros(len(query.disjuncts), dtype=bool)
        size = 4 * sum(node.size for node in query.network.nodes) * self._rows.bounds.shape[1]
        self._most = max(1, min(self._options.largest_batch, self._options.most_bytes // size))
        self._batch = min(FIRST_BATCH, self._most)
        self._rate = 0.0
        self._kept = max(2, self._options.frontier_bytes // (9 * self._root.size + 64))
        self._spill, self._forgotten = Spill(), torch.zeros(0, dtype=torch.long)
        self._pace = Pace()
        self.regions = self.spilled = 0
        self.closed = {"bound": 0}

    method = METHOD

    @property
    def exhausted(self) -> bool:
        return self._frontier is not None and self.open == 0

    @property
    def open(self) -> int:
        """Regions left, in memory and on disk."""
        return len(self._open) + len(self._spill)

    @property
    def worst(self) -> float:
        """The least bound of an open region, infinite where none is open."""
        if self._frontier is None:
            return -torch.inf
        kept = float(self._open.lower.min()) if len(self._open) else torch.inf
        return min([kept, *self._spill.lowest.values()])

    def forget(self, closed: Sequence[int]) -> None:
        """Drop disjuncts, by position, that someone else has closed."""
        self._forgotten = torch.tensor(closed, dtype=torch.long)
        if self._frontier is not None:
            self._frontier = self._remembered(self._frontier)

    def _remembered(self, frontier: _Frontier) -> _Frontier:
        gone = torch.cat([self._forgotten, torch.from_numpy(np.flatnonzero(self._abandoned))])
        return frontier.pick(torch.nonzero(~torch.isin(frontier.owner, gone)).squeeze(1))

    def work(self, deadline: Deadline) -> BranchOutcome:
        """Split until every disjunct is decided or the deadline passes; what is known by then."""
        witness = None
        if self._frontier is None:
            witness = self._start()
        self._pace.start(self.regions)
        while witness is None and not self.exhausted and not deadline.expired:
            self._balance()
            if len(self._open):
                witness = self._step()
        return BranchOutcome(witness, self._bounds(), self.regions, self.open)

    def _balance(self) -> None:
        """Move what does not fit in memory to disk, those nearest to closing first, and back when there is room."""
        if len(self._open) > self._kept:
            part = self._open.take(len(self._open) - self._kept // 2, nearest=True)
            self.spilled += len(part)
            self._spill.push(part, len(part), _lowest(part))
        elif not len(self._open) and len(self._spill):
            self._frontier = self._remembered(self._spill.pop())

    @property
    def _open(self) -> _Frontier:
        assert self._frontier is not None
        return self._frontier

    def _start(self) -> Witness | None:
        """Bound the undivided box for every disjunct."""
        count = len(self._query.disjuncts)
        whole = self._root.undivided().pick(torch.zeros(count, dtype=torch.long))
        nothing = torch.zeros(0)
        none = torch.zeros(0, dtype=torch.long)
        self._frontier = _Frontier(whole.pick(none), nothing.double(), none, none)
        return self._bound(whole, torch.arange(count), torch.full((count,), -torch.inf).double(), self._options.root)

    def _step(self) -> Witness | None:
        """Split one batch of regions."""
        started = time.monotonic()
        frontier = self._open
        parents = frontier.take(self._batch, nearest=len(frontier) > self._options.crowded)
        parents.branch = look_ahead(self._root, self._rows.pick(parents.owner), parents.splits, parents.branch)
        children = Splits.join([_child(parents, sign) for sign in (1, -1)])
        found = self._bound(children, parents.owner.repeat(2), parents.lower.repeat(2), self._options.ascent)
        self._adapt(len(parents), time.monotonic() - started)
        lowest = None if self.exhausted else self.worst
        rate = self._pace.rate(self.regions)
        self._progress(Event(METHOD, lower=lowest, open=self.open, unit="regions", rate=rate))
        return found

    def _bound(self, splits: Splits, owner: Tensor, known: Tensor, ascent: AscentOptions) -> Witness | None:
        """Bound regions, keep the open ones, try the points where their bounds are least."""
        result = bound_regions(self._root, self._rows.pick(owner), splits, ascent)
        self.regions += len(splits)
        if self._log is not None:
            self._log.closed(result, owner)
        lower = torch.maximum(result.lower, known)
        still = torch.nonzero(lower <= 0).squeeze(1)
        self.closed["bound"] += len(splits) - len(still)
        undecided = result.splits.signs[still] == 0
        # Zero scores still name an undecided neuron; none left is a linear program, for the MILP stage.
        branch = torch.where(undecided, result.scores[still] + 1e-30, -1.0).max(1) if undecided.shape[1] else None
        splittable = torch.zeros(len(still), dtype=torch.bool) if branch is None else branch.values > 0
        kept = still[splittable]
        if branch is not None and len(kept):
            chosen = branch.indices[splittable]
            self._open.add(_Frontier(result.splits.pick(kept), lower[kept], owner[kept], chosen))
        leaves = still[~splittable]
        if len(leaves):
            self._close_leaves(result.splits.pick(leaves), owner[leaves])
        return self._candidates.judge(result.points[still], owner[still])

    def _close_leaves(self, splits: Splits, owner: Tensor) -> None:
        """Regions with nothing to split; what they leave open is open for good, and for the MILP stage."""
        result = bound_regions(self._root, self._rows.pick(owner), splits, self._options.leaf)
        if self._log is not None:
            self._log.closed(result, owner)
        lower = result.lower
        self.closed["bound"] += int((lower > 0).sum())
        self._abandoned[owner[lower <= 0].numpy()] = True
        self.forget(self._forgotten.tolist())

    def _adapt(self, count: int, seconds: float) -> None:
        """Larger batches for as long as they bound more regions per second."""
        rate = count / max(seconds, 1e-9)
        if count == self._batch and rate > 1.05 * self._rate:
            self._rate = rate
            self._batch = min(2 * self._batch, self._most)

    def _bounds(self) -> tuple[DisjunctBounds, ...]:
        found = []
        waiting = self._spill.lowest
        for position in range(len(self._query.disjuncts)):
            lower = self._open.lower[self._open.owner == position]
            lowest = min(float(lower.min()) if len(lower) else torch.inf, waiting.get(position, torch.inf))
            if self._abandoned[position]:
                found.append(DisjunctBounds())
            elif lowest < torch.inf:
                found.append(DisjunctBounds(lower=lowest))
            else:
                found.append(DisjunctBounds(lower=0.0, closed_by=METHOD, level=EvidenceLevel.RIGOROUS))
        return tuple(found)


def _lowest(frontier: _Frontier) -> dict[int, float]:
    """The least bound of each disjunct that is open there."""
    return {int(owner): float(frontier.lower[frontier.owner == owner].min()) for owner in frontier.owner.unique()}


def _child(parents: _Frontier, sign: int) -> Splits:
    """One half of every parent."""
    signs = parents.splits.signs.clone()
    signs[torch.arange(len(parents)), parents.branch] = sign
    return replace(parents.splits, signs=signs)
