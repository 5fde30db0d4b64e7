"""How far each goal can be reached at most: the linear relaxation of the program, every bound certified.

The rows are those of the big-M program with what gates imply of each other (see ``encodings.milp.gates``).  What is
used of HiGHS is its multipliers alone (see ``solve.lp_certificate``).  A sum is an integer, so its bound is rounded
down; a goal whose bound is negative is impossible.

Tightening gates in the same way was tried and left out: it fixes 1 to 10 of 100 open gates of a second layer and takes
seconds.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.binarised.presolve import Reduced
from verifier.deadline import Deadline
from verifier.encodings.milp.gates import gate_milp
from verifier.encodings.sat.program import Program, Rows
from verifier.solve.lp import LinearPrograms

Integers = NDArray[np.int64]


def goal_bounds(reduced: Reduced, deadline: Deadline) -> tuple[Integers, list[Integers]]:
    """(goals,) of ``reduced.goals``: a slack that no levels exceed; those of the intervals when time is over.

    And the levels (levels,) at which the relaxation has its best slacks, rounded: where to look for real ones.
    """
    program = reduced.program
    assert program is not None
    bounds = reduced.bounds[list(reduced.goals)].copy()
    hidden = program.layers[: reduced.hidden]
    nothing = Rows(sp.csr_array((0, len(hidden[-1])), dtype=np.int64), np.zeros(0, np.int64))
    model = gate_milp(Program(program.counts, hidden, nothing))
    programs = LinearPrograms(model)
    points: list[Integers] = []
    for place in range(len(bounds)):
        rows = reduced.goal_rows(place)
        highest = np.maximum(rows, 0).sum(axis=1)
        for number, weights in enumerate(rows):
            if deadline.expired:
                return bounds, points
            cost = np.zeros(model.n_columns)
            cost[model.n_columns - len(weights) :] = -weights
            bound = programs.minimum(cost, 0.0, deadline)
            if math.isfinite(bound.lower):
                highest[number] = min(highest[number], math.floor(-bound.lower))
            if bound.point is not None:
                points.append(np.rint(bound.point[: len(program.counts)]).astype(np.int64))
        bounds[place] = min(bounds[place], reduced.slack(place, highest))
    return bounds, points
