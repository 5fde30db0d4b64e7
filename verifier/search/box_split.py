"""Input splitting on batches of boxes: branch and bound on the input box, for networks of any shape.

What the compiled search (``input_split``) does for dense chains, on the batched bounds of ``bounds.box_bounds``: every
box has intermediate bounds of its own, its linear bounds clip it, the input that causes most of the loss is split in
the middle.  A box that clipping made much smaller is bounded once more before it is split.  Boxes come from the worst
on; the point where a box's bound is least is tried as a counterexample.

All open disjuncts share one tree; a box drops the disjuncts it closes.  A closing is rigorous, and so is clipping: what
is cut off cannot satisfy the disjunct that cut it, and the box of several disjuncts is the hull of their clips.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.box_bounds import BoxBounds, bound_boxes
from verifier.bounds.level import Bounds
from verifier.deadline import Deadline
from verifier.evidence.file import INPUT_SPLITTING
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.candidates import Candidates, rows_of
from verifier.search.evidence_log import BoxTree
from verifier.search.frontier import Frontier, Regions
from verifier.search.outcome import SearchOutcome, bounds_of
from verifier.search.pace import BatchSize, Pace
from verifier.verdict import Witness

METHOD = INPUT_SPLITTING
FIRST_BATCH = 4
LONGEST_STEP = 0.5
"""Seconds between looks at the clock."""
CLIPPED = 0.6
"""A box of which clipping left no more than this share is bounded again before it is split."""
AGAIN, STUCK = -1, -2
"""In place of the input to split next: bound it once more; too small to split."""


@dataclass(frozen=True)
class BoxOptions:
    """most_inputs: boxes with more varying inputs are left to other searches.

    most_rows: undecided neurons of a layer up to which they are bounded one by one.  most_bytes: of one batch's values.
    smallest_width: a side is not split below this share of the root box's side.  crowded, frontier_bytes: as in
    ``relu_split.BranchOptions``.
    """

    most_inputs: int = 16
    most_rows: int = 256
    most_bytes: int = 2**26
    largest_batch: int = 256
    smallest_width: float = 1e-12
    crowded: int = 50_000
    frontier_bytes: int = 2**31


def applicable(query: Query, options: BoxOptions) -> bool:
    """Whether no disjunct's box has too many varying inputs, and some box is no point."""
    varying = [int(np.count_nonzero(d.upper > d.lower)) for d in query.disjuncts]
    return 0 < max(varying, default=0) <= options.most_inputs


