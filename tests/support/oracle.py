"""The exact smallest margin of a tiny network, by enumerating its activation patterns.

Within one pattern the network is affine, so the smallest margin over the pattern's polytope is one linear
program.  Patterns are built neuron by neuron; one whose polytope is empty is cut off at once.  Shares nothing
with the engines but the operators' own matrices.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize

from verifier.model.network import Network
from verifier.model.operators import Input, Relu
from verifier.vnnlib.spec import Disjunct, LinearConstraints

Array = NDArray[np.float64]

EMPTY = 2
"""scipy's status of an infeasible program."""


def minimum_margin(network: Network, disjunct: Disjunct) -> tuple[float, Array]:
    """The smallest margin over the box, input-only rows counting like all others, and a point (n_inputs,)
    that has it; exact to the tolerance of linear programming, about 1e-9.

    Without rows every point does: -inf and the centre.  Takes milliseconds per pattern that occurs, so
    networks should have about a dozen ReLUs that are undecided on the box.
    """
    centre = (disjunct.lower + disjunct.upper) / 2
    if not len(disjunct.constraints):
        return -np.inf, centre
    best, point = np.inf, centre
    regions = _regions_of(network, tuple(disjunct.lower.tolist()), tuple(disjunct.upper.tolist()))
    network = network.to(torch.float64)
    for region in regions:
        found = region.least_margin(disjunct.constraints, len(network.nodes) - 1)
        if found is not None:
            margin = _margin(network, disjunct, found)
            if margin < best:
                best, point = margin, found
    return best, point


@dataclass(frozen=True, eq=False)
class _Region:
    """The inputs of a box with ``rows @ x <= sides``, on which the first values are affine.

    values: for every node so far (matrix (size, n_inputs), constant (size,)).  inside: some point of it.
    """

    lower: Array
    upper: Array
    rows: Array
    sides: Array
    values: tuple[tuple[Array, Array], ...]
    inside: Array

    @classmethod
    def whole(cls, lower: Array, upper: Array) -> _Region:
        n = len(lower)
        return cls(lower, upper, np.zeros((0, n)), np.zeros(0), ((np.eye(n), np.zeros(n)),), (lower + upper) / 2)

    def with_value(self, matrix: Array, constant: Array) -> _Region:
        return replace(self, values=(*self.values, (matrix, constant)))

    def cut(self, row: Array, side: float) -> _Region | None:
        """The part with ``row @ x <= side``, None where that is empty."""
        lowest = np.where(row > 0, self.lower, self.upper) @ row
        highest = np.where(row > 0, self.upper, self.lower) @ row
        if highest <= side:
            return self
        if lowest > side:
            return None
        rows, sides = np.vstack([self.rows, row]), np.append(self.sides, side)
        part = replace(self, rows=rows, sides=sides)
        if row @ self.inside <= side:
            return part
        solution = linprog(row, A_ub=self.rows, b_ub=self.sides, bounds=self._box, method="highs-ds")
        assert solution.status == 0, solution.message
        return replace(part, inside=solution.x) if solution.fun <= side else None

    def least_margin(self, constraints: LinearConstraints, output: int) -> Array | None:
        """Where in this region the largest row is least."""
        matrix, constant = self.values[output]
        rows = constraints.outputs @ matrix + (constraints.inputs if constraints.mentions_inputs else 0.0)
        rest = constraints.bounds - constraints.outputs @ constant
        count, n = rows.shape
        if count == 1:
            solution = linprog(rows[0], A_ub=self.rows, b_ub=self.sides, bounds=self._box, method="highs-ds")
        else:
            tied = np.hstack([rows, -np.ones((count, 1))])
            own = np.hstack([self.rows, np.zeros((len(self.rows), 1))])
            solution = linprog(
                np.append(np.zeros(n), 1.0),
                A_ub=np.vstack([tied, own]),
                b_ub=np.append(rest, self.sides),
                bounds=[*self._box, (None, None)],
                method="highs-ds",
            )
        if solution.status == EMPTY:  # thinner than the tolerance: its neighbours have the point as well
            return None
        assert solution.status == 0, solution.message
        return np.clip(solution.x[:n], self.lower, self.upper)

    def nearest(self, constraints: LinearConstraints, output: int, centre: Array, norm: str, weights: Array) -> float:
        """The least weighted distance from the centre in this region where all rows hold."""
        matrix, constant = self.values[output]
        rows = np.vstack([self.rows, constraints.outputs @ matrix])
        sides = np.append(self.sides, constraints.bounds - constraints.outputs @ constant)
        return _nearest_in_polytope(rows, sides, self.lower, self.upper, centre, norm, weights)

    @property
    def _box(self) -> list[tuple[float, float]]:
        return list(zip(self.lower.tolist(), self.upper.tolist(), strict=True))


@functools.lru_cache(maxsize=32)
def _regions_of(network: Network, lower: tuple[float, ...], upper: tuple[float, ...]) -> list[_Region]:
    """Disjuncts and norms ask about the same box again and again: networks are told apart by identity."""
    return _regions(network.to(torch.float64), _Region.whole(np.array(lower), np.array(upper)))


