"""Bounds of a row over a linear relaxation with hull planes, by ascent on the planes themselves.

Of an undecided neuron with the input  z = b + sum of Y_p,  every term Y_p in [L_p, U_p], and for any shares s_p in
[0, 1],

    relu(z)  <=  sum of s_p (Y_p - L_p)  +  max(0, b + sum of U_p - sum of s_p (U_p - L_p)),

since the right side is at least 0, and at least z.  The best planes of this form are the convex hull of the ReLU over
the box of its terms (Anderson et al., Mathematical Programming 183, 2020, proposition 12); s_p = u / (u - l) for all p
is the triangle's upper side.  As the lower side has a slope alpha that ascends the bound (alpha-CROWN, Xu et al., ICLR
2021), so here the upper side has one per term: the bound is concave in them as long as no coefficient changes its sign.
De Palma et al. ("Scaling the convex barrier with active sets", ICLR 2021) ascend multipliers of hull cuts; a share per
term needs no list of cuts, and one backward pass over the sparse rows serves them all.

Several regions are ascended at once, one per lane of a vector register (``hull_lanes``).  What counts is proved
afterwards (``hull_proof``), with constants of the planes that are worked out anew on the way down to the inputs, so
that what the neurons of the first layer read besides their own input is not lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.encodings.milp.expression import Expression, combination
from verifier.encodings.milp.model import MilpModel
from verifier.encodings.milp.triangle import TriangleProgram
from verifier.search import hull_lanes, hull_proof
from verifier.search.hull_lanes import Lanes, Work
from verifier.search.hull_layout import Layout, layout_of, lines, single_precision
from verifier.search.hull_proof import Proofs, Sizes
from verifier.search.lanes import DOUBLES, LANES
from verifier.search.transpose import interleave, separate
from verifier.solve.lp import LinearBound, certified_minimum

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Signs = NDArray[np.int8]

MOST_ENTRIES = 20_000_000
MOST_WEIGHTS = 2_000_000
STEP, LAST_STEP = 0.1, 0.002
MULTIPLIERS = ("alpha", "beta", "extra", "share")


@dataclass(frozen=True, eq=False)
class Multipliers:
    """alpha: (m,), lower slopes.  beta: (m,), of splits, in units of the row.  share: (terms,), of the upper planes.

    extra: (m,), what the planes' constants have to be larger than the ranges of their terms say.
    """

    alpha: Single
    beta: Single
    share: Single
    extra: Single


@dataclass(frozen=True, eq=False)
class Cost:
    """``row @ columns + offset``, up to ``error``; row: (n + m,).  scale: of multipliers."""

    row: Array
    offset: float
    error: float

    @cached_property
    def scale(self) -> float:
        return float(np.abs(self.row).max(initial=1e-6))


@dataclass(frozen=True, eq=False)
class Task:
    """A row to be bounded where the neurons have these signs, (m,): +1 active, -1 inactive, 0 undecided.

    goal: a bound at which the ascent may stop.
    """

    cost: Cost
    signs: Signs
    start: Multipliers
    goal: float = np.inf


@dataclass(frozen=True, eq=False)
class Ascended:
    """bound: not proved.   multipliers: that it comes from.  columns, pre: (n + m,) and (m,), a mean of minimisers.

    coefficients: (m,), of the neurons' values.
    """

    bound: float
    multipliers: Multipliers
    columns: Single
    pre: Single
    coefficients: Single


@dataclass(frozen=True, eq=False)
class Workspace:
    """What LANES ascents at once and DOUBLES proofs at once need; one per thread."""

    lanes: Lanes
    work: Work
    proofs: Proofs


def fits(program: TriangleProgram) -> bool:
    """Whether the dense matrices in between, and the lanes' multipliers, stay small enough."""
    neurons, terms = program.neurons, program.terms
    dense = len(neurons) * max(terms.count, terms.groups)
    return dense <= MOST_ENTRIES and neurons.pre.matrix.nnz <= MOST_WEIGHTS


