"""A region in which every ReLU is decided: one convex program, solved in floating point, bounded rigorously.

There the network is affine, so a counterexample keeps linear inequalities: the rows of the disjunct and the signs of
the split neurons.  A solver finds multipliers; their combination is one inequality, and what that costs over the ball
is a rigorous bound (``bounds.ball``), whatever the solver did.  At the optimum the bound is exact (strong duality).

    linf, l1   a linear program in the moves, by HiGHS through scipy
    l2         least distance programming by nonnegative least squares (Lawson and Hanson, Solving Least Squares
               Problems, 1974, chapter 23)
    nowhere    the largest violation that cannot be avoided: its multipliers prove that the region is empty
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog, nnls
from torch import Tensor

from verifier.bounds.ball import Ball, Norm
from verifier.bounds.ball_bounds import needs
from verifier.bounds.ball_objective import Lowest, Nearest
from verifier.bounds.beta_crown import Root, Rows, Splits, linear_bound, neuron_bounds

Array = NDArray[np.float64]

DEPTHS = (1e-6, 2e-5)
TANGENTS = 40


@dataclass(frozen=True, eq=False)
class Leaf:
    """lower: no point of the region has less; inf where it is empty.

    points: (K, n_inputs), a minimiser and points a little deeper inside, where rounding does no harm; K may be 0.
    """

    lower: float
    points: Tensor


@dataclass(frozen=True, eq=False)
class _Program:
    """``matrix @ d <= sides`` over the box ``-below <= d <= above``: first the rows of the disjunct, then the signs."""

    matrix: Array
    sides: Array
    below: Array
    above: Array
    weights: Array
    count: int


def close(root: Root, objective: Nearest | Lowest, rows: Rows, splits: Splits) -> Leaf:
    """The bound and the minimiser of one region (batch of one) without undecided neurons."""
    program, places = _program(root, objective, rows, splits)

    def proved(multipliers: Array, aim: Nearest | Lowest) -> float:
        return _certified(root, aim, rows, splits, program.count, places, multipliers)

    nothing = objective.ball.centre.new_zeros(0, len(objective.ball.centre))
    solution = _lowest(program, objective.ball) if isinstance(objective, Lowest) else _distance(program, objective.ball)
    if solution is not None:
        best = proved(solution[1], objective)
        moves: list[Array | None] = [solution[0]]
        if isinstance(objective, Nearest):
            moves += [_inside(program, objective.ball, depth) for depth in DEPTHS]
        points = np.stack([move for move in moves if move is not None])
        return Leaf(best, objective.ball.centre + torch.from_numpy(points))
    # No such point, it seems.  Where the least value is asked for, the rows are no condition.
    signs = replace(program, matrix=program.matrix[program.count :], sides=program.sides[program.count :], count=0)
    conditions = signs if isinstance(objective, Lowest) else program
    padding = np.zeros(len(program.sides) - len(conditions.sides))
    apart = Nearest(objective.ball, 0.0)
    for other in (_violation(conditions), _distance(conditions, objective.ball)):
        if other is not None and proved(np.append(padding, other[1]), apart) > objective.ball.radius:
            return Leaf(math.inf, nothing)
    return Leaf(-math.inf, nothing)


def _inside(program: _Program, ball: Ball, depth: float) -> Array | None:
    """The shortest move to where a disjunct's rows hold with something to spare."""
    sides = program.sides.copy()
    sides[: program.count] -= depth * np.linalg.norm(program.matrix[: program.count], axis=1)
    solution = _distance(replace(program, sides=sides), ball)
    return None if solution is None else solution[0]


def _program(root: Root, objective: Nearest | Lowest, rows: Rows, splits: Splits) -> tuple[_Program, Tensor]:
    ball = objective.ball
    plain = Splits(splits.signs, splits.slopes, torch.zeros_like(splits.multipliers))
    bound = linear_bound(root, rows, plain)
    matrix, sides = [bound.coefficients[0]], [rows.bounds[0] - needs(bound, ball.centre)[0]]
    places = []
    for own, signed in neuron_bounds(root, splits):
        # The signed input is >= 0.
        value = signed.coefficients[0] @ ball.centre + signed.constants[0]
        matrix.append(-signed.coefficients[0])
        sides.append(value)
        places.append(own)
    stacked = torch.cat(matrix).numpy()
    joined = torch.cat(places) if places else torch.zeros(0, dtype=torch.long)
    below, above, weights = ball.below.numpy(), ball.above.numpy(), ball.weights.numpy()
    return _Program(stacked, torch.cat(sides).numpy(), below, above, weights, rows.bounds.shape[1]), joined


def _certified(
    root: Root,
    objective: Nearest | Lowest,
    rows: Rows,
    splits: Splits,
    count: int,
    places: Tensor,
    multipliers: Array,
) -> float:
    """What the combination of the inequalities with these multipliers costs, rounding covered."""
    scale = float(np.abs(multipliers).max(initial=0.0))
    weights = np.maximum(multipliers, 0.0) / scale if scale > 0 else np.zeros_like(multipliers)
    if isinstance(objective, Lowest):
        # A least value needs the row itself: the multipliers of the rows sum to one.
        total = float(weights[:count].sum())
        if total <= 0:
            return -math.inf
        weights = weights / total
    mixed = torch.from_numpy(weights[:count])
    combined = Rows(
        (mixed @ rows.outputs[0])[None, None],
        None if rows.inputs is None else (mixed @ rows.inputs[0])[None, None],
        (mixed @ rows.bounds[0])[None, None],
    )
    spread = torch.zeros(splits.multipliers.shape, dtype=torch.float64)
    spread[0, places] = torch.from_numpy(weights[count:])
    bound = linear_bound(root, combined, Splits(splits.signs, splits.slopes, spread))
    value = float(objective.values(bound, combined.bounds)[0, 0])
    if isinstance(objective, Nearest) and value >= 1e29:
        return math.inf
    return value + objective.cutoff - 2.0**-50 * (abs(value) + abs(objective.cutoff))


