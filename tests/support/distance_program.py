"""The least distance of a counterexample as a mixed-integer program: Tjeng, Xiao, Tedrake (ICLR 2019), section 4.2.

minimise    t  (linf),  sum t_i  (l1),  sum b_g  (l0)
subject to  the network's values,  row @ y <= 0,  w_i |x_i - c_i| <= t or t_i,  |x_i - c_i| <= reach_i b_g(i)
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

from verifier.bounds.ball import Norm
from verifier.bounds.ball_bounds import ball_bounds
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import encode
from verifier.encodings.milp.columns import Kind
from verifier.encodings.milp.model import MilpModel
from verifier.radius.question import Question
from verifier.solve.highs import minimise


def least_distance(question: Question, radius: float, seconds: float) -> float:
    """By HiGHS, within its tolerances, in the ball of this radius; inf where there is none.

    Raises TimeoutError where HiGHS does not end in time.
    """
    found = np.inf
    for row in question.rows.outputs.numpy():
        outcome = minimise(_program(question, row, radius), Deadline.after(seconds))
        if outcome.status not in ("optimal", "infeasible"):
            raise TimeoutError(f"HiGHS: {outcome.detail}, between {outcome.dual_bound} and {outcome.objective}")
        found = min(found, outcome.objective)
    return found


def _program(question: Question, rows: np.ndarray, radius: float) -> MilpModel:
    ball = question.ball.shrunk(radius)
    network = question.model.network
    lower, upper = (side.numpy() for side in ball.box())
    encoding = encode(network, lower, upper, ball_bounds(network, ball))
    model, n = encoding.model, network.n_inputs
    inputs = encoding.columns.of(Kind.INPUT)
    weights, centre = ball.weights.numpy(), question.centre
    if ball.norm is Norm.L0:
        groups = ball.groups.numpy()
        count, integral, cost = len(weights), True, weights
        extra = sp.csr_array((np.maximum(ball.below.numpy(), ball.above.numpy()), (np.arange(n), groups)), (n, count))
        scale = np.ones(n)
    else:
        count = 1 if ball.norm is Norm.LINF else n
        integral, cost, scale = False, np.ones(count), weights
        extra = sp.csr_array(np.ones((n, 1))) if count == 1 else sp.eye_array(n, format="csr")
    width = model.n_columns
    moves = sp.csr_array((scale, (np.arange(n), inputs)), (n, width))
    value = sp.csr_array(rows) @ encoding.value.matrix
    sides = -(rows @ encoding.value.constant)
    blocks = [
        [model.rows, sp.csr_array((model.n_rows, count))],
        [value, sp.csr_array((len(rows), count))],
        [moves, -extra],
        [-moves, -extra],
    ]
    low = np.full(len(rows) + 2 * n, -np.inf)
    most = radius if ball.norm is not Norm.L0 else 1.0
    return dataclasses.replace(
        model,
        cost=np.concatenate([np.zeros(width), cost]),
        lower=np.append(model.lower, np.zeros(count)),
        upper=np.append(model.upper, np.full(count, most)),
        integral=np.append(model.integral, np.full(count, integral)),
        rows=sp.csr_array(sp.block_array(blocks, format="csr")),
        row_lower=np.concatenate([model.row_lower, low]),
        row_upper=np.concatenate([model.row_upper, sides, scale * centre, -scale * centre]),
        row_error=np.concatenate([model.row_error, np.zeros(len(low))]),
    )
