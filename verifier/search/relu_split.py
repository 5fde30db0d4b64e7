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
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verifier.bounds.beta_crown import AscentOptions, Root, Splits, bound_regions
from verifier.bounds.level import Bounds
from verifier.deadline import Deadline
from verifier.evidence.file import RELU_SPLITTING
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.candidates import Candidates, root_of, rows_of
from verifier.search.evidence_log import LeafLog
from verifier.search.frontier import Frontier, Regions
from verifier.search.look_ahead import look_ahead
from verifier.search.outcome import SearchOutcome, bounds_of
from verifier.search.pace import BatchSize, Pace
from verifier.verdict import DisjunctBounds, Witness

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


class ReluSplitting:
    """The search for the disjuncts of a query over one box; ``work`` goes on where it stopped.

    query: all its disjuncts share the box; network in float64 on the CPU.  nodes: rigorous bounds on every node over
    the box, [1, *shape].  log: is told of all closed regions.  root: of query and nodes, to share what it derives.
    """

    def __init__(
        self,
        query: Query,
        nodes: Sequence[Bounds],
        options: BranchOptions | None = None,
        progress: Progress = silent,
        log: LeafLog | None = None,
        root: Root | None = None,
    ) -> None:
        self._log = log
        self._query, self._options, self._progress = query, options or BranchOptions(), progress
        self._root = root_of(query, nodes) if root is None else root
        self._rows = rows_of(query)
        self._candidates = Candidates(query, self._rows)
        self._frontier = Frontier(self._options.frontier_bytes, self._options.crowded)
        self._abandoned: set[int] = set()
        size = 4 * sum(node.size for node in query.network.nodes) * self._rows.bounds.shape[1]
        self._batch = BatchSize(FIRST_BATCH, min(self._options.largest_batch, self._options.most_bytes // size))
        self._pace, self._started = Pace(), False
        self.regions = 0
        self.closed = {"bound": 0}

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
            witness = self._start()
        self._pace.start(self.regions)
        while witness is None and not self.exhausted and not deadline.expired:
            parents = self._frontier.take(self._batch.count)
            if parents is not None:
                witness = self._split(parents)
        return SearchOutcome(witness, self._bounds(), self.regions, self.open)

    def _start(self) -> Witness | None:
        """Bound the undivided box for every disjunct."""
        count = len(self._query.disjuncts)
        whole = self._root.undivided().pick(torch.zeros(count, dtype=torch.long))
        self._started = True
        return self._bound(whole, torch.arange(count), torch.full((count,), -torch.inf).double(), self._options.root)

    def _split(self, parents: Regions) -> Witness | None:
        """Split one batch of regions."""
        started = time.monotonic()
        splits = parents.splits
        branch = look_ahead(self._root, self._rows.pick(parents.owner), splits, parents.branch)
        children = Splits.join([splits.child(branch, sign) for sign in (1, -1)])
        found = self._bound(children, parents.owner.repeat(2), parents.lower.repeat(2), self._options.ascent)
        self._batch.learn(len(parents), time.monotonic() - started)
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
            self._frontier.add(Regions.single(result.splits.pick(kept), owner[kept], lower[kept], chosen))
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
        abandoned = owner[lower <= 0].tolist()
        self._abandoned.update(abandoned)
        self._frontier.forget(abandoned)

    def _bounds(self) -> tuple[DisjunctBounds, ...]:
        return bounds_of(len(self._query.disjuncts), self._frontier, self._abandoned, METHOD)