def _regions(network: Network, region: _Region) -> list[_Region]:
    """All regions on which every node is affine; they cover the box."""
    regions = [region]
    for index, node in enumerate(network.nodes[1:], 1):
        operator = node.operator
        assert not isinstance(operator, Input)
        if isinstance(operator, Relu):
            regions = [part for one in regions for part in _patterns(one, node.inputs[0])]
            continue
        offset = operator.offset(node.shape)
        start = np.zeros(node.size) if offset is None else offset.reshape(-1).numpy()
        parts = operator.matrix(network.input_shapes(index))
        grown = []
        for one in regions:
            sources = [one.values[source] for source in node.inputs]
            matrix = sum((p @ m for p, (m, _) in zip(parts, sources, strict=True)), np.zeros((node.size, 1)))
            constant = sum((p @ c for p, (_, c) in zip(parts, sources, strict=True)), start)
            grown.append(one.with_value(matrix, constant))
        regions = grown
    return regions


def _patterns(region: _Region, source: int) -> list[_Region]:
    """The region, divided by the signs of one node's values, with the ReLU's value added to each part."""
    matrix, constant = region.values[source]
    parts: list[tuple[_Region, list[bool]]] = [(region, [])]
    for row, shift in zip(matrix, constant, strict=True):
        divided = []
        for part, signs in parts:
            active, inactive = part.cut(-row, float(shift)), part.cut(row, -float(shift))
            divided += [(active, [*signs, True])] if active is not None else []
            if inactive is not None and (active is not inactive):
                divided.append((inactive, [*signs, False]))
        parts = divided
    found = []
    for part, signs in parts:
        mask = np.array(signs)
        found.append(part.with_value(matrix * mask[:, None], constant * mask))
    return found


def _margin(network: Network, disjunct: Disjunct, x: Array) -> float:
    y = network.forward(torch.from_numpy(x)[None])[0].numpy()
    return float(disjunct.constraints.margins(x, y).max())


def minimum_distance(network: Network, disjunct: Disjunct, centre: Array, norm: str, weights: Array) -> float:
    """The least weighted distance of a point of the disjunct's box where the disjunct holds; inf where there is none.

    norm: linf, l1, l2, or l0 (every subset of the inputs is tried).  weights: (n_inputs,).
    """
    if norm == "l0":
        return _fewest(network, disjunct, centre, weights)
    output = len(network.nodes) - 1
    found = [
        region.nearest(disjunct.constraints, output, centre, norm, weights)
        for region in _regions_of(network, tuple(disjunct.lower.tolist()), tuple(disjunct.upper.tolist()))
    ]
    return min(found, default=np.inf)


def _fewest(network: Network, disjunct: Disjunct, centre: Array, weights: Array) -> float:
    n = len(centre)
    best = np.inf
    for subset in itertools.product((False, True), repeat=n):
        moves = np.array(subset)
        cost = float(weights[moves].sum())
        if cost < best:
            box = replace(
                disjunct, lower=np.where(moves, disjunct.lower, centre), upper=np.where(moves, disjunct.upper, centre)
            )
            if minimum_margin(network, box)[0] <= 0:
                best = cost
    return best


def _nearest_in_polytope(
    rows: Array, sides: Array, lower: Array, upper: Array, centre: Array, norm: str, w: Array
) -> float:
    """min norm(w * (x - centre)) over rows @ x <= sides and the box; inf where that is empty."""
    n = len(centre)
    box = list(zip(lower.tolist(), upper.tolist(), strict=True))
    if norm in ("linf", "l1"):
        # Columns x and t, one t or n of them: w |x - centre| <= t.
        t = np.ones((n, 1)) if norm == "linf" else np.eye(n)
        matrix = np.vstack(
            [
                np.hstack([rows, np.zeros((len(rows), t.shape[1]))]),
                np.hstack([np.diag(w), -t]),
                np.hstack([-np.diag(w), -t]),
            ]
        )
        right = np.concatenate([sides, w * centre, -w * centre])
        cost = np.append(np.zeros(n), np.ones(t.shape[1]))
        solution = linprog(cost, A_ub=matrix, b_ub=right, bounds=[*box, *[(0, None)] * t.shape[1]], method="highs-ds")
        return float(solution.fun) if solution.status == 0 else np.inf
    feasible = linprog(np.zeros(n), A_ub=rows, b_ub=sides, bounds=box, method="highs-ds")
    if feasible.status != 0:
        return np.inf
    best = np.inf
    for start in (feasible.x, np.clip(centre, lower, upper)):
        solution = minimize(
            lambda x: float(((w * (x - centre)) ** 2).sum()),
            start,
            jac=lambda x: 2 * w**2 * (x - centre),
            bounds=box,
            constraints=[{"type": "ineq", "fun": lambda x: sides - rows @ x, "jac": lambda x: -rows}],
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        if np.max(rows @ solution.x - sides, initial=0.0) <= 1e-8:
            best = min(best, float(np.sqrt(solution.fun)))
    return best
