"""Input splitting for dense networks with few inputs: branch and bound on the input box, compiled.

Decides most low-dimensional properties outright.  The boxes, depth first, are worked on by the compiled kernel in
slices, so that the deadline, candidates and progress are seen to between them.  They stand in arrays that the kernel
writes in place, and not in a ``frontier``: at 100,000 boxes a second depth first keeps some dozens of them, and handing
each one over would take longer than bounding it.  Other networks: ``box_split``.  Rounding is covered (see
``triangular``), so an ``unsat`` from here is rigorous.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.bounds.margins import BoxGroup, group_by_box
from verifier.deadline import Deadline
from verifier.evidence.file import INPUT_SPLITTING
from verifier.falsify.referee import Referee
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.dense_chain import DenseChain, dense_chain, is_dense_chain, root_arrays
from verifier.search.evidence_log import EvidenceLog
from verifier.search.outcome import SearchOutcome
from verifier.verdict import DisjunctBounds, EvidenceLevel, Witness

Array = NDArray[np.float64]

METHOD = INPUT_SPLITTING
LOGGED_AT_ONCE = 2**17
"""Boxes worked on between two looks at the clock where the tree is written down."""


@dataclass(frozen=True)
class SplitOptions:
    """most_inputs: boxes with more varying inputs are left to other stages.

    slice_seconds: how long the kernel may run between looks at the clock.
    smallest_width: a side is not split below this share of the root box's side.
    """

    most_inputs: int = 12
    slice_seconds: float = 0.2
    smallest_width: float = 1e-12


def applicable(query: Query, options: SplitOptions) -> bool:
    """Whether some open disjunct has few enough varying inputs and the network is a dense chain."""
    few = any(np.count_nonzero(d.upper > d.lower) <= options.most_inputs for d in query.disjuncts)
    return few and is_dense_chain(query.network)


class InputSplitting:
    """The search over all boxes of a query; ``work`` may be called again and again and goes on where it stopped.

    The network of the query must be in float64 on the CPU, and the query ``applicable``.
    """

    def __init__(
        self,
        query: Query,
        options: SplitOptions | None = None,
        progress: Progress = silent,
        log: EvidenceLog | None = None,
    ) -> None:
        self._options = options or SplitOptions()
        chain = dense_chain(query.network)
        self._count = len(query.disjuncts)
        self._groups = [
            _Group(query, chain, group, self._options, progress, log)
            for group in group_by_box(query.disjuncts)
            if np.count_nonzero(group.upper > group.lower) <= self._options.most_inputs
        ]

    @property
    def exhausted(self) -> bool:
        """No box is left to split; disjuncts still open then were open in boxes too small to split."""
        return all(group.stack.depth == 0 for group in self._groups)

    def work(self, deadline: Deadline) -> SearchOutcome:
        """Split until every disjunct is decided or the deadline passes; what is known by then."""
        witness = None
        for number, group in enumerate(self._groups):
            if group.stack.depth and witness is None:
                witness = group.work(deadline.share(1 / (len(self._groups) - number)))
        bounds = [DisjunctBounds()] * self._count
        for group in self._groups:
            for position, bound in group.bounds():
                bounds[position] = bound
        regions, left = (sum(getattr(group, name) for group in self._groups) for name in ("regions", "open"))
        return SearchOutcome(witness, tuple(bounds), regions, left)

    def worst_boxes(self, count: int) -> list[tuple[int, Array, Array]]:
        """Up to ``count`` open boxes with the least bounds: (position of a disjunct open there, lower, upper)."""
        found = [box for group in self._groups for box in group.worst_boxes(count)]
        found.sort(key=lambda box: box[0])
        return [(position, lower, upper) for _, position, lower, upper in found[:count]]


def split(
    query: Query, deadline: Deadline, options: SplitOptions | None = None, progress: Progress = silent
) -> SearchOutcome:
    """One ``InputSplitting`` from start to end."""
    return InputSplitting(query, options, progress).work(deadline)


class _Group:
    """The search below one box, for the disjuncts that share it."""

    def __init__(
        self,
        query: Query,
        chain: DenseChain,
        group: BoxGroup,
        options: SplitOptions,
        progress: Progress,
        log: EvidenceLog | None,
    ) -> None:
        self._log = None if log is None else log.section(METHOD, [query.indices[p] for p in group.positions])
        self._referee, self._positions = Referee(query), group.positions
        self._options, self._progress = options, progress
        disjuncts = [query.disjuncts[p] for p in group.positions]
        self._arrays = root_arrays(chain, disjuncts, group.lower, group.upper)
        self._hints = np.zeros((len(group.positions), 1), dtype=np.int64)
        self._min_width = options.smallest_width * (group.upper - group.lower)
        self._abandoned = np.zeros(len(group.positions), dtype=bool)
        self._threshold, self._budget, self._stuck = 0.0, 256, 0
        self.stack = _Stack.root(group.lower, group.upper, len(group.positions))
        self.regions = 0

    @property
    def open(self) -> int:
        return self.stack.depth + self._stuck

    def work(self, deadline: Deadline) -> Witness | None:
        """Run the kernel in slices until the stack is empty, the deadline passes, or a witness is confirmed."""
        self._progress(Event(METHOD, open=self.stack.depth, unit="boxes"))
        # Importing compiles the loop, or loads it from numba's cache.
        from verifier.search import box_loop
        from verifier.search.triangular import root_system

        arrays, stack = self._arrays, self.stack
        root = root_system(
            arrays.starts, arrays.weights, arrays.constants, arrays.defects,
            arrays.rows, arrays.row_constants, arrays.row_defects, arrays.largest,
        )  # fmt: skip
        point = np.empty(stack.lower.shape[1])
        log, logged = np.empty((0, 2)), np.zeros(1, dtype=np.int64)
        while stack.depth and not deadline.expired:
            started = time.monotonic()
            if self._log is not None:
                self._budget = min(self._budget, LOGGED_AT_ONCE)
                log, logged[0] = np.empty((LOGGED_AT_ONCE + 1, 2)), 0
            code, stack.depth, visited, stuck, disjunct = box_loop.search(
                stack.lower, stack.upper, stack.live, stack.bound, stack.depth,
                root, arrays.first_row, self._threshold, self._min_width, self._budget,
                self._abandoned, self._hints, point, log, logged,
            )  # fmt: skip
            if self._log is not None:
                codes, cuts = log[: logged[0]].T
                columns = {"code": codes.astype(np.int16), "position": cuts[codes >= 0]}
                self._log.add("nodes", columns, int(np.sum(codes == -1)))
            self.regions += visited
            self._stuck += stuck
            if code == box_loop.CANDIDATE:
                if self._referee.judge(self._positions[disjunct], point):
                    return self._referee.witness
                # True in real arithmetic or nearly so, but not in the model's own: look for a clearer one.
                self._threshold = 2 * min(self._threshold, self._margin(disjunct, point)) - 1e-9
            elif code == box_loop.FULL:
                stack.grow()
            elif code == box_loop.BUDGET:
                pace = self._options.slice_seconds / max(time.monotonic() - started, 1e-4)
                self._budget = int(np.clip(self._budget * min(pace, 8.0), 16, 10_000_000))
                self._progress(Event(METHOD, lower=stack.lowest(), open=stack.depth, unit="boxes"))
        return None

    def bounds(self) -> Iterator[tuple[int, DisjunctBounds]]:
        """What is known of each disjunct of the group, by its position in the query."""
        live = self.stack.live[: self.stack.depth].any(axis=0) | self._abandoned
        lowest = -np.inf if self._abandoned.any() else self.stack.lowest()
        for position, still in zip(self._positions, live, strict=True):
            if still:
                yield position, DisjunctBounds(lower=lowest)
            else:
                yield position, DisjunctBounds(lower=0.0, closed_by=METHOD, level=EvidenceLevel.RIGOROUS)

    def worst_boxes(self, count: int) -> Iterator[tuple[float, int, Array, Array]]:
        """Up to ``count`` open boxes: (bound, position of a disjunct open there, lower, upper)."""
        stack = self.stack
        for box in np.argsort(stack.bound[: stack.depth], kind="stable")[:count]:
            for disjunct in np.flatnonzero(stack.live[box]):
                lower, upper = stack.lower[box].copy(), stack.upper[box].copy()
                yield float(stack.bound[box]), self._positions[disjunct], lower, upper

    def _margin(self, disjunct: int, point: Array) -> float:
        """The margin in float64 of a disjunct of the group."""
        own = slice(self._arrays.first_row[disjunct], self._arrays.first_row[disjunct + 1])
        return float(self._arrays.margins(point)[own].max(initial=-np.inf))


class _Stack:
    """Boxes still open, depth first; arrays of one capacity that the kernel works on in place."""

    def __init__(self, dimensions: int, disjuncts: int, capacity: int) -> None:
        self.lower = np.empty((capacity, dimensions))
        self.upper = np.empty((capacity, dimensions))
        self.live = np.zeros((capacity, disjuncts), dtype=bool)
        self.bound = np.full(capacity, -np.inf)
        self.depth = 0

    @classmethod
    def root(cls, lower: Array, upper: Array, disjuncts: int) -> _Stack:
        stack = cls(len(lower), disjuncts, 1024)
        stack.lower[0], stack.upper[0], stack.live[0] = lower, upper, True
        stack.depth = 1
        return stack

    def lowest(self) -> float:
        """The least bound over the open boxes; inf when none is open."""
        return float(self.bound[: self.depth].min(initial=np.inf))

    def grow(self) -> None:
        grown = _Stack(self.lower.shape[1], self.live.shape[1], 2 * len(self.bound))
        for name in ("lower", "upper", "live", "bound"):
            getattr(grown, name)[: self.depth] = getattr(self, name)[: self.depth]
            setattr(self, name, getattr(grown, name))
