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

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.encodings.milp.expression import Expression, combination
from verifier.encodings.milp.model import MilpModel
from verifier.encodings.milp.triangle import TriangleProgram
from verifier.search import hull_lanes, hull_proof
from verifier.search.hull_lanes import Lanes
from verifier.search.hull_layout import Layout, layout_of, lines, single_precision
from verifier.search.lanes import LANES
from verifier.solve.lp import LinearBound, certified_minimum

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Signs = NDArray[np.int8]

MOST_ENTRIES = 20_000_000
MOST_WEIGHTS = 2_000_000
STEP, LAST_STEP = 0.1, 0.002


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

    @property
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
        self._size = np.maximum(np.abs(program.terms.lower), np.abs(program.terms.upper))
        pre = program.neurons.pre
        self._read = abs(pre.matrix[:, : len(self._size)]) @ self._size + np.abs(pre.constant)
        self._doubt = 1.001 * program.neurons.pre.error

    @property
    def n_inputs(self) -> int:
        return self._layout.n

    @property
    def coarse(self) -> NDArray[np.bool_]:
        """(m,), the neurons that keep the triangle though they read more than one input."""
        found: NDArray[np.bool_] = ~self._layout.hull & (self._layout.own < 0)
        return found

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
        hull = self
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
                for k, found in enumerate(hull.ascend(tasks, steps)):
                    proved, _ = hull.prove(tasks[k], found.multipliers)
                    neuron, sign = part[k // 2], 1 - 2 * (k % 2)
                    if proved >= 0:
                        signs[neuron] = sign
                    elif sign > 0:
                        lower[neuron] = max(lower[neuron], proved)
                    else:
                        upper[neuron] = min(upper[neuron], -proved)
            hull = HullAscent(hull.program.tightened(lower, upper), layout)
        return hull, signs

    def ascend(self, tasks: Sequence[Task], iterations: int, step: float = STEP) -> list[Ascended]:
        """Raise the bounds of up to LANES tasks.  step: of slopes and shares, at first."""
        lanes = _lanes(tasks)
        bounds, columns, pre, coefficients = hull_lanes.ascend(self._single, lanes, iterations, step, LAST_STEP)
        alpha, beta, share = (np.ascontiguousarray(part.T) for part in (lanes.alpha, lanes.beta, lanes.share))
        columns, pre, coefficients = (np.ascontiguousarray(part.T) for part in (columns, pre, coefficients))
        return [
            Ascended(
                float(bounds[k]),
                Multipliers(alpha[k].copy(), beta[k].copy(), share[k].copy(), task.start.extra),
                columns[k],
                pre[k],
                coefficients[k],
            )
            for k, task in enumerate(tasks)
        ]

    def prove(self, task: Task, chosen: Multipliers) -> tuple[float, Multipliers]:
        """A rigorous lower bound of the task's cost, and the multipliers with the planes' constants as they are."""
        cost, extra = task.cost, chosen.extra.astype(np.float64)
        alpha, share = chosen.alpha.astype(np.float64), chosen.share.astype(np.float64)
        bound = hull_proof.lower_bound(
            self._layout, self._size, self._read, self._doubt, self.program.terms.upper, cost.row, cost.offset,
            cost.error, task.signs, alpha, chosen.beta * cost.scale, share, extra,
        )  # fmt: skip
        return float(bound), replace(chosen, extra=extra.astype(np.float32))

    def decide(self, costs: Sequence[Cost], signs: Signs, deadline: Deadline) -> LinearBound:
        """The least value of the largest cost where the neurons have these signs, by a linear program.

        lower is infinite where there is no point.
        """
        model = self.region(costs[0], signs)
        if len(costs) > 1:
            # One more column above all costs.
            rows = np.stack([np.append(cost.row, -1.0) for cost in costs])
            most = max(float(np.abs(cost.row) @ self._size) + abs(cost.offset) + 1.0 for cost in costs)
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


def _lanes(tasks: Sequence[Task]) -> Lanes:
    """Lanes without a task repeat the last one, at its goal from the beginning."""
    assert 0 < len(tasks) <= LANES
    filled = [*tasks, *[tasks[-1]] * (LANES - len(tasks))]
    goals = np.array([task.goal for task in filled])
    goals[len(tasks) :] = -np.inf

    def together(parts: Sequence[Array] | Sequence[Single]) -> Single:
        return np.stack([part.astype(np.float32, copy=False) for part in parts], axis=1)

    return Lanes(
        signs=np.stack([task.signs for task in filled], axis=1),
        split=np.any([task.signs != 0 for task in filled], axis=0),
        cost=together([task.cost.row for task in filled]),
        offset=np.array([task.cost.offset for task in filled], np.float32),
        scale=np.array([task.cost.scale for task in filled], np.float32),
        goal=goals.astype(np.float32),
        alpha=together([task.start.alpha for task in filled]),
        beta=together([task.start.beta for task in filled]),
        extra=together([task.start.extra for task in filled]),
        share=together([task.start.share for task in filled]),
    )
