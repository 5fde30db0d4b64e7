"""Branch and cut on ReLU phases: linear programs with hull cuts, closed by multipliers that are checked.

One linear relaxation (``encodings.milp.triangle``) serves all regions: a split neuron is a changed bound and a changed
row side, so the dual simplex method goes on where it stopped, and the cuts (``encodings.milp.hull_cuts``) hold
everywhere and stay.  The neuron to split is the one whose relaxation is violated most, weighted by what that is worth:
the multipliers of its upper sides.  Depth first, which changes least from one program to the next.

Where a network's undecided neurons read few inputs each, as after convolutions, the cuts close more at the root than
thousands of regions do without them: mnist_wk17a, image 1 within 0.141, margin to 6: -3.77 with optimised slopes, -2.70
after 12,000 regions of ReLU splitting, -1.36 with seven rounds of cuts.

Invariant: a region counts as closed only by the bound that the multipliers prove (``solve.lp_certificate``), whatever
HiGHS says about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.encodings.milp.expression import combination
from verifier.encodings.milp.hull_cuts import Cuts, HullCuts
from verifier.encodings.milp.triangle import TriangleProgram
from verifier.errors import SolverError
from verifier.solve import highs_run
from verifier.solve.arrays import program as arrays
from verifier.solve.highs_run import RefusedError
from verifier.solve.lp_certificate import certified_lower_bound

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Signs = NDArray[np.int8]
Offer = Callable[[Array], object]
"""Told the inputs of a relaxation's solution, (n_inputs,)."""


@dataclass(frozen=True)
class CutOptions:
    """rounds: of cuts at the root, at most; rounds_inside: in every other region.

    gain: what a round has to gain to be followed by another one, against the distance to 0.  broken: by how much a
    point has to break a cut, and what it has to be worth against the best.  exact: what counts as no violation of a
    neuron's phase.  most_entries: of the matrices, in all; larger programs are left alone.
    """

    rounds: int = 8
    rounds_inside: int = 1
    gain: float = 0.05
    broken: float = 1e-3
    exact: float = 1e-7
    most_entries: int = 20_000_000


@dataclass(frozen=True, eq=False)
class _Solved:
    """bound: proved.  point: (n,), of the relaxation.  prices: (m,), what each neuron's upper side is worth."""

    bound: float
    point: Array | None
    prices: Array


def fits(program: TriangleProgram, options: CutOptions) -> bool:
    """Whether the matrices stay small enough."""
    return len(program.neurons) * max(program.terms.count, program.terms.groups) <= options.most_entries


