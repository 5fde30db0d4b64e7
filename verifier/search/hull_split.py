"""Branch and bound on ReLU phases with hull planes (``hull_ascent``): whether rows are positive all over a box.

LANES regions at a time, those that were opened last; a region inherits the multipliers of the one it comes from, so a
few steps of the ascent suffice.  A neuron's score is what it loses the bound at the mean of the ascent's last
minimisers: the multiplier of its plane times how far the plane lies above the ReLU there.  How much of that earlier
splits have gained (``pseudo_costs``) says which one to split.

Where a network's undecided neurons read few inputs each, as after convolutions, one ascent of a tenth of a second is
worth more than thousands of regions without hull planes, and as much as ten seconds of linear programs with cuts:
mnist_wk17a, image 1 within 0.141, margin to 6: -3.77 with optimised slopes, -2.70 after 12,000 regions of ReLU
splitting, -1.34 after eight rounds of cuts in 8 s, -1.38 after 100 steps here in 0.12 s.

What is closed in a box is closed in every smaller one: the regions that are left (``leaves``) are all that a search in
a smaller box has to look at.

Invariant: a region counts as closed only by a bound that is proved (``HullAscent.prove``).
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.search.hull_ascent import Ascended, Cost, HullAscent, Multipliers, Task, Workspace
from verifier.search.lanes import LANES
from verifier.search.pseudo_costs import PseudoCosts

Array = NDArray[np.float64]
Signs = NDArray[np.int8]
GOAL = 0.01
"""Bounds this far above 0, in units of the row, are enough for an ascent to stop."""
Offer = Callable[[Array], object]
"""Told the inputs of relaxations' solutions, (K, n_inputs)."""


@dataclass(frozen=True)
class HullOptions:
    """root_steps, steps: of the ascent, at the root and in every other region.  step: the length of the first one in
    every other region.  exact: what counts as no loss of a neuron.  threads: of LANES regions each.
    """

    root_steps: int = 120
    steps: int = 60
    step: float = 0.04
    exact: float = 1e-9
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Leaf:
    """An open region of a disjunct.

    phases: the neurons that were split, by ReLU node and place, with their signs.
    """

    disjunct: int
    phases: dict[tuple[int, int], int]


@dataclass(frozen=True)
class _Split:
    """What a region comes from.  score: of the neuron.  before: the bound of the region that was split."""

    neuron: int
    sign: int
    score: float
    before: float


@dataclass(frozen=True, eq=False)
class _Region:
    """row: of the disjunct's, that shall refute it.  weight: of what is open of the disjunct.

    split: None where nothing is to be learned from it.  again: whether a proof has failed for want of exact constants.
    """

    disjunct: int
    row: int
    signs: Signs
    multipliers: Multipliers
    weight: float
    split: _Split | None = None
    again: bool = False


@dataclass(frozen=True, eq=False)
class _Bounded:
    """region: with the multipliers of the ascent, and of the proof where there is one.  proved: else -inf."""

    region: _Region
    found: Ascended
    proved: float


