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

What counts is proved afterwards: the planes become rows of a linear program, with constants that are worked out anew
on the way down to the inputs, so that what the neurons of the first layer read besides their own input is not lost,
and the multipliers are checked (``solve.lp_certificate``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.bounds.rounding import TINY, gamma
from verifier.deadline import Deadline
from verifier.encodings.milp.expression import Expression, combination
from verifier.encodings.milp.model import MilpModel
from verifier.encodings.milp.triangle import TriangleProgram
from verifier.search import hull_kernel
from verifier.search.hull_kernel import Layout
from verifier.solve.lp import certified_minimum
from verifier.solve.lp_certificate import certified_lower_bound

Array = NDArray[np.float64]
Signs = NDArray[np.int8]

HULL_SHARE = 0.5
"""Neurons of which a known bound is below this share of the sum of their terms keep the triangle."""
MOST_ENTRIES = 20_000_000
MINOR = 2e-3
"""Terms up to this share of the sum of all widths are taken together."""
STEP, LAST_STEP = 0.1, 0.002


@dataclass(frozen=True, eq=False)
class Multipliers:
    """alpha: (m,), lower slopes.  beta: (m,), of splits, in units of the row.  share: (terms,), of the upper planes.

    extra: (m,), what the planes' constants have to be larger than the ranges of their terms say.
    """

    alpha: Array
    beta: Array
    share: Array
    extra: Array


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
class Ascended:
    """bound: not proved.  multipliers: that it comes from.  columns, pre: (n + m,) and (m,), a mean of minimisers.

    coefficients: (m,), of the neurons' values.
    """

    bound: float
    multipliers: Multipliers
    columns: Array
    pre: Array
    coefficients: Array


def fits(program: TriangleProgram) -> bool:
    """Whether the dense matrices in between stay small enough."""
    return len(program.neurons) * max(program.terms.count, program.terms.groups) <= MOST_ENTRIES


class HullAscent:
    """A program whose rows are bounded."""

    def __init__(self, program: TriangleProgram, layout: Layout | None = None) -> None:
        """layout: of a program that differs in the bounds of coarse neurons alone."""
        self.program = program
        slope, lift = _lines(program)
        self._layout = _layout(program, slope, lift) if layout is None else layout._replace(slope=slope, lift=lift)
        neurons = program.neurons
        self._size = np.maximum(np.abs(program.terms.lower), np.abs(program.terms.upper))
        self._pre_error = 1.001 * neurons.pre.error

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
        neurons, layout = self.program.neurons, self._layout
        alpha = (neurons.upper > -neurons.lower).astype(np.float64)
        nothing = np.zeros(len(neurons))
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
        for neuron in np.flatnonzero(self.coarse).tolist():
            if deadline.expired:
                break
            lower, upper = hull.program.neurons.lower.copy(), hull.program.neurons.upper.copy()
            for sign in (1.0, -1.0):
                cost = hull.input_of(neuron, sign)
                found = hull.ascend(cost, signs, hull.start(), steps, np.inf)
                proved = hull.prove(cost, signs, found.multipliers)
                if proved >= 0:
                    signs[neuron] = int(sign)
                    break
                if sign > 0:
                    lower[neuron] = max(lower[neuron], proved)
                else:
                    upper[neuron] = min(upper[neuron], -proved)
            if not signs[neuron]:
                hull = HullAscent(program := program.tightened(lower, upper), layout)
        return hull, signs

    def ascend(
        self, cost: Cost, signs: Signs, start: Multipliers, iterations: int, goal: float, step: float = STEP
    ) -> Ascended:
        """signs: (m,), +1 active, -1 inactive.  goal: where to stop.  step: of slopes and shares, at first."""
        alpha, beta, share = (a.astype(np.float64) for a in (start.alpha, start.beta, start.share))
        bound, columns, pre, a = hull_kernel.ascend(
            self._layout, cost.row, cost.offset, signs, alpha, beta, share, start.extra, cost.scale, iterations, step,
            LAST_STEP, goal,
        )  # fmt: skip
        # The planes' constants anew: what the ranges of terms leave out depends on the slopes.
        curved = np.flatnonzero((signs == 0) & (a < 0) & self._layout.hull)
        slopes = np.repeat(share, np.diff(self._layout.entries)) * self._layout.weights
        lifts, _, _ = self._lifts(curved, slopes)
        extra = start.extra.copy()
        extra[curved] = lifts - hull_kernel.plane_lifts(self._layout, share, curved)
        bound += float(a[curved] @ (extra - start.extra)[curved])
        return Ascended(bound, Multipliers(alpha, beta, share, extra), columns, pre, a)

    def prove(self, cost: Cost, signs: Signs, chosen: Multipliers) -> float:
        """A rigorous lower bound of the cost where the neurons have these signs."""
        program, layout = self.program, self._layout
        m, n = len(program.neurons), layout.n
        row, lines, lifts = cost.row.copy(), np.empty(m), np.empty(m)
        beta = chosen.beta * cost.scale
        hull_kernel.backward(layout, signs, chosen.alpha, beta, chosen.share, chosen.extra, row, lines, lifts)
        a = row[n:]
        lower = np.where(signs < 0, beta, np.where(signs > 0, a - beta, np.maximum(a, 0) * np.nan_to_num(lines)))
        upper = np.where((signs == 0) & (a < 0) & ~np.isnan(lines), a, 0.0)
        curved = np.flatnonzero((signs == 0) & (a < 0) & np.isnan(lines))
        planes, sides, errors = self.planes(curved, chosen.share)
        model = self._region(cost, signs)
        whole = replace(
            model,
            rows=sp.csr_array(sp.vstack([model.rows, planes], format="csr")),
            row_lower=np.append(model.row_lower, np.full(len(curved), -np.inf)),
            row_upper=np.append(model.row_upper, sides),
            row_error=np.append(model.row_error, errors),
        )
        return certified_lower_bound(whole, np.concatenate([lower, upper, a[curved]]))

    def decide(self, cost: Cost, signs: Signs, deadline: Deadline) -> float:
        """The same by a linear program: the minimum where all neurons have signs, infinite where there is no point."""
        return certified_minimum(self._region(cost, signs), deadline)

    def _region(self, cost: Cost, signs: Signs) -> MilpModel:
        """The program with this cost where the neurons have these signs."""
        model, n, m = self.program.model, self._layout.n, len(signs)
        upper, row_upper = model.upper.copy(), model.row_upper.copy()
        upper[n:][signs < 0] = 0.0
        row_upper[:m][signs > 0] = model.row_lower[:m][signs > 0]
        return replace(
            model, cost=cost.row, offset=cost.offset, cost_error=cost.error, upper=upper, row_upper=row_upper
        )

    def _lifts(self, neurons: NDArray[np.int64], slopes: Array) -> tuple[Array, Array, Array]:
        """The planes' constants with slopes (entries,), the sizes of what they are sums of, and doubts; (k,) each."""
        layout, most = self._layout, self.program.terms.upper
        found: tuple[Array, Array, Array] = hull_kernel.lifts_below(
            layout, neurons, slopes, self._size, self._pre_error, most
        )
        return found

    def planes(self, neurons: NDArray[np.int64], share: Array) -> tuple[sp.csr_array, Array, Array]:
        """``rows @ columns <= sides`` up to ``errors``: the planes of these neurons."""
        layout = self._layout
        slopes = np.repeat(share, np.diff(layout.entries)) * layout.weights
        sides, sizes, doubts = self._lifts(neurons, slopes)
        longest = layout.n + int(np.diff(layout.entries[layout.terms]).max(initial=0)) ** 2
        errors = 1.01 * doubts + self._pre_error[neurons] + 8 * gamma(longest + 64) * sizes + TINY
        first, last = layout.entries[layout.terms[neurons]], layout.entries[layout.terms[neurons + 1]]
        counts = last - first
        starts = np.append(0, np.cumsum(counts))
        places = np.arange(starts[-1]) + np.repeat(first - starts[:-1], counts)
        shape = (len(neurons), self.program.terms.count)
        inputs = sp.csr_array((-slopes[places], layout.columns[places], starts), shape=shape)
        own = sp.csr_array((np.ones(len(neurons)), layout.n + neurons, np.arange(len(neurons) + 1)), shape=shape)
        return sp.csr_array(inputs + own), sides, errors


def _lines(program: TriangleProgram) -> tuple[Array, Array]:
    """Slopes and lifts of the triangles, which are above both ends as rounded."""
    lower, upper = program.neurons.lower, program.neurons.upper
    slope = upper / (upper - lower)
    return slope, np.maximum(-slope * lower, (1 - slope) * upper) * (1 + 1e-14) + 1e-290


def _layout(program: TriangleProgram, slope: Array, lift: Array) -> Layout:
    terms, neurons = program.terms, program.neurons
    n, m = terms.n_inputs, len(neurons)
    assert np.array_equal(neurons.column, n + np.arange(m))
    matrix, constant = neurons.pre.matrix, neurons.pre.constant
    dense = matrix.toarray()
    low, high = terms.without_remainders().parts(dense)
    spread = MINOR * (high - low).sum(1)
    place = np.zeros(terms.groups, np.int64)
    columns, weights, least, width, lengths, counts = [], [], [], [], [], []
    for j in range(m):
        own = slice(matrix.indptr[j], matrix.indptr[j + 1])
        groups = np.unique(terms.group[matrix.indices[own]])
        # Terms that hardly matter share one slope, as one term that comes last.
        minor = high[j, groups] - low[j, groups] <= spread[j]
        place[groups] = np.where(minor, np.count_nonzero(~minor), np.cumsum(~minor) - 1)
        term = place[terms.group[matrix.indices[own]]]
        order = np.argsort(term, kind="stable")
        columns.append(matrix.indices[own][order].astype(np.int64))
        weights.append(matrix.data[own][order])
        least.append(np.bincount(place[groups], low[j, groups]))
        width.append(np.bincount(place[groups], high[j, groups] - low[j, groups]))
        lengths.append(np.bincount(term))
        counts.append(len(lengths[-1]))
    single, weight = terms.single(dense, m)
    none = np.zeros(0)
    return Layout(
        n=n,
        terms=np.append(0, np.cumsum(counts, dtype=np.int64)),
        entries=np.append(0, np.cumsum(np.concatenate([none, *lengths]).astype(np.int64))),
        columns=np.concatenate([np.zeros(0, np.int64), *columns]),
        weights=np.concatenate([none, *weights]),
        least=np.concatenate([none, *least]),
        width=np.concatenate([none, *width]),
        constant=constant.copy(),
        most=constant + high.sum(1),
        slope=slope,
        lift=lift,
        hull=(single < 0)
        & (neurons.upper > HULL_SHARE * (constant + high.sum(1)))
        & (neurons.lower < HULL_SHARE * (constant + low.sum(1))),
        own=single,
        weight=weight,
        lower=terms.lower[:n].copy(),
        upper=terms.upper[:n].copy(),
    )
