"""Input splitting for networks with few inputs: branch and bound on the input box.

Decides most low-dimensional properties outright.  The boxes, depth first, are worked on by the compiled kernel in
slices, so that the deadline, candidates and progress are seen to between them.  Rounding is covered (see
``dense_chain``), so an ``unsat`` from here is rigorous.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.bounds.margins import BoxGroup, group_by_box
from verifier.deadline import Deadline
from verifier.model.network import Network
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.dense_chain import DenseChain, KernelArrays, dense_chain, kernel_arrays
from verifier.verdict import DisjunctBounds, EvidenceLevel, Witness

METHOD = "input splitting"


@dataclass(frozen=True)
class SplitOptions:
    """most_inputs: boxes with more varying inputs are left to other stages.

    slice_seconds: how long the kernel may run between looks at the clock.
    smallest_width: a side is not split below this share of the root box's side.
    """

    most_inputs: int = 12
    slice_seconds: float = 0.2
    smallest_width: float = 1e-12


@dataclass(frozen=True, eq=False)
class SplitOutcome:
    """witness: a confirmed counterexample, or None.  bounds: one entry per disjunct of the query."""

    witness: Witness | None
    bounds: tuple[DisjunctBounds, ...]
    regions: int
    open: int


@dataclass(frozen=True, eq=False)
class _GroupOutcome:
    witness: Witness | None
    bound: float
    live: NDArray[np.bool_]
    regions: int
    open: int


def applicable(network: Network, query: Query, options: SplitOptions) -> bool:
    """Whether some open disjunct has few enough varying inputs and the network is a dense chain."""
    few = any(np.count_nonzero(d.upper > d.lower) <= options.most_inputs for d in query.disjuncts)
    return few and dense_chain(network) is not None


def split(
    query: Query,
    deadline: Deadline,
    options: SplitOptions | None = None,
    progress: Progress = silent,
) -> SplitOutcome:
    """Split boxes until every open disjunct is decided or the deadline passes.

    ``query.network`` must be in float64 on the CPU, and ``applicable``.
    """
    options = options or SplitOptions()
    chain = dense_chain(query.network)
    if chain is None:
        raise ValueError("input splitting needs a chain of dense layers; ask applicable() first")
    bounds = [DisjunctBounds()] * len(query.disjuncts)
    regions = left = 0
    groups = group_by_box(query.disjuncts)
    for number, group in enumerate(groups):
        if np.count_nonzero(group.upper > group.lower) > options.most_inputs:
            continue
        own = deadline.share(1 / (len(groups) - number))
        outcome = _split_group(query, chain, group, own, options, progress)
        regions += outcome.regions
        left += outcome.open
        for position, live in zip(group.positions, outcome.live, strict=True):
            bounds[position] = (
                DisjunctBounds(lower=outcome.bound)
                if live
                else DisjunctBounds(lower=0.0, closed_by=METHOD, level=EvidenceLevel.RIGOROUS)
            )
        if outcome.witness is not None:
            return SplitOutcome(outcome.witness, tuple(bounds), regions, left)
    return SplitOutcome(None, tuple(bounds), regions, left)


def _split_group(
    query: Query,
    chain: DenseChain,
    group: BoxGroup,
    deadline: Deadline,
    options: SplitOptions,
    progress: Progress,
) -> _GroupOutcome:
    from verifier.search import zonotope_kernel as kernel

    arrays = kernel_arrays(chain, [query.disjuncts[p] for p in group.positions], group.lower, group.upper)
    stack = _Stack.root(group.lower, group.upper, len(group.positions))
    min_width = options.smallest_width * (group.upper - group.lower)
    point = np.empty(len(group.lower))
    threshold, budget, regions, stuck = 0.0, 256, 0, 0
    abandoned = np.zeros(len(group.positions), dtype=bool)
    while stack.depth and not deadline.expired:
        started = time.monotonic()
        code, stack.depth, visited, newly_stuck, disjunct = kernel.search(
            stack.lower, stack.upper, stack.live, stack.bound, stack.depth,
            arrays.W, arrays.b, arrays.sizes, arrays.widen,
            arrays.rows, arrays.constants, arrays.input_rows, arrays.row_error, arrays.first_row,
            threshold, min_width, budget, abandoned, point,
        )  # fmt: skip
        regions += visited
        stuck += newly_stuck
        if code == kernel.CANDIDATE:
            position = group.positions[disjunct]
            witness = confirm(query, position, point)
            if witness is not None:
                return _GroupOutcome(witness, -np.inf, np.ones_like(abandoned), regions, stack.depth)
            # True in real arithmetic or nearly so, but not in the model's own: look for a clearer one.
            threshold = 2 * min(threshold, _margin(arrays, disjunct, point, chain)) - 1e-9
        elif code == kernel.FULL:
            stack.grow()
        elif code == kernel.BUDGET:
            pace = options.slice_seconds / max(time.monotonic() - started, 1e-4)
            budget = int(np.clip(budget * min(pace, 8.0), 16, 10_000_000))
            progress(Event(METHOD, lower=stack.lowest(), open=stack.depth, unit="boxes"))
    live = stack.live[: stack.depth].any(axis=0) | abandoned
    bound = -np.inf if abandoned.any() else stack.lowest()
    return _GroupOutcome(None, bound, live, regions, stack.depth + stuck)


def confirm(query: Query, position: int, point: NDArray[np.float64]) -> Witness | None:
    """The point as a witness for one disjunct if onnxruntime agrees, with zero tolerance."""
    disjunct = query.disjuncts[position]
    x = query.replay.representable(point, disjunct.lower, disjunct.upper)
    y = query.replay.run(x)
    if not disjunct.holds_exactly(x, y):
        return None
    return Witness(x, y, query.indices[position], float(disjunct.constraints.margins(x, y).max(initial=-np.inf)))


def _margin(arrays: KernelArrays, disjunct: int, point: NDArray[np.float64], chain: DenseChain) -> float:
    """The margin in float64 of a disjunct of the group."""
    values = point
    for layer in chain.hidden:
        values = np.maximum(layer.weight @ values + layer.bias, 0)
    own = slice(arrays.first_row[disjunct], arrays.first_row[disjunct + 1])
    margins = arrays.rows[own, : len(values)] @ values + arrays.constants[own] + arrays.input_rows[own] @ point
    return float(margins.max(initial=-np.inf))


class _Stack:
    """Boxes still open, depth first; arrays of one capacity that the kernel works on in place."""

    def __init__(self, dimensions: int, disjuncts: int, capacity: int) -> None:
        self.lower = np.empty((capacity, dimensions))
        self.upper = np.empty((capacity, dimensions))
        self.live = np.zeros((capacity, disjuncts), dtype=bool)
        self.bound = np.full(capacity, -np.inf)
        self.depth = 0

    @classmethod
    def root(cls, lower: NDArray[np.float64], upper: NDArray[np.float64], disjuncts: int) -> _Stack:
        stack = cls(len(lower), disjuncts, 1024)
        stack.lower[0], stack.upper[0], stack.live[0] = lower, upper, True
        stack.depth = 1
        return stack

    def lowest(self) -> float:
        """The least bound over the open boxes, before rounding; inf when none is open."""
        return float(self.bound[: self.depth].min(initial=np.inf))

    def grow(self) -> None:
        grown = _Stack(self.lower.shape[1], self.live.shape[1], 2 * len(self.bound))
        for name in ("lower", "upper", "live", "bound"):
            getattr(grown, name)[: self.depth] = getattr(self, name)[: self.depth]
            setattr(self, name, getattr(grown, name))
