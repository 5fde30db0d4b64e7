"""Decide linf balls by branch and bound with hull planes: the last and strongest engine for ``linf``.

Every ball is a decision: is there a counterexample within this distance?  Per target a search on ReLU phases
(``search.hull_split``), over one relaxation that all targets share.  Solutions of the relaxations are where the network
is nearly wrong, and good starts for an attack; descents (``descent``) come in turns with the balls.

The first ball is the largest of interest: where it holds, the question is answered.  Where it does not within a turn,
smaller ones close in on the largest that does, and all turns after that are twice as long.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.level import Level
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import encodable
from verifier.encodings.milp.triangle import triangle_program
from verifier.radius.descent import DescentOptions, descend
from verifier.radius.fab import FabOptions, fab
from verifier.radius.question import Question
from verifier.radius.record import Record
from verifier.search.hull_ascent import HullAscent, fits
from verifier.search.hull_split import HullSplitting

Array = NDArray[np.float64]

STAGE = "hull planes"
ATTACK = FabOptions(steps=8, restarts=0)
MOST_NEURONS = 6_000
"""Undecided ones; with more the programs take too long."""
FIRST_TURN = 2.0
"""Seconds for a ball, at first."""
FIRST_SHARE = 0.6
"""Where the next ball lies between one that holds and one that was not decided; nearer to the latter after success."""
SHARPER_STEPS, SHARPER_SHARE = 40, 0.25
"""Of the ascents for single neurons, and of a turn for all of them."""
ATTACK_SHARE = 0.3
"""Of a turn, for descents before it."""
OFFERED = 4
"""Regions per target whose solutions are given to the attack."""
HOPELESS, TRIED = 3.0, 16
"""A tree that would take so many times the time left is given up, after so many regions."""


def decide_balls(
    question: Question,
    record: Record,
    deadline: Deadline,
    tolerance: float,
    generator: torch.Generator,
    enough: Callable[[], bool],
) -> None:
    """Raise what is certified, and bring down what is attained, until ``enough`` or the time is over."""
    turn = FIRST_TURN
    while not deadline.expired and not enough() and np.isfinite(record.adversarial):
        pause = deadline.within(ATTACK_SHARE * turn)
        descend(question, record.incumbent, pause, generator, DescentOptions(), lambda: record.see("attack"))
        failed, share = np.inf, FIRST_SHARE
        while not deadline.expired and not enough():
            known, most = record.certified, record.adversarial
            radius = max(known, most - 0.9 * tolerance)
            if failed <= radius:
                if failed - known <= max(tolerance / 2, 0.1 * (most - known)):
                    break
                radius = known + share * (failed - known)
            decided = _decide(question, record, radius, deadline.within(turn), generator)
            if decided is None:
                return
            if decided:
                record.raise_to(np.nextafter(min(radius, record.adversarial), 0.0), STAGE)
                share = (1 + share) / 2
            else:
                failed, share = radius, FIRST_SHARE
        turn *= 2


def _decide(
    question: Question, record: Record, radius: float, deadline: Deadline, generator: torch.Generator
) -> bool | None:
    """Whether there is no counterexample in the ball; None where the network is too large for this."""
    network, ball = question.model.network, question.ball.shrunk(radius)
    nodes = ball_bounds(network, ball, deadline)
    undecided = sum(int(nodes[network.nodes[k].inputs[0]].unstable.sum()) for k in network.relus)
    if undecided > MOST_NEURONS or nodes[0].level is not Level.RIGOROUS or not encodable(network, nodes):
        return None
    lower, upper = ball.box()
    program = triangle_program(network, lower.numpy(), upper.numpy(), nodes)
    if program.level is not Level.RIGOROUS or not fits(program):
        return None
    hull, signs = HullAscent(program).sharper(deadline.share(SHARPER_SHARE), SHARPER_STEPS)
    offered = 0

    def offer(x: Array) -> None:
        nonlocal offered
        if offered < OFFERED:
            offered += 1
            _attack(question, record, x, deadline, generator)

    # Rows that a counterexample keeps together are refuted by any one of them.
    waiting = []
    for rows in question.rows.outputs.numpy():
        searches = [HullSplitting(hull, row, signs, offer) for row in rows]
        if not any(search.work(deadline, regions=1) for search in searches):
            waiting.append(sorted(searches, key=lambda search: -search.root))
    # The hardest first: where it fails, the others are not needed.
    waiting.sort(key=lambda searches: searches[0].root)
    return all(any(_closes(search, record, radius, deadline) for search in searches) for searches in waiting)


def _closes(search: HullSplitting, record: Record, radius: float, deadline: Deadline) -> bool:
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
