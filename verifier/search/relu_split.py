"""Branch and bound on ReLU phases: split an undecided neuron, bound both halves, close what is positive.

The order of the frontier is best-first (the worst bound next, which moves the global bound and finds counterexamples)
until it grows large, then the regions nearest to closing come first, which keeps it small.  Bounds and branching
scores come from ``bounds.beta_crown``; a closing there is rigorous.  Children start from their parent's slopes and
multipliers.  The point where a region's linear bound is least is tried as a counterexample.

Branching: the neuron whose relaxation costs the bound most (Bunel et al., JMLR 2020, section 4.3; the intercept part).
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
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.candidates import Candidates, rows_of
from verifier.verdict import DisjunctBounds, EvidenceLevel, Witness

Array = NDArray[np.float64]

METHOD = "relu splitting"
FIRST_BATCH = 16


@dataclass(frozen=True)
class BranchOptions:
    """root: the ascent on undivided boxes.  ascent: the one in every region.

    most_bytes: of one batch's values; limits the batch on large networks.  crowded: regions in the frontier from which
    on those nearest to closing come first.
    """

    root: AscentOptions = field(default_factory=lambda: AscentOptions(iterations=20))
    ascent: AscentOptions = field(default_factory=AscentOptions)
    most_bytes: int = 2**26
    largest_batch: int = 1024
    crowded: int = 20_000


@dataclass(frozen=True, eq=False)
class BranchOutcome:
    """As ``input_split.SplitOutcome``, for regions cut by ReLU phases."""

    witness: Witness | None
    bounds: tuple[DisjunctBounds, ...]
    regions: int
    open: int


@dataclass(eq=False)
class _Frontier:
    """Open regions: their splits, bounds, owners (position of the disjunct) and the neuron to split next."""

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
    the box, [1, *shape].
    """

    def __init__(
        self,
        query: Query,
        nodes: Sequence[Bounds],
        options: BranchOptions | None = None,
        progress: Progress = silent,
    ) -> None:
        self._query, self._options, self._progress = query, options or BranchOptions(), progress
        first = query.disjuncts[0]
        lower, upper = (torch.as_tensor(side, dtype=torch.float64)[None] for side in (first.lower, first.upper))
        self._root = Root(query.network, lower, upper, tuple(nodes))
        self._rows = rows_of(query)
        self._candidates = Candidates(query, self._rows)
        self._frontier: _Frontier | None = None
        self._abandoned = np.zeros(len(query.disjuncts), dtype=bool)
        self._batch = FIRST_BATCH
        size = 4 * sum(node.size for node in query.network.nodes) * self._rows.bounds.shape[1]
        self._most = max(1, min(self._options.largest_batch, self._options.most_bytes // size))
        self._rate = 0.0
        self.regions = 0

    @property
    def exhausted(self) -> bool:
        return self._frontier is not None and len(self._frontier) == 0

    @property
    def worst(self) -> float:
        """The least bound of an open region, infinite where none is open."""
        return float(self._open.lower.min()) if self._frontier is not None and len(self._open) else torch.inf

    def forget(self, closed: Sequence[int]) -> None:
        """Drop disjuncts, by position, that someone else has closed."""
        if self._frontier is not None and len(closed):
            gone = torch.isin(self._frontier.owner, torch.tensor(closed, dtype=torch.long))
            self._frontier = self._frontier.pick(torch.nonzero(~gone).squeeze(1))

    def work(self, deadline: Deadline) -> BranchOutcome:
        """Split until every disjunct is decided or the deadline passes; what is known by then."""
        witness = None
        if self._frontier is None:
            witness = self._start()
        while witness is None and len(self._open) and not deadline.expired:
            witness = self._step()
        return BranchOutcome(witness, self._bounds(), self.regions, len(self._open))

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
        children = Splits.join([_child(parents, sign) for sign in (1, -1)])
        found = self._bound(children, parents.owner.repeat(2), parents.lower.repeat(2), self._options.ascent)
        self._adapt(len(parents), time.monotonic() - started)
        lowest = self.worst if len(frontier) else None
        self._progress(Event(METHOD, lower=lowest, open=len(frontier), unit="regions"))
        return found

    def _bound(self, splits: Splits, owner: Tensor, known: Tensor, ascent: AscentOptions) -> Witness | None:
        """Bound regions, keep the open ones, try the points where their bounds are least."""
        result = bound_regions(self._root, self._rows.pick(owner), splits, ascent)
        self.regions += len(splits)
        lower = torch.maximum(result.lower, known)
        still = torch.nonzero(lower <= 0).squeeze(1)
        undecided = result.splits.signs[still] == 0
        # Zero scores still name an undecided neuron; none left is a linear program, for the MILP stage.
        branch = torch.where(undecided, result.scores[still] + 1e-30, -1.0).max(1) if undecided.shape[1] else None
        splittable = torch.zeros(len(still), dtype=torch.bool) if branch is None else branch.values > 0
        for position in owner[still[~splittable]].tolist():
            self._abandoned[position] = True
        kept = still[splittable]
        if branch is not None and len(kept):
            chosen = branch.indices[splittable]
            self._open.add(_Frontier(result.splits.pick(kept), lower[kept], owner[kept], chosen))
        return self._candidates.judge(result.points[still], owner[still])

    def _adapt(self, count: int, seconds: float) -> None:
        """Larger batches for as long as they bound more regions per second."""
        rate = count / max(seconds, 1e-9)
        if count == self._batch and rate > 1.05 * self._rate:
            self._rate = rate
            self._batch = min(2 * self._batch, self._most)

    def _bounds(self) -> tuple[DisjunctBounds, ...]:
        found = []
        for position in range(len(self._query.disjuncts)):
            lower = self._open.lower[self._open.owner == position]
            if len(lower):
                found.append(DisjunctBounds(lower=float(lower.min())))
            elif self._abandoned[position]:
                found.append(DisjunctBounds())
            else:
                found.append(DisjunctBounds(lower=0.0, closed_by=METHOD, level=EvidenceLevel.RIGOROUS))
        return tuple(found)


def _child(parents: _Frontier, sign: int) -> Splits:
    """One half of every parent."""
    signs = parents.splits.signs.clone()
    signs[torch.arange(len(parents)), parents.branch] = sign
    return replace(parents.splits, signs=signs)