class HullSplitting:
    """Rows (D, R, n_outputs) over the box of a program: of every disjunct, in every region, one has to be positive.

    signs: (m,), of neurons that are known to be decided.  leaves: what is open; the whole box by default.  ``work``
    goes on where it stopped.  roots: (D, R), the proved bounds of the whole box, NaN where none was needed.
    seconds: spent in ``work``.  stuck: whether some region cannot be closed by splitting.  dead_ends: where
    the rows of such regions are least, (n_inputs,) each.
    """

    def __init__(
        self,
        hull: HullAscent,
        rows: Array,
        signs: Signs,
        offer: Offer,
        leaves: Sequence[Leaf] | None = None,
        options: HullOptions | None = None,
    ) -> None:
        self._hull, self._offer, self._options = hull, offer, options or HullOptions()
        self._costs = [[hull.output(row) for row in part] for part in rows]
        self._known = signs
        neurons = hull.program.neurons
        self._numbers = {
            place: j for j, place in enumerate(zip(neurons.layer.tolist(), neurons.place.tolist(), strict=True))
        }
        self._leaves = [Leaf(disjunct, {}) for disjunct in range(len(rows))] if leaves is None else list(leaves)
        self._open: list[_Region] = []
        self._begun = False
        self._closed = np.ones(len(rows))
        self._shares: list[tuple[float, float]] = []
        self._gains = [PseudoCosts(len(signs)) for _ in rows]
        self.seconds = 0.0
        self.roots = np.full(rows.shape[:2], np.nan)
        self.regions, self.stuck = 0, False
        self.dead_ends: list[Array] = []

    @property
    def closed(self) -> bool:
        return self._begun and not self._open and not self.stuck

    @property
    def undecided(self) -> list[int]:
        """The disjuncts that are not refuted."""
        if not self._begun:
            return sorted({leaf.disjunct for leaf in self._leaves})
        return sorted({region.disjunct for region in self._open})

    @property
    def closed_share(self) -> float:
        """How much is closed of the disjunct of which most is open, every split halving a region."""
        return float(self._closed.min(initial=1.0)) if self._begun else 0.0

    @property
    def remaining(self) -> float:
        """The seconds until all is closed, if it goes on as in the last half of its time; infinite if nothing says."""
        if not self._shares:
            return math.inf
        seconds, share = self._shares[-1]
        half = bisect.bisect_right(self._shares, seconds / 2, key=lambda shared: shared[0])
        before, less = self._shares[half - 1] if half else (0.0, 0.0)
        return (1 - share) * (seconds - before) / (share - less) if share > less else math.inf

    @property
    def leaves(self) -> list[Leaf]:
        """The open regions, for a search in a smaller box."""
        if not self._begun:
            return list(self._leaves)
        neurons = self._hull.program.neurons
        return [
            Leaf(
                region.disjunct,
                {
                    (int(neurons.layer[j]), int(neurons.place[j])): int(region.signs[j])
                    for j in np.flatnonzero((region.signs != 0) & (self._known == 0)).tolist()
                },
            )
            for region in self._open
        ]

    def work(self, deadline: Deadline, enough: Callable[[], bool] = lambda: False) -> bool:
        """Split until nothing is open, a region is stuck or the time is over; whether all is closed.

        enough: asked whenever a thread has brought its regions back, whether to stop.
        """
        begun = time.monotonic()
        spare = [self._hull.workspace() for _ in range(self._options.threads)]
        if not self._begun and not deadline.expired:
            self._begin(spare[0])
        running: dict[Future[list[_Bounded]], tuple[Workspace, list[_Region]]] = {}
        going = True
        with ThreadPoolExecutor(self._options.threads) as pool:
            try:
                while running or (going and self._open):
                    while going and spare and self._open and not self.stuck and not deadline.expired:
                        regions, workspace = self._last(len(spare)), spare.pop()
                        running[pool.submit(self._bounded, regions, workspace)] = workspace, regions
                        del self._open[-len(regions) :]
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._settle(future.result(), deadline)
                        spare.append(running.pop(future)[0])
                    now = time.monotonic()
                    self.seconds, begun = self.seconds + now - begun, now
                    self._shares.append((self.seconds, self.closed_share))
                    going = going and not enough()
            finally:
                # What an interruption has left unsettled is still open; at no moment is a region in neither list.
                for _, regions in running.values():
                    self._open.extend(regions)
        return self.closed

    def _last(self, threads: int) -> list[_Region]:
        """Those that were opened last, the last one first, as many as one of so many threads without work gets."""
        return self._open[-min(LANES, math.ceil(len(self._open) / threads)) :][::-1]

    def _begin(self, workspace: Workspace) -> None:
        """Bound the whole box; put what is left open on the stack, the hardest disjunct at the bottom."""
        wanted = [(d, r) for d in sorted({leaf.disjunct for leaf in self._leaves}) for r in range(len(self._costs[d]))]
        found: dict[tuple[int, int], Multipliers] = {}
        start = self._hull.start()
        for first in range(0, len(wanted), LANES):
            part = wanted[first : first + LANES]
            tasks = [self._task(self._costs[d][r], self._known, start) for d, r in part]
            ascents = self._hull.ascend(tasks, workspace, self._options.root_steps)
            proofs = self._hull.prove(tasks, [ascended.multipliers for ascended in ascents], workspace)
            for (d, r), (bound, multipliers) in zip(part, proofs, strict=True):
                self.roots[d, r], found[d, r] = bound, multipliers
        # The row that is nearest to refuting a disjunct is the one to go on with.
        best = {leaf.disjunct: int(np.argmax(self.roots[leaf.disjunct])) for leaf in self._leaves}
        for leaf in sorted(self._leaves, key=lambda leaf: self.roots[leaf.disjunct, best[leaf.disjunct]]):
            d, row, signs = leaf.disjunct, best[leaf.disjunct], self._signs(leaf)
            if self.roots[d, row] <= 0 and signs is not None:
                self._open.append(_Region(d, row, signs, found[d, row], 0.5 ** len(leaf.phases)))
        weights = np.bincount(
            [region.disjunct for region in self._open], [region.weight for region in self._open], len(self._costs)
        )
        self._open = [replace(region, weight=region.weight / weights[region.disjunct]) for region in self._open]
        self._closed[weights > 0] = 0.0
        self._begun = True

    def _signs(self, leaf: Leaf) -> Signs | None:
        """A leaf's phases among those that are known here; None where they contradict each other."""
        program, signs = self._hull.program, self._known.copy()
        for (layer, place), sign in leaf.phases.items():
            j = self._numbers.get((layer, place))
            known = program.phases[layer][place] if j is None else signs[j]
            if known == -sign:
                return None
            if j is not None:
                signs[j] = sign
        return signs

    def _task(self, cost: Cost, signs: Signs, start: Multipliers) -> Task:
        return Task(cost, signs, start, GOAL * cost.scale)

    def _bounded(self, regions: list[_Region], workspace: Workspace) -> list[_Bounded]:
        """Up to LANES regions; changes nothing, and holds the interpreter up for moments only."""
        tasks = [self._task(self._costs[part.disjunct][part.row], part.signs, part.multipliers) for part in regions]
        ascents = self._hull.ascend(tasks, workspace, self._options.steps, self._options.step)
        hopeful = [k for k, found in enumerate(ascents) if found.bound > 0]
        proofs = self._hull.prove([tasks[k] for k in hopeful], [ascents[k].multipliers for k in hopeful], workspace)
        proved = dict.fromkeys(range(len(regions)), -np.inf)
        chosen = [found.multipliers for found in ascents]
        for k, (bound, multipliers) in zip(hopeful, proofs, strict=True):
            proved[k], chosen[k] = bound, multipliers
        return [
            _Bounded(replace(region, multipliers=chosen[k]), ascents[k], proved[k]) for k, region in enumerate(regions)
        ]

    def _settle(self, bounded: list[_Bounded], deadline: Deadline) -> None:
        """Put the halves of regions on the stack unless they are closed."""
        self.regions += len(bounded)
        left = []
        for part in bounded:
            region, split = part.region, part.region.split
            if split is not None:
                # What closes a region by far is worth no more than what closes it.
                goal = GOAL * self._costs[region.disjunct][region.row].scale
                gain = min(part.found.bound, goal) - split.before
                self._gains[region.disjunct].learn(split.neuron, split.sign, split.score, gain)
                region = replace(region, split=None)
            if part.proved > 0:
                self._closed[region.disjunct] += region.weight
            elif part.found.bound > 0 and not region.again:
                self._open.append(replace(region, again=True))
            else:
                left.append(part.found.columns)
                self._split(replace(region, again=False), part.found, deadline)
        if left:
            self._offer(np.stack(left)[:, : self._hull.n_inputs].astype(np.float64))

    def _split(self, region: _Region, found: Ascended, deadline: Deadline) -> None:
        neuron, score = self._branch(region, found)
        if neuron is not None:
            # The half away from the solution goes last on the stack: it is closed first.
            near = 1 if found.pre[neuron] > 0 else -1
            for sign in (near, -near):
                signs = region.signs.copy()
                signs[neuron] = sign
                split = _Split(neuron, sign, score, found.bound) if score > 0 else None
                self._open.append(replace(region, signs=signs, weight=region.weight / 2, split=split))
            return
        least = self._hull.decide(self._costs[region.disjunct], region.signs, deadline)
        if least.lower > 0:
            self._closed[region.disjunct] += region.weight
            return
        if least.point is not None:
            self.dead_ends.append(least.point[: self._hull.n_inputs])
        self._open.append(region)
        self.stuck = True

    def _branch(self, region: _Region, found: Ascended) -> tuple[int | None, float]:
        """The neuron to split, if one is left, and its score, 0 where there is none."""
        free, size = region.signs == 0, np.abs(found.coefficients)
        above = np.abs(found.columns[self._hull.n_inputs :] - np.maximum(found.pre, 0))
        scores = np.where(free, size * above, 0.0).astype(np.float64)
        if scores.max(initial=0.0) >= self._options.exact:
            neuron = int(np.where(scores > 0, self._gains[region.disjunct].rank(scores), -1.0).argmax())
            return neuron, float(scores[neuron])
        if not free.any():
            return None, 0.0
        # The means show no loss where there is some: what a neuron could lose.
        neurons = self._hull.program.neurons
        return int(np.where(free, size * np.minimum(neurons.upper, -neurons.lower), -1.0).argmax()), 0.0