class HullAscent:
    """A program whose rows are bounded."""

    def __init__(self, program: TriangleProgram, layout: Layout | None = None) -> None:
        """layout: of a program that differs in the bounds of coarse neurons alone."""
        self.program = program
        if layout is None:
            self._layout = layout_of(program)
        else:
            slope, lift = lines(program)
            self._layout = layout._replace(slope=slope, lift=lift)
        self._single = single_precision(self._layout)
        size = np.maximum(np.abs(program.terms.lower), np.abs(program.terms.upper))
        pre = program.neurons.pre
        read = abs(pre.matrix[:, : len(size)]) @ size + np.abs(pre.constant)
        self._sizes = Sizes(size, read, 1.001 * pre.error, program.terms.upper, np.zeros(len(pre)))
        hull_proof.fill_plane_errors(self._layout, self._sizes)

    @property
    def n_inputs(self) -> int:
        return self._layout.n

    @property
    def coarse(self) -> NDArray[np.bool_]:
        """(m,), the neurons that keep the triangle though they read more than one input."""
        found: NDArray[np.bool_] = ~self._layout.hull & (self._layout.own < 0)
        return found

    def workspace(self) -> Workspace:
        """For ``ascend`` and ``prove``; the next call with it overwrites what it holds."""
        return Workspace(*hull_lanes.rooms(self._layout), hull_proof.rooms(self._layout))

    def start(self) -> Multipliers:
        """Adaptive lower slopes and the triangles' upper sides."""
        neurons, layout = self.program.neurons, self._single
        alpha = (neurons.upper > -neurons.lower).astype(np.float32)
        nothing = np.zeros(len(neurons), np.float32)
        return Multipliers(alpha, nothing, np.repeat(layout.slope, np.diff(layout.terms)), nothing)

    def output(self, row: Array) -> Cost:
        """A row of the network's outputs, (n_outputs,)."""
        program = self.program
        return self._cost(combination([(sp.csr_array(row[None]), program.output)], np.zeros(1), program.terms.sizes))

    def input_of(self, neuron: int, sign: float) -> Cost:
        """A neuron's input, or its negative."""
        pre = self.program.neurons.pre[np.array([neuron])]
        return self._cost(Expression(sp.csr_array(sign * pre.matrix), sign * pre.constant, pre.error))

    def _cost(self, expression: Expression) -> Cost:
        row = expression.matrix.toarray()[0, : self.program.terms.count]
        return Cost(np.ascontiguousarray(row), float(expression.constant[0]), float(expression.error[0]))

    def sharper(self, deadline: Deadline, steps: int) -> tuple[HullAscent, Signs]:
        """Bounds of the coarse neurons by ascents over what is before them; signs of those that turn out decided."""
        program, layout = self.program, self._layout
        signs = np.zeros(len(program.neurons), np.int8)
        hull, workspace = self, self.workspace()
        coarse = np.flatnonzero(self.coarse)
        # Those of one layer do not read each other.
        for layer in np.unique(program.neurons.layer[coarse]):
            neurons = coarse[program.neurons.layer[coarse] == layer]
            lower, upper = hull.program.neurons.lower.copy(), hull.program.neurons.upper.copy()
            for first in range(0, len(neurons), LANES // 2):
                part = neurons[first : first + LANES // 2].tolist()
                if deadline.expired:
                    return hull, signs
                start = hull.start()
                tasks = [Task(hull.input_of(j, sign), signs, start) for j in part for sign in (1.0, -1.0)]
                chosen = [found.multipliers for found in hull.ascend(tasks, workspace, steps)]
                for k, (proved, _) in enumerate(hull.prove(tasks, chosen, workspace)):
                    neuron, sign = part[k // 2], 1 - 2 * (k % 2)
                    if proved >= 0:
                        signs[neuron] = sign
                    elif sign > 0:
                        lower[neuron] = max(lower[neuron], proved)
                    else:
                        upper[neuron] = min(upper[neuron], -proved)
            hull = HullAscent(hull.program.tightened(lower, upper), layout)
        return hull, signs

    def ascend(
        self, tasks: Sequence[Task], workspace: Workspace, iterations: int, step: float = STEP
    ) -> list[Ascended]:
        """Raise the bounds of up to LANES tasks.  step: of slopes and shares, at first."""
        lanes, work = workspace.lanes, workspace.work
        _fill(lanes, tasks)
        hull_lanes.ascend(self._single, lanes, work, iterations, step, LAST_STEP)
        # Copies, as the next ascent overwrites the workspace.
        alpha, beta, share = (separate(part) for part in (lanes.alpha, lanes.beta, lanes.share))
        columns, pre, coefficients = (
            separate(part) for part in (work.columns, work.inputs, work.row[self._layout.n :])
        )
        return [
            Ascended(
                float(work.value[0, k]),
                Multipliers(alpha[k], beta[k], share[k], task.start.extra),
                columns[k],
                pre[k],
                coefficients[k],
            )
            for k, task in enumerate(tasks)
        ]

    def prove(
        self, tasks: Sequence[Task], chosen: Sequence[Multipliers], workspace: Workspace
    ) -> list[tuple[float, Multipliers]]:
        """Rigorous lower bounds of the tasks' costs, and the multipliers with the planes' constants as they are."""
        found = []
        for first in range(0, len(tasks), DOUBLES):
            part, multipliers = tasks[first : first + DOUBLES], chosen[first : first + DOUBLES]
            _fill_proofs(workspace.proofs, part, multipliers)
            hull_proof.lower_bounds(self._layout, self._sizes, workspace.proofs)
            extra = separate(workspace.proofs.extra)
            for k, one in enumerate(multipliers):
                found.append((float(workspace.proofs.bound[0, k]), replace(one, extra=extra[k].astype(np.float32))))
        return found

    def decide(self, costs: Sequence[Cost], signs: Signs, deadline: Deadline) -> LinearBound:
        """The least value of the largest cost where the neurons have these signs, by a linear program.

        lower is infinite where there is no point.
        """
        model = self.region(costs[0], signs)
        if len(costs) > 1:
            # One more column above all costs.
            rows = np.stack([np.append(cost.row, -1.0) for cost in costs])
            most = max(float(np.abs(cost.row) @ self._sizes.size) + abs(cost.offset) + 1.0 for cost in costs)
            model = replace(
                model,
                cost=np.append(np.zeros(model.n_columns), 1.0),
                offset=0.0,
                cost_error=0.0,
                lower=np.append(model.lower, -most),
                upper=np.append(model.upper, most),
                integral=np.append(model.integral, False),
                rows=sp.csr_array(sp.vstack([_wider(model.rows), sp.csr_array(rows)], format="csr")),
                row_lower=np.append(model.row_lower, np.full(len(costs), -np.inf)),
                row_upper=np.append(model.row_upper, [-cost.offset for cost in costs]),
                row_error=np.append(model.row_error, [cost.error for cost in costs]),
            )
        return certified_minimum(model, deadline)

    def region(self, cost: Cost, signs: Signs) -> MilpModel:
        """The program with this cost where the neurons have these signs."""
        model, n, m = self.program.model, self._layout.n, len(signs)
        upper, row_upper = model.upper.copy(), model.row_upper.copy()
        upper[n:][signs < 0] = 0.0
        row_upper[:m][signs > 0] = model.row_lower[:m][signs > 0]
        return replace(
            model, cost=cost.row, offset=cost.offset, cost_error=cost.error, upper=upper, row_upper=row_upper
        )


def _wider(rows: sp.csr_array) -> sp.csr_array:
    """With one more column of zeros."""
    return sp.csr_array((rows.data, rows.indices, rows.indptr), shape=(rows.shape[0], rows.shape[1] + 1))


def _fill(lanes: Lanes, tasks: Sequence[Task]) -> None:
    """Lanes without a task repeat the last one, at its goal from the beginning."""
    assert 0 < len(tasks) <= LANES
    filled = [*tasks, *[tasks[-1]] * (LANES - len(tasks))]
    interleave([task.signs for task in filled], lanes.signs)
    lanes.split[:] = lanes.signs.any(axis=1)
    lanes.offset[0] = [task.cost.offset for task in filled]
    lanes.scale[0] = [task.cost.scale for task in filled]
    lanes.goal[0] = [task.goal for task in filled]
    lanes.goal[0, len(tasks) :] = -np.inf
    interleave([task.cost.row for task in filled], lanes.cost)
    for name in MULTIPLIERS:
        interleave([getattr(task.start, name) for task in filled], getattr(lanes, name))


def _fill_proofs(proofs: Proofs, tasks: Sequence[Task], chosen: Sequence[Multipliers]) -> None:
    """Lanes without a task repeat the last one."""
    rest = DOUBLES - len(tasks)
    filled, multipliers = [*tasks, *[tasks[-1]] * rest], [*chosen, *[chosen[-1]] * rest]
    proofs.offset[0] = [task.cost.offset for task in filled]
    proofs.unsure[0] = [task.cost.error for task in filled]
    interleave([task.cost.row for task in filled], proofs.cost)
    interleave([task.signs for task in filled], proofs.signs)
    for name in MULTIPLIERS:
        interleave([getattr(one, name) for one in multipliers], getattr(proofs, name))
    proofs.beta[:] *= [task.cost.scale for task in filled]
