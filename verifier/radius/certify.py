"""The distance of the nearest counterexample, from both sides, at any time.

    attack     the nearest counterexample that projections on linearised boundaries find (``fab``), and for linf, after
               a first turn of branching, descents in ever smaller boxes (``descent``); onnxruntime confirms every one
    crown      the largest ball that plain CROWN certifies, by bisection
    branch     best-first branch and bound on ReLU phases inside the ball of the nearest counterexample; the bound of a
               region is the distance at which its linear relaxation first allows one, so one search serves all radii,
               and its least bound is certified at any moment.  In turns with attacks from the worst regions
    decide     linf, where a first turn of that leaves a gap: ball after ball by hull planes (``balls``)

After Tjeng, Xiao and Tedrake (ICLR 2019), who minimise the distance by a MILP; HiGHS has no Euclidean objective, and
its word is not rigorous.  The norm l0 counts, and has a search of its own (``l0``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.ball import Norm
from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.ball_objective import Nearest
from verifier.bounds.crown import backward, relax
from verifier.deadline import Deadline
from verifier.falsify.attack import AttackOptions, attack
from verifier.query import Query
from verifier.radius.balls import decide_balls
from verifier.radius.descent import DescentOptions, descend
from verifier.radius.fab import FabOptions, fab
from verifier.radius.incumbent import Incumbent
from verifier.radius.question import Question
from verifier.radius.record import Radius, Record, Watch
from verifier.search.input_split import InputSplitting, SplitOptions, applicable
from verifier.search.regions import RegionOptions, RegionSearch, sharper
from verifier.verdict import EvidenceLevel
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

Array = NDArray[np.float64]

STAGE = "branch"
POLISH = FabOptions(steps=3, restarts=0)


@dataclass(frozen=True)
class RadiusOptions:
    """tolerance: how far apart the two numbers may stay; for l0, whose distances are whole numbers, without effect.

    attack_share: of the time, at most, for the first attacks, and again for the first descents of linf.
    bisections: with plain CROWN.
    first_turn: seconds of branching before the first attack in between; every turn is twice as long as the one before.
    pause: length of an attack against the turn before it.  refocus: bounds are made anew for a ball this much smaller.
    ball_share: of the time left after a first turn, for the decision of balls in linf.
    within: the distance that matters: the run ends once a counterexample is known there, or none exists.
    """

    tolerance: float = 1e-4
    within: float = math.inf
    seed: int = 0
    attack_share: float = 0.2
    bisections: int = 6
    first_turn: float = 0.5
    pause: float = 0.2
    refocus: float = 0.98
    ball_share: float = 0.95
    fab: FabOptions = field(default_factory=FabOptions)
    descent: DescentOptions = field(default_factory=DescentOptions)
    regions: RegionOptions = field(default_factory=RegionOptions)


def certify(question: Question, deadline: Deadline, options: RadiusOptions, watch: Watch | None = None) -> Radius:
    """Both sides of the distance.  Ctrl-C, or a KeyboardInterrupt from ``watch``, ends it with what is known."""
    record = Record(Incumbent(question), watch)
    interrupted = False
    try:
        _run(question, record, deadline, options)
    except KeyboardInterrupt:
        interrupted = True
        record.finish()
    return answer(question, record, deadline, options, interrupted)


def answer(question: Question, record: Record, deadline: Deadline, options: RadiusOptions, interrupted: bool) -> Radius:
    """What a run knows, with the reason where the gap is open."""
    incumbent = record.incumbent
    found = Radius(
        record.certified,
        record.adversarial,
        None if incumbent.x is None else incumbent.x,
        question.label,
        None if incumbent.y is None else question.winner(incumbent.y),
        str(question.ball.norm),
        EvidenceLevel.RIGOROUS,
        "",
        record.seconds,
        tuple(record.history),
        1.0 if question.counts else 0.0,
    )
    if found.gap <= options.tolerance:
        return found
    why = "interrupted" if interrupted else "the time ran out" if deadline.expired else "no engine gets further"
    what = "no counterexample was found, and none excluded" if incumbent.x is None else f"the gap is {found.gap:.3g}"
    return replace(found, reason=f"{why}; {what}")


def _run(question: Question, record: Record, deadline: Deadline, options: RadiusOptions) -> None:
    incumbent = record.incumbent
    generator = torch.Generator().manual_seed(options.seed)
    if incumbent.confirm(question.centre):
        record.see("replay")
        return
    _attack(question, record, deadline.share(options.attack_share), options, generator)
    if _enough(record, options):
        return
    if question.ball.norm is Norm.L0:
        from verifier.radius.l0 import count

        count(question, record, deadline, options.within)
        return
    _crown(question, record, deadline.share(0.3), options)
    if question.ball.norm is Norm.LINF and not math.isfinite(options.within):
        _decide(question, record, deadline, options, generator)
    if not _enough(record, options):
        _branch(question, record, deadline, options, generator)


def _attack(
    question: Question, record: Record, deadline: Deadline, options: RadiusOptions, generator: torch.Generator
) -> None:
    incumbent = record.incumbent
    fab(question, incumbent, deadline, options.fab, generator)
    record.see("attack")
    if question.ball.norm is Norm.LINF and not math.isfinite(incumbent.distance) and not question.joint:
        _shrink(question, record, deadline, options.seed, waves=2)


def _shrink(question: Question, record: Record, deadline: Deadline, seed: int, waves: int) -> None:
    """The gradient attack inside ever smaller boxes, until it fails."""
    incumbent = record.incumbent
    factor = 0.97
    for turn in range(40):
        radius = factor * incumbent.distance if math.isfinite(incumbent.distance) else 1.0
        if deadline.expired or radius <= record.certified:
            return
        query = box_query(question, radius)
        outcome = attack(query, deadline, AttackOptions(seed=seed + turn, waves=waves))
        points = outcome.points if outcome.witness is None else np.vstack([outcome.points, outcome.witness.x])
        if not incumbent.offer(points, incumbent.distance):
            if factor > 0.99:
                return
            factor = 0.995
        record.see("attack")


def box_query(question: Question, radius: float) -> Query:
    """The decision problem in the box around a linf ball."""
    lower, upper = (side.numpy() for side in question.ball.shrunk(radius).box())
    lower, upper = np.maximum(lower, question.lower), np.minimum(upper, question.upper)
    rows = question.rows
    n = len(question.centre)
    no_inputs = np.broadcast_to(0.0, (rows.outputs.shape[1], n))
    disjuncts = tuple(
        Disjunct(
            lower,
            upper,
            LinearConstraints(no_inputs, part.numpy(), np.zeros(len(part)), np.zeros(len(part), np.bool_)),
        )
        for part in rows.outputs
    )
    network = question.model.network
    return Query.of(network, Spec(n, network.n_outputs, disjuncts), question.model.replay)


def _crown(question: Question, record: Record, deadline: Deadline, options: RadiusOptions) -> None:
    """Balls that CROWN certifies; one that it does not still tells how far inside a counterexample is first allowed."""
    low, high = record.certified, _most(question, record, options)
    largest = question.ball.shrunk(high)
    lower, upper = largest.box()
    # Nothing lies further than the corner of the box.
    high = min(high, float(largest.length(torch.maximum(largest.centre - lower, upper - largest.centre))) * (1 + 1e-9))
    everything = not math.isfinite(min(record.adversarial, options.within))
    for turn in range(options.bisections):
        if deadline.expired or high - low <= max(options.tolerance / 4, 1e-3 * high):
            return
        # A nearest counterexample that is known is hardly ever what CROWN certifies; the whole box may be.
        first = everything or math.isfinite(options.within)
        middle = high if turn == 0 and first else (low + high) / 2
        if 0 < low < high / 4:
            middle = math.sqrt(low * high)
        certified = min(_certified_within(question, middle, deadline), middle)
        if turn == 0 and certified >= middle and everything:
            record.raise_to(question.limit, "crown")
            return
        record.raise_to(_before(certified), "crown")
        if certified >= middle:
            low = middle
        else:
            low, high = max(low, certified), middle


def _certified_within(question: Question, radius: float, deadline: Deadline) -> float:
    """How far no counterexample is, by CROWN in the ball of this radius."""
    network, ball = question.model.network, question.ball.shrunk(radius)
    nodes = ball_bounds(network, ball, deadline)
    rows = question.rows
    flat = rows.outputs.reshape(1, -1, *network.output_shape)
    bound = backward(relax(network, nodes), len(network.nodes) - 1, flat)
    values = Nearest(ball, 0.0).values(bound, torch.zeros(1, flat.shape[1], dtype=torch.float64))
    # A counterexample keeps all rows of some disjunct.
    return float(values.reshape(rows.bounds.shape).max(1).values.min())


def _branch(
    question: Question, record: Record, deadline: Deadline, options: RadiusOptions, generator: torch.Generator
) -> None:
    """Branch and bound in the ball of the nearest counterexample, in turns with attacks and with smaller balls.

    Where the search does not end in its turns, the ball is too large for its relaxations: over a smaller one they are
    tighter and prove more.  Its radius is what is certified plus a step that grows with success.
    """
    incumbent = record.incumbent
    whole = _Branching(question, record, _most(question, record, options), deadline, options, generator)
    turn, seed = options.first_turn, options.seed
    step = 0.5
    while True:
        whole.work(deadline.within(turn))
        if whole.exhausted or deadline.expired or _enough(record, options):
            return
        seed += 1
        pause = deadline.within(options.pause * turn)
        fab(question, incumbent, pause, options.fab, generator)
        if question.ball.norm is Norm.LINF:
            descend(question, incumbent, pause, generator, options.descent, lambda: record.see("attack"))
        record.see("attack")
        end, most = deadline.within(turn), _most(question, record, options)
        while not end.expired and not _enough(record, options) and math.isfinite(most):
            known = record.certified
            smaller = known + step * (most - known)
            if not _split_inputs(question, record, smaller, end):
                _Branching(question, record, smaller, end, options, generator).work(end)
            step = min(0.5, 1.5 * step) if record.certified >= smaller * (1 - 1e-9) else step / 3
            if step * (most - known) < options.tolerance / 10:
                step = 0.5
                break
        whole.refocus(_most(question, record, options))
        turn *= 2


def _decide(
    question: Question, record: Record, deadline: Deadline, options: RadiusOptions, generator: torch.Generator
) -> None:
    """Ball after ball for most of the time.  Before it a turn of the search for the distance, which is all that small
    networks need, and descents.
    """
    if _enough(record, options):
        return
    _Branching(question, record, _most(question, record, options), deadline, options, generator).work(
        deadline.within(options.first_turn)
    )
    if _enough(record, options):
        return
    attacks = deadline.share(options.attack_share)
    descend(question, record.incumbent, attacks, generator, options.descent, lambda: record.see("attack"))
    _crown(question, record, deadline.share(0.1), options)
    decide_balls(
        question,
        record,
        deadline.share(options.ball_share),
        options.tolerance,
        generator,
        lambda: _enough(record, options),
    )


def _split_inputs(question: Question, record: Record, radius: float, deadline: Deadline) -> bool:
    """Decide a linf ball by branch and bound on the input box; False where the network is not made for it."""
    if question.ball.norm is not Norm.LINF:
        return False
    query = box_query(question, radius)
    if not applicable(query, SplitOptions()):
        return False
    outcome = InputSplitting(query).work(deadline)
    if outcome.witness is not None:
        record.incumbent.offer(outcome.witness.x[None])
        record.see("input splitting")
    elif all(bound.level is EvidenceLevel.RIGOROUS for bound in outcome.bounds):
        record.raise_to(_before(min(radius, record.adversarial)), "input splitting")
    return True


class _Branching:
    """One search inside one ball; what it learns goes into the record."""

    def __init__(
        self,
        question: Question,
        record: Record,
        radius: float,
        deadline: Deadline,
        options: RadiusOptions,
        generator: torch.Generator,
    ) -> None:
        self._question, self._record, self._options = question, record, options
        self._deadline, self._generator = deadline, generator
        self._ball = question.ball.shrunk(min(radius, question.ball.radius))
        self._nodes = ball_bounds(question.model.network, self._ball, deadline)
        self._sharp = False
        self._search = RegionSearch(
            question.model.network, self._nodes, question.rows, self._objective, options.regions
        )

    @property
    def exhausted(self) -> bool:
        return self._search.exhausted

    def work(self, deadline: Deadline) -> None:
        """Split regions until none is open or the time is over."""
        self._search.work(deadline, self._attempt)
        if self.exhausted and not math.isfinite(self._record.adversarial):
            everything = self._ball.radius >= self._question.ball.radius and self._search.lower >= self._ball.radius
            if everything:
                self._record.raise_to(self._question.limit, STAGE)
        self._learn()

    def refocus(self, radius: float) -> None:
        """Go on in a smaller ball, if it is much smaller; with optimised bounds from the first time on."""
        smaller = radius < self._options.refocus * self._ball.radius
        if self._sharp and not smaller:
            return
        network = self._question.model.network
        if smaller:
            self._ball = self._question.ball.shrunk(radius)
            fresh = ball_bounds(network, self._ball, self._deadline)
            self._nodes = tuple(old.intersect(new) for old, new in zip(self._nodes, fresh, strict=True))
        self._nodes = sharper(network, self._nodes, self._objective, self._deadline.share(0.25))
        self._sharp = True
        self._search.focus(self._nodes, self._objective)

    @property
    def _objective(self) -> Nearest:
        return Nearest(self._ball, self._cutoff())

    def _cutoff(self) -> float:
        """What a region has to exceed: all within the tolerance of the nearest counterexample is good enough."""
        record, options = self._record, self._options
        if record.adversarial <= options.within < math.inf:
            return -math.inf  # answered: nothing is left to split
        return min(self._ball.radius, record.adversarial - 0.95 * options.tolerance)

    def _attempt(self, points: Tensor, owner: Tensor) -> float:
        incumbent = self._record.incumbent
        if incumbent.offer(points.numpy()) and incumbent.x is not None:
            fab(self._question, incumbent, self._deadline, POLISH, self._generator, incumbent.x[None])
        self._record.see(STAGE)
        self._learn()
        return self._cutoff()

    def _learn(self) -> None:
        # What the ball holds is all that was bounded.
        self._record.raise_to(_before(min(self._search.lower, self._ball.radius, self._record.adversarial)), STAGE)


def _most(question: Question, record: Record, options: RadiusOptions) -> float:
    """The largest distance that is of interest."""
    return min(record.adversarial, question.ball.radius, options.within * (1 + 1e-12))


def _before(distance: float) -> float:
    """From "none nearer than this" to "none at this or nearer"."""
    return math.nextafter(distance, 0.0) if math.isfinite(distance) else distance


def _enough(record: Record, options: RadiusOptions) -> bool:
    """Whether the question is answered."""
    decided = record.certified >= options.within or record.adversarial <= options.within < math.inf
    return decided or record.adversarial - record.certified <= options.tolerance