class BoxSplitting:
    """The search for the disjuncts of a query over one box; ``work`` goes on where it stopped.

    query: all its disjuncts share the box; network in float64 on the CPU.  nodes: rigorous bounds on every node over
    the box, [1, *shape].  log: is told of the tree.
    """

    def __init__(
        self,
        query: Query,
        nodes: Sequence[Bounds],
        options: BoxOptions | None = None,
        progress: Progress = silent,
        log: BoxTree | None = None,
    ) -> None:
        self._log = log
        self._query, self._nodes = query, tuple(nodes)
        self._options, self._progress = options or BoxOptions(), progress
        first = query.disjuncts[0]
        self._box = torch.stack([torch.as_tensor(side, dtype=torch.float64) for side in (first.lower, first.upper)])
        self._smallest = self._options.smallest_width * (self._box[1] - self._box[0])
        self._rows = rows_of(query)
        self._candidates = Candidates(query, self._rows)
        self._frontier = Frontier(self._options.frontier_bytes, self._options.crowded)
        self._abandoned: set[int] = set()
        most = min(self._options.largest_batch, self._options.most_bytes // _bytes_of_one(query, self._smallest))
        self._batch = BatchSize(FIRST_BATCH, most, LONGEST_STEP)
        self._pace, self._started = Pace(), False
        self.regions = 0
        self.closed = {"bound": 0, "clipped away": 0}

    method = METHOD

    @property
    def exhausted(self) -> bool:
        return self._started and self.open == 0

    @property
    def open(self) -> int:
        """Boxes left, in memory and on disk."""
        return len(self._frontier)

    @property
    def spilled(self) -> int:
        """Boxes that have been moved to disk."""
        return self._frontier.spilled

    @property
    def worst(self) -> float:
        """The least bound of an open box, infinite where none is open."""
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
            boxes = self._frontier.take(self._batch.count)
            if boxes is not None:
                witness = self._split(boxes)
        bounds = bounds_of(len(self._query.disjuncts), self._frontier, self._abandoned, METHOD)
        return SearchOutcome(witness, bounds, self.regions, self.open)

    def _whole(self) -> Regions:
        count = len(self._query.disjuncts)
        return Regions(
            counts=torch.tensor([count]),
            branch=torch.tensor([AGAIN]),
            owner=torch.arange(count),
            lower=torch.full((count,), -torch.inf, dtype=torch.float64),
            box=self._box[None],
            node=torch.zeros(1, dtype=torch.long),
        )

    def _split(self, boxes: Regions) -> Witness | None:
        begun = time.monotonic()
        witness = self._bound(self._parts(boxes))
        self._batch.learn(len(boxes), time.monotonic() - begun)
        lowest = None if self.exhausted else self.worst
        self._progress(Event(METHOD, lower=lowest, open=self.open, unit="boxes", rate=self._pace.rate(self.regions)))
        return witness

    def _parts(self, boxes: Regions) -> Regions:
        """The boxes to be bounded again, then the halves of the others."""
        parts = []
        again = boxes.branch == AGAIN
        if bool(again.any()):
            parts.append(boxes.pick(torch.nonzero(again).squeeze(1)))
        ready = boxes.pick(torch.nonzero(~again).squeeze(1))
        assert ready.box is not None
        own = torch.arange(len(ready)), ready.branch
        middle = (ready.box[:, 0][own] + ready.box[:, 1][own]) / 2
        nodes = ready.node, ready.node
        if self._log is not None and ready.node is not None:
            nodes = self._log.split(ready.node, ready.branch, middle)
        for side, node in zip((1, 0), nodes, strict=True):
            box = ready.box.clone()
            box[:, side][own] = middle
            parts.append(replace(ready, box=box, node=node))
        return Regions.join(parts)

    def _bound(self, boxes: Regions) -> Witness | None:
        """Bound boxes, keep what is open of them, try the points where their bounds are least."""
        assert boxes.box is not None
        region, before = boxes.region, boxes.box
        rows = self._rows.pick(boxes.owner)
        # What is written down has to close by CROWN alone, which is what the checker has.
        most_rows = self._options.most_rows if self._log is None else None
        found = bound_boxes(self._query.network, self._nodes, before, rows, region, most_rows)
        self.regions += len(boxes)
        lower = torch.maximum(found.lower, boxes.lower)
        is_open = (lower <= 0) & (found.clipped[:, 0] <= found.clipped[:, 1]).all(1)
        self._closed(boxes, lower, is_open)
        if not bool(is_open.any()):
            return None
        hull, branch = self._next(before, region, found, lower, is_open)
        stuck = branch == STUCK
        self._give_up(boxes.owner[is_open & stuck[region]])
        kept = is_open & ~stuck[region]
        self._frontier.add(replace(boxes, lower=lower, box=hull, branch=branch).only(kept))
        return self._candidates.judge(found.points[is_open], boxes.owner[is_open])

    def _next(
        self, before: Tensor, region: Tensor, found: BoxBounds, lower: Tensor, is_open: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The hull of what the open disjuncts leave of each box, and what to do with it next: [B, 2, n], [B]."""
        index = region[is_open][:, None].expand(-1, before.shape[2])
        low = torch.full_like(before[:, 0], torch.inf).scatter_reduce(0, index, found.clipped[is_open, 0], "amin")
        high = torch.full_like(before[:, 1], -torch.inf).scatter_reduce(0, index, found.clipped[is_open, 1], "amax")
        # The worst disjunct decides: scores of different rows do not compare.
        least = torch.full_like(low[:, 0], torch.inf).scatter_reduce(0, region[is_open], lower[is_open], "amin")
        decides = is_open & (lower == least[region])
        index = region[decides][:, None].expand(-1, before.shape[2])
        scores = torch.zeros_like(low).scatter_reduce(0, index, torch.nan_to_num(found.scores[decides]), "amax")
        width, middle = high - low, (low + high) / 2
        splittable = (width > self._smallest) & (low < middle) & (middle < high)
        branch = torch.where(splittable, scores, -1.0).argmax(1)
        whole = before[:, 1] - before[:, 0]
        kept = torch.where(whole > 0, width.clamp(min=0) / whole.clamp(min=1e-300), 1.0).prod(1)
        branch = torch.where(kept <= CLIPPED, AGAIN, branch)
        branch = torch.where(splittable.any(1), branch, STUCK)
        return torch.stack([low, high], 1), branch

    def _closed(self, boxes: Regions, lower: Tensor, is_open: Tensor) -> None:
        """Count the boxes that are closed by bounds alone, and by clipping too, and write them down."""
        left = torch.zeros(2, len(boxes), dtype=torch.bool)
        region = boxes.region
        left[0, region[lower <= 0]], left[1, region[is_open]] = True, True
        self.closed["bound"] += int((~left[0]).sum())
        self.closed["clipped away"] += int((left[0] & ~left[1]).sum())
        if self._log is not None and boxes.node is not None:
            self._log.closed(boxes.node[~left[1]])

    def _give_up(self, owner: Tensor) -> None:
        """Disjuncts that are open in a box too small to split are left to other engines."""
        abandoned = owner.unique().tolist()
        self._abandoned.update(abandoned)
        self._frontier.forget(abandoned)


def _bytes_of_one(query: Query, smallest: Tensor) -> int:
    """What bounding one box takes, roughly: values, slopes and shares of all nodes."""
    varying = int((smallest > 0).sum())
    rows = max(len(d.constraints) for d in query.disjuncts) * len(query.disjuncts)
    network = query.network
    widest = max(node.size for node in network.nodes)
    neurons = sum(network.nodes[k].size for k in network.relus)
    return 8 * (neurons * (varying + 4) + widest * (2 * varying + 8 + rows)) + 1