def _lowest(program: _Program, ball: Ball) -> tuple[Array, Array] | None:
    """minimise t, rows <= t, over the ball and the signs; the Euclidean ball by tangent cuts (Kelley, 1960)."""
    n, rows = len(program.below), len(program.sides)
    split = ball.norm is Norm.L1  # d = up - down
    tied = np.zeros((rows, 1))
    tied[: program.count] = -1.0
    inputs = np.hstack([program.matrix, -program.matrix]) if split else program.matrix
    matrix, sides = np.hstack([inputs, tied]), program.sides
    bounds: list[tuple[Any, Any]] = list(zip(-program.below, program.above, strict=True))
    if split:
        bounds = [*((0, side) for side in program.above), *((0, side) for side in program.below)]
        matrix = np.vstack([matrix, np.concatenate([program.weights, program.weights, [0.0]])])
        sides = np.append(sides, ball.radius)
    cost = np.append(np.zeros(matrix.shape[1] - 1), 1.0)
    best = None
    for _ in range(TANGENTS):
        solution = _solved(cost, matrix, sides, [*bounds, (None, None)])
        if solution is None:
            return best
        x, multipliers = solution
        move = x[:n] - x[n : 2 * n] if split else x[:n]
        best = move, multipliers[:rows]
        scaled = program.weights * move
        length = float(np.linalg.norm(scaled))
        if ball.norm is not Norm.L2 or length <= ball.radius * (1 + 1e-7):
            return best
        matrix = np.vstack([matrix, np.append(program.weights * scaled / length, 0.0)])
        sides = np.append(sides, ball.radius)
        best = move * (ball.radius / length), best[1]
    return best


def _distance(program: _Program, ball: Ball) -> tuple[Array, Array] | None:
    """The shortest move that keeps all inequalities, and their multipliers; None where a solver finds none."""
    if ball.norm is Norm.L2:
        return _shortest(program)
    n, rows = len(program.below), len(program.sides)
    down = np.minimum(program.below, 1e30)
    if ball.norm is Norm.L1:
        # d = up - down
        cost = np.concatenate([program.weights, program.weights])
        matrix = np.hstack([program.matrix, -program.matrix])
        bounds = [*((0, side) for side in program.above), *((0, side) for side in down)]
        found = _solved(cost, matrix, program.sides, bounds)
        return None if found is None else (found[0][:n] - found[0][n:], found[1])
    scale = np.diag(program.weights)
    column = -np.ones((n, 1))
    matrix = np.vstack(
        [np.hstack([program.matrix, np.zeros((rows, 1))]), np.hstack([scale, column]), np.hstack([-scale, column])]
    )
    sides = np.concatenate([program.sides, np.zeros(2 * n)])
    bounds = [*zip(-down, program.above, strict=True), (0, None)]
    found = _solved(np.append(np.zeros(n), 1.0), matrix, sides, bounds)
    return None if found is None else (found[0][:n], found[1][:rows])


def _shortest(program: _Program) -> tuple[Array, Array] | None:
    """Least distance programming in  z = weights * d  with the sides of the box as inequalities."""
    n, rows = len(program.below), len(program.sides)
    inequalities = np.vstack([program.matrix, np.eye(n), -np.eye(n)]) / program.weights
    sides = np.concatenate([program.sides, program.above, program.below])
    # G z >= h with G = -inequalities, h = -sides; scaled rows make the residual comparable.
    norms = np.linalg.norm(inequalities, axis=1)
    norms = np.where(norms > 0, norms, 1.0)
    stacked = np.vstack([-(inequalities / norms[:, None]).T, -(sides / norms)[None]])
    target = np.append(np.zeros(n), 1.0)
    try:
        multipliers, _ = nnls(stacked, target, maxiter=50 * stacked.shape[1])
    except RuntimeError:
        return None
    residual = stacked @ multipliers - target
    if -residual[-1] <= 1e-12:
        return None
    z = residual[:n] / -residual[-1]
    found = multipliers / norms
    return np.clip(z / program.weights, -program.below, program.above), found[:rows]


def _violation(program: _Program) -> tuple[None, Array] | None:
    """The multipliers of the largest violation that no point of the box avoids."""
    n = len(program.below)
    norms = np.linalg.norm(program.matrix, axis=1)
    norms = np.where(norms > 0, norms, 1.0)
    matrix = np.hstack([program.matrix / norms[:, None], -np.ones((len(norms), 1))])
    bounds = [*zip(-program.below, program.above, strict=True), (None, None)]
    found = _solved(np.append(np.zeros(n), 1.0), matrix, program.sides / norms, bounds)
    return None if found is None else (None, found[1] / norms)


def _solved(cost: Array, matrix: Array, sides: Array, bounds: list[tuple[Any, Any]]) -> tuple[Array, Array] | None:
    """The optimum of  cost @ x,  matrix @ x <= sides,  and the multipliers of the rows; None without one."""
    solution = linprog(cost, matrix, sides, bounds=bounds, method="highs")
    if solution.status != 0 or solution.x is None:
        return None
    return solution.x, -np.asarray(solution.ineqlin.marginals)
