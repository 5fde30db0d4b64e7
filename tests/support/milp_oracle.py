"""The smallest margin of a network too large to enumerate: scipy's ``milp`` on a big-M program of our own making.

Shares nothing with the engines but the operators' matrices and, below everything, the solver HiGHS: bounds on the
neurons are intervals tightened by linear programs, the program has one row set per undecided ReLU and no cuts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from verifier.model.network import Network
from verifier.model.operators import Input, Relu
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]

BAND = 5e-6
"""Relative to 1 + the largest bound on a neuron: what the tolerances of HiGHS (1e-6) may do to a dual bound."""
SAMPLES = 2000


@dataclass(frozen=True, eq=False)
class LeastMargin:
    """The smallest margin lies in [floor, value]; ``point`` (n_inputs,) of the box has the margin ``value``."""

    floor: float
    value: float
    point: Array


def undecided_relus(network: Network, disjunct: Disjunct) -> int:
    """How many ReLUs intervals leave undecided on the box of a disjunct."""
    return sum(int(((low < 0) & (high > 0)).sum()) for low, high in _intervals(network, disjunct))


def least_margin(network: Network, disjunct: Disjunct, seconds: float = 20.0) -> LeastMargin:
    """Solve the program for at most ``seconds``; its dual bound makes the floor, its point and samples the value."""
    network = network.to(torch.float64)
    program = _Program(network, disjunct)
    found = program.minimise(seconds)
    rng = np.random.default_rng(0)
    n = network.n_inputs
    shares = np.concatenate([rng.random((SAMPLES, n)), rng.integers(0, 2, (SAMPLES, n))])
    points = disjunct.lower + shares * (disjunct.upper - disjunct.lower)
    if found.x is not None:
        points = np.concatenate([np.clip(found.x[:n], disjunct.lower, disjunct.upper)[None], points])
    margins = _margins(network, disjunct, points)
    best = int(np.argmin(margins))
    # Without binaries scipy reports no dual bound; an optimal linear program is its own.
    dual = found.mip_dual_bound if program.relus else found.fun if found.status == 0 else None
    floor = -np.inf if dual is None else float(dual) - BAND * (1 + program.size)
    value = float(margins[best])
    return LeastMargin(min(float(floor), value), value, points[best])


def _margins(network: Network, disjunct: Disjunct, points: Array) -> Array:
    outputs = network.forward(torch.from_numpy(points)).numpy()
    rows = disjunct.constraints
    values = outputs @ rows.outputs.T + points @ np.asarray(rows.inputs).T - rows.bounds
    found: Array = values.max(axis=1)
    return found


def _intervals(network: Network, disjunct: Disjunct) -> list[tuple[Array, Array]]:
    """Interval bounds on the input of every ReLU node, flat."""
    low, high = [disjunct.lower], [disjunct.upper]
    found = []
    for index, node in enumerate(network.nodes[1:], 1):
        operator = node.operator
        assert not isinstance(operator, Input)
        if isinstance(operator, Relu):
            source = node.inputs[0]
            found.append((low[source], high[source]))
            low.append(np.maximum(low[source], 0))
            high.append(np.maximum(high[source], 0))
            continue
        least, most = _offset(network, index), _offset(network, index)
        for part, source in zip(operator.matrix(network.input_shapes(index)), node.inputs, strict=True):
            positive, negative = part.maximum(0), part.minimum(0)
            least = least + positive @ low[source] + negative @ high[source]
            most = most + positive @ high[source] + negative @ low[source]
        low.append(least)
        high.append(most)
    return found


def _offset(network: Network, index: int) -> Array:
    node = network.nodes[index]
    offset = node.operator.offset(node.shape)  # type: ignore[union-attr]
    return np.zeros(node.size) if offset is None else offset.reshape(-1).numpy()


class _Program:
    """Columns: the inputs, one per undecided ReLU's output, and at the end one binary for each of those.

    Every node's values are an affine function (matrix, constant) of the columns but the binaries.
    """

    def __init__(self, network: Network, disjunct: Disjunct) -> None:
        self.network, self.disjunct = network, disjunct
        self.lower, self.upper = disjunct.lower.tolist(), disjunct.upper.tolist()
        self.size = float(np.abs([self.lower, self.upper]).max(initial=0.0))
        self.relus: list[tuple[Array, float, float, float]] = []
        identity = np.eye(network.n_inputs)
        self.values = [(identity, np.zeros(network.n_inputs))]
        for index, node in enumerate(network.nodes[1:], 1):
            operator = node.operator
            assert not isinstance(operator, Input)
            if isinstance(operator, Relu):
                self.values.append(self._relu(*self.values[node.inputs[0]]))
                continue
            matrix, constant = np.zeros((node.size, len(self.lower))), _offset(network, index)
            for part, source in zip(operator.matrix(network.input_shapes(index)), node.inputs, strict=True):
                own, shift = self.values[source]
                matrix = matrix + self._wide(part @ own)
                constant = constant + part @ shift
            self.values.append((matrix, constant))

    def _wide(self, matrix: Array) -> Array:
        return np.pad(matrix, ((0, 0), (0, len(self.lower) - matrix.shape[1])))

    def _relu(self, matrix: Array, constant: Array) -> tuple[Array, Array]:
        matrix = self._wide(matrix)
        ranges = [self._range(row, shift) for row, shift in zip(matrix, constant, strict=True)]
        undecided = [i for i, (low, high) in enumerate(ranges) if low < 0 < high]
        first = len(self.lower)
        outputs, shifts = np.zeros((len(matrix), first + len(undecided))), np.zeros(len(matrix))
        for i, (low, _) in enumerate(ranges):
            if low >= 0:
                outputs[i, :first], shifts[i] = matrix[i], constant[i]
        for place, i in enumerate(undecided):
            outputs[i, first + place] = 1
            low, high = ranges[i]
            self.relus.append((matrix[i], float(constant[i]), low, high))
            self.lower.append(0.0)
            self.upper.append(high)
            self.size = max(self.size, high, -low)
        return outputs, shifts

    def _range(self, row: Array, shift: float) -> tuple[float, float]:
        """Least and greatest value of ``row . columns + shift``, widened by more than a solver's tolerances."""
        low, high = np.array(self.lower), np.array(self.upper)
        least = float(np.where(row > 0, low, high) @ row + shift)
        most = float(np.where(row > 0, high, low) @ row + shift)
        if least < 0 < most and self.relus:
            A, b = self._triangles()
            for sign in (1, -1):
                found = linprog(sign * row, A_ub=A, b_ub=b, bounds=np.stack([low, high], 1), method="highs-ds")
                if found.status != 0:
                    continue
                if sign > 0:
                    least = max(least, float(found.fun) + shift - 1e-6 * (1 + self.size))
                else:
                    most = min(most, -float(found.fun) + shift + 1e-6 * (1 + self.size))
        return least, most

    def _triangles(self) -> tuple[Array, Array]:
        """The linear relaxation of the ReLUs so far, as rows ``A v <= b``."""
        columns, first = len(self.lower), self.network.n_inputs
        rows, sides = [], []
        for place, (row, shift, low, high) in enumerate(self.relus):
            own = np.pad(row, (0, columns - len(row)))
            output = np.zeros(columns)
            output[first + place] = 1
            slope = high / (high - low)
            rows += [own - output, output - slope * own]
            sides += [-shift, slope * (shift - low)]
        return np.array(rows), np.array(sides)

    def minimise(self, seconds: float):  # scipy's OptimizeResult
        """The least margin: a last column above every row of the disjunct."""
        columns, first, binaries = len(self.lower), self.network.n_inputs, len(self.relus)
        rows, sides = [], []
        for place, (row, shift, low, high) in enumerate(self.relus):
            own, output, phase = (np.zeros(columns + binaries + 1) for _ in range(3))
            own[: len(row)], output[first + place], phase[columns + place] = row, 1, 1
            rows += [own - output, output - own - low * phase, output - high * phase]
            sides += [-shift, shift - low, 0.0]
        matrix, constant = self.values[-1]
        asked = self.disjunct.constraints
        margins = asked.outputs @ self._wide(matrix)
        margins[:, :first] += np.asarray(asked.inputs)
        for row, side in zip(margins, asked.bounds - asked.outputs @ constant, strict=True):
            rows.append(np.concatenate([row, np.zeros(binaries), [-1.0]]))
            sides.append(side)
        cost = np.zeros(columns + binaries + 1)
        cost[-1] = 1
        return milp(
            cost,
            integrality=np.concatenate([np.zeros(columns), np.ones(binaries), [0]]),
            bounds=Bounds(
                np.concatenate([self.lower, np.zeros(binaries), [-np.inf]]),
                np.concatenate([self.upper, np.ones(binaries), [np.inf]]),
            ),
            constraints=LinearConstraint(np.array(rows), -np.inf, np.array(sides)),
            options={"time_limit": seconds, "mip_rel_gap": 0.0},
        )
