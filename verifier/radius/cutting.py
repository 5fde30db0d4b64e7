"""Decide linf balls by branch and cut, and learn from its points: the last and strongest engine for ``linf``.

Every ball is a decision: is there a counterexample within this distance?  Per target a linear program with hull cuts,
branched on ReLU phases (``search.branch_and_cut``).  Solutions of the relaxations are where the network is nearly
wrong, and the best starts for an attack that there are: on mnist_wk17a, image 1, they lead to a counterexample at
0.1384 where gradient attacks of half a minute end at 0.1417.  So balls that are not decided help from above.

The next ball lies between what is certified and what is attained, by a share that grows with success.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.bounds.alpha_crown import AlphaOptions, optimised_bounds
from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.beta_crown import AscentOptions, Root, bound_regions
from verifier.bounds.level import Level
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import encodable
from verifier.encodings.milp.hull_cuts import HullCuts
from verifier.encodings.milp.triangle import triangle_program
from verifier.radius.fab import FabOptions, fab
from verifier.radius.question import Question
from verifier.radius.record import Record
from verifier.search.branch_and_cut import BranchAndCut, CutOptions, fits

Array = NDArray[np.float64]

STAGE = "branch and cut"
ALPHA = AlphaOptions(iterations=4)
ROOT = AscentOptions(iterations=12)
ATTACK = FabOptions(steps=8, restarts=0)
MOST_NEURONS = 3_000
"""Undecided ones; with more the programs take too long."""
FIRST_STEP, LARGEST_STEP, LEAST_STEP = 0.4, 0.8, 0.02
ONE_BALL = 0.3
"""Of the time left, for one ball."""
HOPELESS, TRIED = 3.0, 12
"""A tree that would take so many times the time left is given up, after so many regions."""


def cut(
    question: Question,
    record: Record,
    deadline: Deadline,
    tolerance: float,
    generator: torch.Generator,
    enough: Callable[[], bool],
) -> None:
    """Raise what is certified, and bring down what is attained, until ``enough`` or nothing more is to be had."""
    step = FIRST_STEP
    while not deadline.expired and not enough() and np.isfinite(record.adversarial) and step >= LEAST_STEP:
        known, most = record.certified, record.adversarial
        radius = min(known + step * (most - known), most - 0.9 * tolerance)
        decided = _decide(question, record, max(radius, known), deadline.share(ONE_BALL), generator)
        if decided is None:
            return
        if decided:
            record.raise_to(np.nextafter(min(radius, record.adversarial), 0.0), STAGE)
        step = min(LARGEST_STEP, 1.5 * step) if decided else step / 2


def _decide(
    question: Question, record: Record, radius: float, deadline: Deadline, generator: torch.Generator
) -> bool | None:
    """Whether there is no counterexample in the ball; None where the network is too large for this."""
    network, ball = question.model.network, question.ball.shrunk(radius)
    nodes = optimised_bounds(network, ball_bounds(network, ball, deadline), deadline, ALPHA).nodes
    undecided = sum(int(nodes[network.nodes[k].inputs[0]].unstable.sum()) for k in network.relus)
    if undecided > MOST_NEURONS or nodes[0].level is not Level.RIGOROUS or not encodable(network, nodes):
        return None
    lower, upper = (side.unsqueeze(0) for side in ball.box())
    root = Root(network, lower, upper, nodes)
    whole = root.undivided().pick(torch.zeros(len(question.targets), dtype=torch.long))
    bounds = bound_regions(root, question.rows, whole, ROOT).lower
    waiting = [i for i in torch.argsort(bounds, stable=True).tolist() if bounds[i] <= 0]
    if not waiting:
        return True
    program = triangle_program(network, lower[0].numpy(), upper[0].numpy(), nodes)
    if program.level is not Level.RIGOROUS or not fits(program, CutOptions()):
        return None
    cuts = HullCuts(program)
    for i in waiting:
        row = question.rows.outputs[i, 0].numpy()
        search = BranchAndCut(program, cuts, row, lambda x: _attack(question, record, x, deadline, generator))
        search.bound_root(deadline)
        while not search.closed:
            if search.stuck or deadline.expired or record.adversarial <= radius:
                return False
            if search.regions > TRIED and search.seconds_left > HOPELESS * deadline.remaining:
                return False
            search.work(deadline, regions=4)
    return True


def _attack(question: Question, record: Record, x: Array, deadline: Deadline, generator: torch.Generator) -> None:
    """From a solution of a relaxation towards the nearest boundary."""
    record.incumbent.offer(x[None])
    fab(question, record.incumbent, deadline, ATTACK, generator, x[None])
    record.see(STAGE)
