"""The search for a counterexample: sampling, gradient descent from a portfolio of starts, replay.

One wave shows every open disjunct some random points, then runs a batched descent (``pgd``) on all its restarts, then
polishes the best few in float64.  Whatever reaches a margin <= 0 goes to the ``referee`` at once, and the first point
that onnxruntime confirms ends everything.  The first wave is a small one.  From the third on, every other wave spends
its whole budget on the quarter of the disjuncts whose margins are smallest: of the wrong classes of an image most are
hopeless, and one is not.

Sampling comes first because it is cheap and, with few inputs, hard to beat: on ACAS Xu a random point costs a third of
a step.  Starting the descent from the best samples was tried and is worse than random starts (0 of 8 against 8 of 8
runs on 1_9 prop_7): they all lie in one basin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.deadline import Deadline
from verifier.falsify import work
from verifier.falsify.loss import Targets, margins
from verifier.falsify.pgd import descend, evaluate
from verifier.falsify.polish import polish
from verifier.falsify.referee import Referee
from verifier.falsify.starts import MANY_INPUTS, Boxes, draw, sample
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.verdict import Witness

Array = NDArray[np.float64]

STAGE = "attack"
SAMPLE_ROUNDS, SAMPLES_PER_RESTART = 4, 4
"""Sampled in rounds: each may end the search, and fits the memory that a descent needs."""
PROBE = 1 / 16
"""The part of the work that the first wave gets: what falls at once should not wait for a large batch."""
FOCUS = 4
"""Every other wave goes to one in this many disjuncts."""
POLISHED = 8


@dataclass(frozen=True)
class AttackOptions:
    """How hard to try; the defaults make a small attack.

    seed: the same seed, options and device give the same points.
    waves: how often the whole search is repeated, with new random numbers.
    steps: of every descent.
    work: of one wave, in the units of ``work``: 1e9 are about 45 ms.  It decides the number of restarts per disjunct.
    memory: bytes for the arrays of one batch; disjuncts are searched in pieces that fit.
    device: "cpu" or "cuda", for the search in float32; polishing and replays stay on the CPU.
    """

    seed: int = 0
    waves: int = 3
    steps: int = 16
    work: float = 1e9
    memory: int = 2**28
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class AttackOutcome:
    """What an attack found.

    witness: confirmed by onnxruntime, ``disjunct`` counted in the user's spec; None where none was found.
    points: (disjuncts, n_inputs), the best point of every disjunct of the query, inside its box.
    margins: (disjuncts,), their margins by the network in float64; infinite where the deadline left no time to look.
    """

    witness: Witness | None
    points: Array
    margins: Array


def attack(
    query: Query,
    deadline: Deadline,
    options: AttackOptions | None = None,
    progress: Progress = silent,
) -> AttackOutcome:
    """Look for a point that satisfies some disjunct of the query, whose network is in float64 on the CPU."""
    if not query.disjuncts:
        return AttackOutcome(None, np.zeros((0, query.network.n_inputs)), np.zeros(0))
    search = _Search(query, deadline, options or AttackOptions(), progress)
    search.run()
    return AttackOutcome(search.referee.witness, search.points, search.exact_margins())


class _Search:
    """The state of one attack: the best point and margin of every disjunct."""

    def __init__(self, query: Query, deadline: Deadline, options: AttackOptions, progress: Progress) -> None:
        self._query, self._deadline, self._options, self._progress = query, deadline, options, progress
        self._network = query.network.to(torch.float32, options.device)
        self._generator = torch.Generator().manual_seed(options.seed)
        self.referee = Referee(query)
        self.points = np.stack([(d.lower + d.upper) / 2 for d in query.disjuncts])
        self.margins = np.full(len(query.disjuncts), np.inf)

    def run(self) -> None:
        """All waves; ends early with a witness or at the deadline."""
        for wave in range(self._options.waves):
            positions = self._promising() if wave and wave % 2 == 0 else list(range(len(self.points)))
            self._wave(positions, first=wave == 0)
            if self.referee.witness or self._deadline.expired:
                return
            self._polish(positions)
            if self.referee.witness:
                return

    def exact_margins(self) -> Array:
        """The margins of the best points by the float64 network, as far as the time reaches."""
        # float64 takes twice the memory of float32.
        for piece in work.chunks(self._query.network, range(len(self.points)), 1, self._options.memory // 2):
            if self._deadline.expired:
                break
            targets = Targets.of([self._query.disjuncts[i] for i in piece], torch.float64)
            with torch.no_grad():
                rows, _ = evaluate(self._query.network, targets, torch.from_numpy(self.points[piece]).unsqueeze(1))
            self.margins[piece] = margins(rows).squeeze(1).numpy()
        return self.margins

    def _promising(self) -> list[int]:
        """The quarter of the disjuncts with the smallest margins, at least one."""
        count = -(-len(self.margins) // FOCUS)
        return sorted(np.argsort(self.margins, kind="stable")[:count].tolist())

    def _wave(self, positions: Sequence[int], first: bool) -> None:
        options = self._options
        restarts = work.restarts(self._network, len(positions), options.steps, options.work * (PROBE if first else 1))
        for piece in work.chunks(self._network, positions, restarts, options.memory):
            if self._deadline.expired:
                return
            self._search_piece(piece, restarts, first)
            self._progress(Event(STAGE, upper=float(self.margins.min()), open=len(self.points), unit="disjuncts"))
            if self.referee.witness:
                return

    def _search_piece(self, piece: list[int], restarts: int, first: bool) -> None:
        options = self._options
        disjuncts = [self._query.disjuncts[i] for i in piece]
        targets = Targets.of(disjuncts, torch.float32, options.device)
        boxes = Boxes.of(disjuncts, torch.float32, options.device)

        def accept(points: Tensor, found: Tensor) -> bool:
            return self.referee.judge_all(piece, points, found)

        for _ in range(SAMPLE_ROUNDS if self._query.network.n_inputs <= MANY_INPUTS else 0):
            points = sample(boxes, SAMPLES_PER_RESTART * restarts, self._generator)
            with torch.no_grad():
                rows, _ = evaluate(self._network, targets, points)
            found = margins(rows)
            self._keep(piece, points, found)
            if self._deadline.expired or ((found <= 0).any() and accept(points, found)):
                return
        starts = draw(boxes, restarts, self._query.network.n_outputs, self._generator, with_centre=first)
        descent = descend(self._network, targets, boxes, starts, options.steps, self._deadline, accept)
        self._keep(piece, descent.points, descent.margins)

    def _keep(self, piece: list[int], points: Tensor, found: Tensor) -> None:
        """Remember the best of points (D, K, n_inputs) with margins (D, K) for the disjuncts of a piece."""
        smallest, best = found.min(dim=1)
        improved = (smallest.double().cpu().numpy() < self.margins[piece]).nonzero()[0]
        if not len(improved):
            return
        rows = torch.from_numpy(improved).to(points.device)
        better = points[rows, best[rows]].double().cpu().numpy()
        places = np.asarray(piece)[improved]
        lower, upper = (
            np.stack([getattr(self._query.disjuncts[i], side) for i in places]) for side in ("lower", "upper")
        )
        self.points[places] = np.clip(better, lower, upper)
        self.margins[places] = smallest[rows].double().cpu().numpy()

    def _polish(self, positions: Sequence[int]) -> None:
        """Move the points with the smallest margins on in float64, and have them replayed."""
        chosen = sorted(positions, key=lambda i: self.margins[i])[:POLISHED]
        disjuncts = [self._query.disjuncts[i] for i in chosen]
        targets, boxes = Targets.of(disjuncts, torch.float64), Boxes.of(disjuncts, torch.float64)
        start = torch.from_numpy(self.points[chosen]).unsqueeze(1)
        points, found = polish(self._query.network, targets, boxes, start, self._deadline)
        self._keep(list(chosen), points, found)
        self.referee.judge_all(chosen, points, found)