class BranchAndCut:
    """Whether a row of the network's output, (n_outputs,), is positive all over the box of the program.

    ``work`` goes on where it stopped.  root: the proved bound of the whole box.  closed_share: how much of the tree is
    closed, every split halving a region.  stuck: whether some region cannot be closed by splitting.
    """

    def __init__(
        self, program: TriangleProgram, cuts: HullCuts, row: Array, offer: Offer, options: CutOptions | None = None
    ) -> None:
        self._options, self._program, self._hull, self._offer = options or CutOptions(), program, cuts, offer
        cost = combination([(sp.csr_array(row[None]), program.output)], np.zeros(1), program.terms.sizes)
        dense = cost.matrix.toarray()[0, : program.terms.count]
        self._model = program.model.costing(dense, float(cost.constant[0]), float(cost.error[0]))
        self._owner = np.tile(np.arange(len(program.neurons)), 2)
        self._open: list[tuple[Signs, float]] = [(np.zeros(len(program.neurons), np.int8), -np.inf)]
        self._seconds = 0.0
        self.root, self.regions, self.closed_share, self.stuck = -np.inf, 0, 0.0, False
        try:
            self._highs = highs_run.load(arrays(self._model), {"threads": 1, "presolve": "off"})
        except RefusedError as refusal:
            raise SolverError(str(refusal)) from None
        self._signs: Signs = np.zeros(len(program.neurons), np.int8)

    @property
    def closed(self) -> bool:
        return not self._open and not self.stuck

    @property
    def seconds_left(self) -> float:
        """An estimate from the part of the tree that is closed; infinite at first."""
        return self._seconds * (1 / self.closed_share - 1) if self.closed_share else np.inf

    def bound_root(self, deadline: Deadline) -> float:
        """Cuts at the root, without splitting: what is proved about the whole box."""
        begun = time.monotonic()
        if self.regions == 0 and self._open:
            signs, _ = self._open.pop()
            self._take(signs, -np.inf, self._options.rounds, deadline)
        self._seconds += time.monotonic() - begun
        return self.root

    def work(self, deadline: Deadline, regions: int = 10**9) -> bool:
        """Split until nothing is open, a region is stuck, the time or the regions are over; whether all is closed."""
        self.bound_root(deadline)
        begun, last = time.monotonic(), self.regions + regions
        while self._open and not self.stuck and not deadline.expired and self.regions < last:
            signs, known = self._open.pop()
            self._take(signs, known, self._options.rounds_inside, deadline)
        self._seconds += time.monotonic() - begun
        return self.closed

    def _take(self, signs: Signs, known: float, rounds: int, deadline: Deadline) -> None:
        """Bound one region; put its halves on the stack unless it is closed."""
        self._move_to(signs)
        solved = self._solve(deadline)
        best = solved.bound
        for _ in range(rounds):
            if best > 0 or solved.point is None or deadline.expired:
                break
            cuts = self._hull.separate(solved.point, solved.prices, self._options.broken)
            if not len(cuts):
                break
            self._purge(keep=bool(signs.any()))
            self._add(cuts)
            again = self._solve(deadline)
            gained = again.bound - best
            best = max(best, again.bound)
            solved = again if again.point is not None else solved
            if gained < self._options.gain * max(abs(best), 1e-3):
                break
        if self.regions == 0:
            self.root = best
        if best <= 0 and deadline.expired and solved.point is None:
            self._open.append((signs, known))
            return
        self.regions += 1
        if best > 0:
            self.closed_share += 0.5 ** float(np.count_nonzero(signs))
            return
        neuron, first = self._branch(signs, solved)
        if neuron is None:
            self.stuck = True
            self._open.append((signs, best))
            return
        for sign in (-first, first):
            child = signs.copy()
            child[neuron] = sign
            self._open.append((child, best))

    def _branch(self, signs: Signs, solved: _Solved) -> tuple[int | None, int]:
        """The neuron to split and the half to begin with: the one nearer to the solution, which is closed last."""
        if solved.point is None:
            return None, 1
        neurons = self._program.neurons
        pre = (neurons.pre.matrix[:, : len(solved.point)] @ solved.point) + neurons.pre.constant
        above = solved.point[neurons.column] - np.maximum(pre, 0)
        score = np.where((signs == 0) & (above > self._options.exact), above * (solved.prices + 1e-9), -1.0)
        if not len(score) or score.max() < 0:
            return None, 1
        neuron = int(score.argmax())
        return neuron, 1 if pre[neuron] < 0 else -1

    def _solve(self, deadline: Deadline) -> _Solved:
        """Run HiGHS on the region it stands at."""
        highs = self._highs
        try:
            limit = highs.getRunTime() + min(deadline.remaining, 1e9)
            highs_run.expect(highs.setOptionValue("time_limit", limit), "setting time_limit")
            highs.run()
        except RefusedError as refusal:
            raise SolverError(str(refusal)) from None
        solution, status = highs.getSolution(), highs.getModelStatus()
        model = self._model
        if status == highspy.HighsModelStatus.kInfeasible:
            return _Solved(self._refuted(), None, np.zeros(0))
        duals = np.zeros(model.n_rows)
        if solution.dual_valid:
            duals = np.array(solution.row_dual, dtype=np.float64)
        solved = status == highspy.HighsModelStatus.kOptimal and solution.value_valid
        prices = np.bincount(self._owner, np.maximum(-duals, 0), len(self._program.neurons)).astype(np.float64)
        point = np.array(solution.col_value, dtype=np.float64) if solved else None
        if point is not None:
            self._offer(point[: self._program.terms.n_inputs])
        return _Solved(certified_lower_bound(model, duals), point, prices)

    def _refuted(self) -> float:
        """Infinite where a dual ray proves that the region is empty."""
        _, has_ray, values = self._highs.getDualRay()  # type: ignore[attr-defined]  # the stubs lack it
        if not has_ray:
            return -np.inf
        ray = np.array(values, dtype=np.float64)
        nothing = self._model.costing(np.zeros(self._model.n_columns), 0.0)
        return np.inf if max(certified_lower_bound(nothing, side) for side in (ray, -ray)) > 0 else -np.inf

    def _move_to(self, signs: Signs) -> None:
        """Change what is different from the last region, in HiGHS and in the model that certificates speak of."""
        changed = np.flatnonzero(signs != self._signs)
        if not len(changed):
            return
        neurons = self._program.neurons
        upper, row_upper = self._model.upper.copy(), self._model.row_upper.copy()
        columns = neurons.column[changed]
        upper[columns] = np.where(signs[changed] < 0, 0.0, self._program.model.upper[columns])
        row_upper[changed] = np.where(signs[changed] > 0, self._model.row_lower[changed], np.inf)
        self._model = replace(self._model, upper=upper, row_upper=row_upper)
        self._signs = signs
        for i, column in zip(changed.tolist(), columns.tolist(), strict=True):
            status = self._highs.changeColBounds(column, float(self._model.lower[column]), float(upper[column]))
            highs_run.expect(status, "changing a bound")
            status = self._highs.changeRowBounds(i, float(self._model.row_lower[i]), float(row_upper[i]))
            highs_run.expect(status, "changing a row")

    def _add(self, cuts: Cuts) -> None:
        infinite = np.full(len(cuts), -np.inf)
        rows = cuts.rows
        status = self._highs.addRows(
            len(cuts), infinite, cuts.sides, rows.nnz, rows.indptr[:-1].astype(np.int32),
            rows.indices.astype(np.int32), rows.data,
        )  # fmt: skip
        highs_run.expect(status, "adding cuts")
        model = self._model
        self._model = replace(
            model,
            rows=sp.csr_array(sp.vstack([model.rows, rows], format="csr")),
            row_lower=np.append(model.row_lower, infinite),
            row_upper=np.append(model.row_upper, cuts.sides),
            row_error=np.append(model.row_error, cuts.error),
        )
        self._owner = np.append(self._owner, cuts.neuron)

    def _purge(self, keep: bool) -> None:
        """Drop the cuts that are slack at the solution; what halves need differs, so there they are kept."""
        if keep:
            return
        base = 2 * len(self._program.neurons)
        solution = self._highs.getSolution()
        if not solution.dual_valid or self._model.n_rows == base:
            return
        duals = np.array(solution.row_dual, dtype=np.float64)
        kept = (np.arange(self._model.n_rows) < base) | (np.abs(duals) > 1e-9)
        dropped = np.flatnonzero(~kept).astype(np.int32)
        if not len(dropped):
            return
        highs_run.expect(self._highs.deleteRows(len(dropped), dropped), "dropping cuts")
        model = self._model
        self._model = replace(
            model,
            rows=sp.csr_array(model.rows[np.flatnonzero(kept)]),
            row_lower=model.row_lower[kept],
            row_upper=model.row_upper[kept],
            row_error=model.row_error[kept],
        )
        self._owner = self._owner[kept]
