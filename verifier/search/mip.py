"""The last resort: one mixed-integer program per open disjunct, solved by HiGHS.

Per disjunct, in this order:

1. The linear relaxation, whose bound is certified (``lp_certificate``): where it is positive the disjunct is
   impossible, rigorously if the bounds on the neurons are rigorous.  Milliseconds, and enough for most.
2. The program itself, minimising the margin (``encodings.milp.margin``) from the attack's best point.  Every
   improving point is rounded into the box and shown to onnxruntime at once; the first that it confirms ends
   the search.  One that it does not confirm changes nothing: HiGHS goes on to better ones, down to the optimum.

A disjunct counts as impossible at level SOLVER when HiGHS proves infeasibility, or a dual bound above
``CONFIDENCE * (1 + |root bound|)``.  HiGHS lets rows be broken by 1e-6 and reduced costs by 1e-7; an
optimum that is closer to zero than ten times that, measured on the scale of the values it computes with, is
no proof of a sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.bounds.level import Bounds, Level
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import Encoding, encodable, encode
from verifier.encodings.milp.margin import MarginProgram, margin_program
from verifier.encodings.milp.start import start
from verifier.errors import SolverError
from verifier.falsify.referee import Referee
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.solve.highs import NO_HEURISTICS, minimise
from verifier.solve.highs_run import Options, Report
from verifier.solve.lp import LinearPrograms
from verifier.solve.outcome import Outcome, Status
from verifier.solve.process import HighsProcess
from verifier.verdict import DisjunctBounds, EvidenceLevel, Witness

Array = NDArray[np.float64]

STAGE = "milp"
LINEAR_METHOD = "lp"
METHOD = "milp"

CONFIDENCE = 1e-5
"""See the head of this file."""
NEARLY = 1e-6
"""Points whose margin in float64 is at most this are shown to onnxruntime, whose float32 may see it below 0."""
TINY = float(np.finfo(np.float64).tiny)
LINEAR_SHARE = 0.25
"""Of the remaining time, for the linear relaxations of all disjuncts."""


@dataclass(frozen=True)
class MipOptions:
    """threads: for HiGHS.  highs: further HiGHS options, by name; its heuristics are off, the attack being better.

    most_unstable: with more undecided ReLUs than this nothing is tried; the programs would not fit.
    most_bytes: that HiGHS may hold.
    """

    threads: int = 1
    most_unstable: int = 20_000
    most_bytes: int | None = None
    highs: Options = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MipOutcome:
    """witness: a confirmed counterexample, or None.

    bounds: one entry per disjunct of the query.
    counts: work done, by name.
    """

    witness: Witness | None
    bounds: tuple[DisjunctBounds, ...]
    counts: dict[str, float]


def solve(
    query: Query,
    bounds: Sequence[Bounds],
    deadline: Deadline,
    options: MipOptions | None = None,
    starts: Sequence[Array | None] = (),
    progress: Progress = silent,
) -> MipOutcome:
    """Decide the disjuncts of a query, all over one box.

    bounds: one entry per node of the network over that box, tensors [1, *shape].
    starts: for each disjunct the best point known, (n_inputs,), or None; empty for none at all.
    Raises SolverError when HiGHS contradicts itself or what is known.
    """
    search = _Search(query, bounds, options or MipOptions(), progress)
    if search.ready:
        search.try_starts(starts)
        search.relax(deadline.share(LINEAR_SHARE))
        search.branch(deadline)
    return search.outcome()


def relax(query: Query, bounds: Sequence[Bounds], deadline: Deadline, progress: Progress = silent) -> MipOutcome:
    """Only the first step, the linear relaxations; arguments as for ``solve``."""
    search = _Search(query, bounds, MipOptions(), progress)
    if search.ready:
        search.relax(deadline)
    return search.outcome()


class _Search:
    """What is known of every disjunct, and the steps that learn more."""

    def __init__(self, query: Query, bounds: Sequence[Bounds], options: MipOptions, progress: Progress) -> None:
        self._query, self._node_bounds = query, bounds
        self._options, self._progress = options, progress
        self._network = query.network.to(torch.float64)
        self._referee = Referee(query)
        self._known = [DisjunctBounds()] * len(query.disjuncts)
        self._best: list[Array | None] = [None] * len(query.disjuncts)
        self._roots = [-math.inf] * len(query.disjuncts)
        self._programs: dict[int, MarginProgram] = {}
        self._encoded: Encoding | None = None
        self._counts = {"lp_runs": 0.0, "milp_runs": 0.0, "milp_nodes": 0.0}

    @property
    def ready(self) -> bool:
        """Whether there is something to do and the program can be written down."""
        if not self._query.disjuncts or not encodable(self._network, self._node_bounds):
            return False
        entering = (self._node_bounds[self._network.nodes[i].inputs[0]] for i in self._network.relus)
        return sum(int(bound.unstable.sum()) for bound in entering) <= self._options.most_unstable

    @property
    def _open(self) -> list[int]:
        return [i for i, bound in enumerate(self._known) if bound.level is None]

    def outcome(self) -> MipOutcome:
        return MipOutcome(self._referee.witness, tuple(self._known), self._counts)

    def try_starts(self, starts: Sequence[Array | None]) -> None:
        for position, point in enumerate(starts):
            if point is not None:
                self._try(position, point)

    def relax(self, deadline: Deadline) -> None:
        """The certified bounds of the linear relaxations."""
        shared: LinearPrograms | None = None
        positions = self._open
        for number, position in enumerate(positions):
            if deadline.expired or self._referee.witness is not None:
                return
            program = self._program(position)
            model = program.model
            if model.rows is not program.encoding.model.rows:
                programs = LinearPrograms(model)
            else:  # disjuncts of one row share all rows, and so one basis to go on from
                shared = programs = shared or LinearPrograms(model)
            share = deadline.share(1 / (len(positions) - number))
            bound = programs.minimum(model.cost, model.offset, share, model.cost_error)
            self._counts["lp_runs"] += 1
            self._roots[position] = bound.lower
            rigorous = program.encoding.level is Level.RIGOROUS
            level = EvidenceLevel.RIGOROUS if rigorous else EvidenceLevel.SOLVER
            self._learn(position, bound.lower, bound.lower > 0, LINEAR_METHOD, level)
            if bound.point is not None and bound.lower <= 0:
                self._try(position, bound.point[: self._network.n_inputs])

    def branch(self, deadline: Deadline) -> None:
        """The mixed-integer programs, in turns of an equal share of what time is left.

        Whoever is cut off gets another turn if the others leave time.
        """
        waiting = sorted(self._open, key=lambda i: self._roots[i])
        with HighsProcess(self._options.most_bytes) as process:
            while waiting and not deadline.expired and self._referee.witness is None:
                cut_off = []
                for number, position in enumerate(waiting):
                    share = deadline.share(1 / (len(waiting) - number))
                    outcome = self._minimise(position, share, process)
                    if self._referee.witness is not None:
                        return
                    if outcome.status is Status.LIMIT:
                        cut_off.append(position)
                waiting = cut_off

    def _minimise(self, position: int, deadline: Deadline, process: HighsProcess) -> Outcome:
        program = self._program(position)
        needed = self._needed(position)
        best = self._best[position]

        def accept(point: Array) -> bool:
            return self._try(position, point[: self._network.n_inputs])

        def report(state: Report) -> None:
            self._tell(max(self._known[position].lower, state["dual_bound"] - needed), self._known[position].upper)

        outcome = minimise(
            program.model,
            deadline,
            process=process,
            threads=self._options.threads,
            start=None if best is None else start(program, best),
            stop_above=needed,
            accept=accept,
            on_progress=report,
            options={**NO_HEURISTICS, **self._options.highs},
        )
        self._counts["milp_runs"] += 1
        self._counts["milp_nodes"] += outcome.nodes
        if outcome.status is Status.INFEASIBLE and not program.has_hard_rows:
            raise SolverError("HiGHS calls a program infeasible that every input of the box satisfies")
        closed = outcome.status is Status.INFEASIBLE or outcome.dual_bound > needed
        if not closed and outcome.point is not None and self._referee.witness is None:
            self._try(position, outcome.point[: self._network.n_inputs])
        # What is told is believed as far as a closing would be.
        self._learn(position, outcome.dual_bound - needed, closed, METHOD, EvidenceLevel.SOLVER)
        return outcome

    def _needed(self, position: int) -> float:
        """What a dual bound has to exceed to be believed; see the head of this file."""
        root = self._roots[position]
        if not math.isfinite(root):
            model = self._program(position).model
            lowest, _ = self._program(position).margins.ranges(
                model.lower[: self._encoding.model.n_columns], model.upper[: self._encoding.model.n_columns]
            )
            root = float(np.abs(lowest).max(initial=0.0))
        return CONFIDENCE * (1.0 + abs(root))

    def _learn(self, position: int, lower: float, closed: bool, method: str, level: EvidenceLevel) -> None:
        known = self._known[position]
        if self._program(position).has_hard_rows:
            # The bound is about points that satisfy the input-only rows; all others have some positive margin.
            lower = min(lower, TINY)
        known = replace(known, lower=max(known.lower, lower))
        self._known[position] = replace(known, closed_by=method, level=level) if closed else known
        self._tell(self._known[position].lower, self._known[position].upper)

    def _try(self, position: int, x: Array) -> bool:
        """Whether x, (n_inputs,), rounded into the box, is a counterexample; remembers the best point."""
        disjunct = self._query.disjuncts[position]
        point = self._query.replay.representable(x, disjunct.lower, disjunct.upper)
        y = self._network.forward(torch.from_numpy(point)[None])[0].cpu().numpy()
        margin = float(np.max(disjunct.constraints.margins(point, y), initial=-np.inf))
        known = self._known[position]
        if margin < known.upper or self._best[position] is None:
            self._known[position] = replace(known, upper=min(margin, known.upper))
            self._best[position] = point
        return margin <= NEARLY and self._referee.judge(position, point)

    def _tell(self, lower: float, upper: float) -> None:
        self._progress(Event(STAGE, lower, upper, len(self._open), "disjuncts"))

    @property
    def _encoding(self) -> Encoding:
        if self._encoded is None:
            disjunct = self._query.disjuncts[0]
            self._encoded = encode(self._network, disjunct.lower, disjunct.upper, self._node_bounds)
        return self._encoded

    def _program(self, position: int) -> MarginProgram:
        if position not in self._programs:
            constraints = self._query.disjuncts[position].constraints
            self._programs[position] = margin_program(self._encoding, constraints)
        return self._programs[position]
