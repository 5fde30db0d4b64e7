"""A readable twin of the margin program, written neuron by neuron with PuLP.

For reading (LP and MPS files with names that say what is what), for other solvers, and for differential
tests: nothing is shared with ``big_m`` but the operators' matrices and the column names.  Every value is an
expression in named variables, every stable neuron is folded away at sight, and the margin is always the
variable ``t``, because PuLP's files drop a constant in the objective.

Never a verdict: PuLP reports ``Optimal`` when a solver ran out of time with any point in hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pulp
from numpy.typing import NDArray
from pulp import LpAffineExpression as Value

from verifier.bounds.level import Bounds
from verifier.encodings.milp.columns import Kind, name
from verifier.model.network import Network
from verifier.model.operators import Affine, Input, Relu
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TwinOutcome:
    """status: the solver's word as PuLP passes it on.  margin: the value of t, None without a point.

    values: of all variables that some constraint mentions, by name; empty without a point.
    """

    status: str
    margin: float | None
    values: dict[str, float]


def twin(network: Network, disjunct: Disjunct, bounds: Sequence[Bounds]) -> pulp.LpProblem:
    """minimise t, the disjunct's margin, over the network's values on its box.

    bounds: one entry per node, tensors [1, *shape], as for ``big_m.encode``.
    """
    problem = pulp.LpProblem(_identifier(network.name), pulp.LpMinimize)
    t = problem.add_variable(name(Kind.MARGIN))
    problem += t, "margin"
    x = [
        problem.add_variable(name(Kind.INPUT, 0, i), float(low), float(high))
        for i, (low, high) in enumerate(zip(disjunct.lower, disjunct.upper, strict=True))
    ]
    y = _values(problem, network, [Value([(variable, 1.0)]) for variable in x], bounds)
    rows = disjunct.constraints
    for i in range(len(rows)):
        margin = Value(constant=-float(rows.bounds[i])) + _weighted(rows.outputs[i], y)
        if rows.mentions_inputs:
            margin += _weighted(rows.inputs[i], [Value([(variable, 1.0)]) for variable in x])
        problem += margin <= t, f"row_{i}"
        if not rows.outputs[i].any():
            problem += margin <= 0, f"input_row_{i}"
    if not len(rows):
        problem += t >= 0, "no_rows"
    return problem


def solve(problem: pulp.LpProblem, solver: pulp.LpSolver) -> TwinOutcome:
    """Whatever the solver finds; see ``pulp.listSolvers``."""
    problem.solve(solver)
    found = problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    values = {v.name: float(v.value()) for v in problem.variables() if v.value() is not None} if found else {}
    return TwinOutcome(pulp.LpStatus[problem.status], values.get(name(Kind.MARGIN)), values)


def write_lp(problem: pulp.LpProblem, path: str | Path) -> None:
    """The problem in the LP format: names and inequalities, for people."""
    problem.writeLP(str(path))


def write_mps(problem: pulp.LpProblem, path: str | Path) -> None:
    """The problem in the MPS format, for solvers."""
    problem.writeMPS(str(path))


def _values(problem: pulp.LpProblem, network: Network, inputs: list[Value], bounds: Sequence[Bounds]) -> list[Value]:
    """The outputs, C order; adds variables and constraints for every ReLU on the way."""
    values: list[list[Value]] = [inputs]
    for index, node in enumerate(network.nodes[1:], 1):
        operator = node.operator
        assert not isinstance(operator, Input)
        if isinstance(operator, Relu):
            source = node.inputs[0]
            low = bounds[source].lower.reshape(-1).tolist()
            high = bounds[source].upper.reshape(-1).tolist()
            values.append(
                [_relu(problem, index, i, *one) for i, one in enumerate(zip(values[source], low, high, strict=True))]
            )
        else:
            values.append(_affine(operator, network, index, values))
    return values[-1]


def _affine(operator: Affine, network: Network, index: int, values: list[list[Value]]) -> list[Value]:
    node = network.nodes[index]
    offset = operator.offset(node.shape)
    constants = [0.0] * node.size if offset is None else offset.reshape(-1).tolist()
    sums = [Value(constant=constant) for constant in constants]
    for matrix, source in zip(operator.matrix(network.input_shapes(index)), node.inputs, strict=True):
        for i in range(node.size):
            for k in range(matrix.indptr[i], matrix.indptr[i + 1]):
                sums[i] += float(matrix.data[k]) * values[source][matrix.indices[k]]
    return sums


def _relu(problem: pulp.LpProblem, node: int, i: int, pre: Value, low: float, high: float) -> Value:
    """max(pre, 0) for low <= pre <= high: Tjeng, Xiao and Tedrake (2019), equation 6."""
    if high <= 0:
        return Value()
    if low >= 0:
        return pre
    z = problem.add_variable(name(Kind.PRE, node, i), low, high)
    y = problem.add_variable(name(Kind.POST, node, i), 0.0, high)
    a = problem.add_variable(name(Kind.ACTIVE, node, i), cat=pulp.LpBinary)
    problem += z == pre, f"pre{node}_{i}"
    problem += y >= z, f"above{node}_{i}"
    problem += y <= z - low * (1 - a), f"on{node}_{i}"
    problem += y <= high * a, f"off{node}_{i}"
    return Value([(y, 1.0)])


def _weighted(weights: Array, values: list[Value]) -> Value:
    return pulp.lpSum(float(weights[i]) * values[i] for i in np.flatnonzero(weights))


def _identifier(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text) or "network"
