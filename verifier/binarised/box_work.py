"""One box of a query on its way through the stages: what each does is below, their order is in ``pipeline``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.binarised.clusters import close_targets, targets_of
from verifier.binarised.descents import Descents
from verifier.binarised.falsify import Falsifier
from verifier.binarised.lazy import lazy_available, refutation, search_lazily
from verifier.binarised.levels import Lattice
from verifier.binarised.neighbourhoods import Neighbourhoods
from verifier.binarised.patterns import few_enough, search_patterns
from verifier.binarised.portfolio import Portfolio
from verifier.binarised.presolve import Reduced, presolve
from verifier.binarised.query import Box
from verifier.binarised.relaxation import goal_bounds
from verifier.binarised.state import OWN, State
from verifier.deadline import Deadline
from verifier.errors import SoundnessError
from verifier.progress import Event
from verifier.proofs.file import Section, check_section, fingerprint
from verifier.solve.gate_engines import ENGINES, GateAnswer, GateEngine, Task
from verifier.verdict import EvidenceLevel

Integers = NDArray[np.int64]

AUTO = ("exact", "cp-sat", "highs")
"""The engines of ``auto``, in the order in which they are started."""
AUTO_PROOF = ("exact", "cadical", "glucose")
"""Those that write proofs, for the same order when one is asked for."""
EXTRA = ("exact",)
"""Used where they are installed, and not missed where they are not."""
CLUSTER_SHARE, QUANTISED_CLUSTER_SHARE = 0.4, 0.02
"""Of the time left, on real inputs and behind a quantiser, where the engines come afterwards."""
RIGOROUS = EvidenceLevel.RIGOROUS
LAZY_SHARE, LAZY_SHARE_AFTER_SPRINT, LAZY_GATES = 0.1, 0.03, 200
"""Of the time left, for lazy clause learning in ``auto``, where the later layers have no more open gates than this."""
RELAX_SHARE, SPRINT_SHARE = 0.1, 0.05
"""Of the time left, for the linear relaxation and for the engines' first turns."""
TARGET_SHARE, TARGET_SECONDS, TARGET_GROWTH, MOST_ALIVE = 0.95, 1.0, 1.3, 16
"""One disjunct at a time: of the time left, the first budget of each, how it grows, and how many wait for their turn
without being ended."""
CLIMB_TURN, LARGE_CLIMB_TURN, NEAR_TURN, NEAR_SECONDS = 0.2, 1.0, 0.6, 2.0
"""Parts of that budget that the descents and the neighbourhoods get as well; seconds for one of these."""
CLIMB_SECONDS, LARGE_CLIMB_SECONDS = 0.3, 4.0
"""Of local search before the exact engines start."""
TURN, PAUSE = 0.15, 1.0
"""Seconds of attack, and of rest between, in which an engine runs on the same core."""
LARGE, LARGE_TURN = 300, 4.0
"""Gates of a program from which on attacks decide more than engines do, and their turn there."""
CHECK_SECONDS, CHECK_RATE = 3.0, 10_000
"""For a proof's check at least, and its steps per second; mostly there are twice as many."""


class BoxWork:
    """One box on its way through the stages."""

    def __init__(self, state: State, number: int, box: Box) -> None:
        self._state, self._number, self._box = state, number, box
        seeded = replace(state.options.falsify, seed=state.options.seed)
        self._falsifier = Falsifier(box, self._judge, seeded)
        self._reduced: Reduced | None = None
        self._descents: Descents | None = None
        self._near: list[Integers] = []
        self._portfolio: Portfolio | None = None
        self._target_runs: dict[int, tuple[Reduced, Portfolio]] = {}
        self._turn = 0
        self._neighbourhoods = Neighbourhoods(box, state.options.seed)

    def end(self) -> None:
        """End whatever runs."""
        if self._portfolio is not None:
            self._portfolio.end()
        for _, portfolio in self._target_runs.values():
            portfolio.end()
        self._target_runs.clear()

    @property
    def open(self) -> list[int]:
        """Positions of the box's open goals."""
        return [i for i, p in enumerate(self._box.positions) if self._state.bounds[p].level is None]

    def attack(self, deadline: Deadline) -> None:
        """One wave of descents."""
        self._falsifier.descend(np.array(self.open), deadline)
        self._learn()

    def presolve(self, deadline: Deadline) -> None:
        """Close what intervals close; the rest becomes a program."""
        del deadline
        reduced = presolve(self._box, tuple(self.open))
        self._bound(self.open, reduced.bounds[self.open])
        closed = set(self.open) - set(reduced.goals)
        self._close(closed, "integer intervals", EvidenceLevel.RIGOROUS)
        self._reduced = reduced
        if reduced.program is not None:
            self._state.counts["levels"] = len(reduced.program.counts)
            self._state.counts["open gates"] = sum(len(layer) for layer in reduced.program.layers)

    def climb(self, deadline: Deadline) -> None:
        """Descents on the smaller program, from the best points."""
        seconds = LARGE_CLIMB_SECONDS if self._large else CLIMB_SECONDS
        self._climb_until(deadline.within(min(seconds, 0.05 * deadline.remaining)))

    def patterns(self, deadline: Deadline) -> None:
        """Enumerate the sign patterns of a small first layer."""
        reduced = self._reduced
        if self._state.options.engine not in ("auto", "patterns") or reduced is None or reduced.program is None:
            return
        if isinstance(self._box.levels, Lattice):
            return
        options = self._state.options.patterns
        if not few_enough(reduced.program, options):
            return
        # In a portfolio the others get their chance.
        end = deadline.share(0.5) if self._state.options.engine == "auto" else deadline
        outcome = search_patterns(reduced.program, end, options, self._state.progress)
        level = EvidenceLevel.RIGOROUS if outcome.rigorous else EvidenceLevel.SOLVER
        if outcome.answer.sat is False and outcome.rigorous and self._state.options.keep_proof is not None:
            level = self._proved(level, reduced, conflicts=outcome.conflicts, order=outcome.order)
        self._conclude(outcome.answer, "sign patterns", level, reduced)

    def clusters(self, deadline: Deadline) -> None:
        """Close disjuncts of networks whose second layer reads few bits at a time; the program is made anew."""
        reduced, levels = self._reduced, self._box.levels
        if self._state.options.engine != "auto" or self._state.options.keep_proof is not None:
            return
        if reduced is None or reduced.program is None or targets_of(reduced.program) is None:
            return
        if isinstance(levels, Lattice) and levels.ragged:
            return
        rounding = levels.rounding + levels.gap if isinstance(levels, Lattice) else None
        end = deadline.share(CLUSTER_SHARE if rounding is not None else QUANTISED_CLUSTER_SHARE)
        closed = close_targets(reduced.program, end, rounding, None, self._state.progress)
        self._close({goal for goal, done in zip(reduced.goals, closed, strict=True) if done}, "clusters", RIGOROUS)
        if np.any(closed):
            self._shrink()

    def lazy(self, deadline: Deadline) -> None:
        """Clause learning with linear programs for the first layer."""
        reduced, options = self._reduced, self._state.options
        if options.engine not in ("auto", "lazy") or reduced is None or reduced.program is None:
            return
        if isinstance(self._box.levels, Lattice):
            return
        if options.engine == "auto":
            if not lazy_available() or sum(len(layer) for layer in reduced.program.layers[1:]) > LAZY_GATES:
                return
            deadline = deadline.share(LAZY_SHARE if self._portfolio is None else LAZY_SHARE_AFTER_SPRINT)
        outcome = search_lazily(reduced.program, deadline, options.lazy, self._state.progress)
        level = EvidenceLevel.RIGOROUS if outcome.rigorous else EvidenceLevel.SOLVER
        if outcome.answer.sat is False and outcome.rigorous and options.keep_proof is not None:
            # What decided the box may have taken its share of the time; the proof has what is left of all.
            steps = refutation(outcome, options.lazy, self._state.deadline)
            if steps is not None:
                level = self._proved(
                    level, reduced, conflicts=outcome.conflicts, counter=options.lazy.counter, steps=steps
                )
        self._remember(outcome.points)
        self._conclude(outcome.answer, "lazy clauses", level, reduced)

    def sprint(self, deadline: Deadline) -> None:
        """The engines for a moment, where the first of them is the one that decides most; they go on afterwards."""
        if self._state.options.engine != "auto" or not all(ENGINES[name].available for name in EXTRA):
            return
        if not isinstance(self._box.levels, Lattice):
            self.engines(deadline.share(SPRINT_SHARE))

    def engines(self, deadline: Deadline) -> None:
        """The exact engines in processes of their own, in turns with the attack."""
        reduced, options = self._reduced, self._state.options
        if options.engine in OWN or reduced is None or reduced.program is None:
            return
        if isinstance(self._box.levels, Lattice):
            self._state.notes.append("inputs without a quantiser: searched for counterexamples only")
            self._climb_until(deadline)
            return
        if self._portfolio is None:
            self._portfolio = Portfolio(self._chosen(), reduced.program, self._task, options.threads)
        portfolio = self._portfolio
        portfolio.pause(False)
        while not deadline.expired and self._state.witness is None and not portfolio.over:
            for engine, answer in portfolio.poll(deadline.within(PAUSE)):
                if answer.sat is None and not self._state.deadline.expired:
                    self._state.notes.append(f"{engine.name} gave up: {answer.detail}")
                if self._answered(engine, answer, reduced):
                    return
            if not portfolio.over and not deadline.expired:
                portfolio.pause(True)
                self._climb_until(deadline.within(LARGE_TURN if self._large else TURN))
                portfolio.pause(False)
                self._state.progress(Event("engines", open=len(self.open), unit="disjuncts"))
        portfolio.pause(True)

    def relax(self, deadline: Deadline) -> None:
        """Bound every open disjunct by the linear relaxation; close those that it closes."""
        reduced = self._reduced
        if self._state.options.engine in OWN or reduced is None or reduced.program is None:
            return
        if isinstance(self._box.levels, Lattice):
            return
        bounds, points = goal_bounds(reduced, deadline.share(RELAX_SHARE))
        self._remember(points)
        self._bound(reduced.goals, bounds)
        if self._state.options.engine != "auto" or self._state.options.keep_proof is not None:
            # An engine by itself is to be measured, and a proof of the whole box needs no bounds.
            return
        self._close(
            {goal for goal, bound in zip(reduced.goals, bounds, strict=True) if bound < 0}, "relaxation", RIGOROUS
        )
        if np.any(bounds < 0):
            self._shrink()

    def _worth_checking(self, steps: Sequence[str]) -> bool:
        """Whether a proof is wanted, or the answer is safe with the time that its check may take."""
        needed = CHECK_SECONDS + len(steps) / CHECK_RATE
        return self._state.options.keep_proof is not None or 2 * needed < self._state.deadline.remaining

    def targets(self, deadline: Deadline) -> None:
        """The first engine on one disjunct after the other, in rounds with growing budgets.

        A disjunct reads fewer gates than all of them together, and what is closed stays closed.
        """
        options = self._state.options
        if options.engine != "auto" or options.keep_proof is not None or isinstance(self._box.levels, Lattice):
            return
        engines, end, budget = self._chosen()[:1], deadline.share(TARGET_SHARE), TARGET_SECONDS
        if len(self.open) < 2 or not engines:
            return
        while self.open and self._state.witness is None and not end.expired:
            before = len(self.open)
            for goal in sorted(self.open, key=lambda g: -self._state.bounds[self._box.positions[g]].lower):
                if end.expired or self._state.witness is not None:
                    return
                self._one_target(goal, engines, end.within(budget))
                self._climb_until(end.within((LARGE_CLIMB_TURN if self._large else CLIMB_TURN) * budget))
                self._search_near(goal, engines, end.within(NEAR_TURN * budget))
                self._state.progress(Event("targets", open=len(self.open), unit="disjuncts"))
            if self.open and len(self.open) < before:
                self._shrink()
            budget *= TARGET_GROWTH

    def _one_target(self, goal: int, engines: list[GateEngine], deadline: Deadline) -> None:
        """Go on with the run about one goal, or begin it."""
        if goal not in self._target_runs:
            reduced = presolve(self._box, (goal,))
            if reduced.program is None:
                self._close((goal,), "integer intervals", RIGOROUS)
                return
            hint = reduced.levels(self._falsifier.best_point(goal))
            task = Task(self._state.deadline.remaining, hint, self._state.options.seed)
            self._target_runs[goal] = reduced, Portfolio(engines, reduced.program, lambda: task, 1)
        reduced, portfolio = self._target_runs[goal]
        portfolio.pause(False)
        while not portfolio.over and not deadline.expired:
            for engine, answer in portfolio.poll(deadline):
                self._answered(engine, answer, reduced)
        portfolio.pause(True)
        if not portfolio.over and len(self._target_runs) > MOST_ALIVE:
            # Its work is lost, and begun again with a larger budget.
            portfolio.end()
            del self._target_runs[goal]

    def _search_near(self, goal: int, engines: list[GateEngine], deadline: Deadline) -> None:
        """Neighbourhoods of the goal's best points, one after the other."""
        while goal in self.open and self._state.witness is None and not deadline.expired:
            slack = float(self._falsifier.best[goal])
            if not np.isfinite(slack):
                return
            k = self._good_point(goal)
            near = self._neighbourhoods.draw(goal, k, int(slack))
            if near.reduced.program is None:
                self._neighbourhoods.learn(goal, quick=True)
                continue
            task = Task(NEAR_SECONDS, near.hint(k), self._state.options.seed)
            begun = time.monotonic()
            found: bool | None = None
            with Portfolio(engines, near.reduced.program, lambda task=task: task, 1) as portfolio:  # type: ignore[misc]
                end = deadline.within(NEAR_SECONDS)
                while not portfolio.over and not end.expired:
                    for _, answer in portfolio.poll(end):
                        found = answer.sat
                        if answer.levels is not None:
                            better = near.point(answer.levels)
                            self._near.append(better)
                            self._falsifier.consider(better[None])
            self._neighbourhoods.learn(goal, found is not None and time.monotonic() - begun < NEAR_SECONDS / 4)
            self._state.counts["neighbourhoods"] = self._state.counts.get("neighbourhoods", 0) + 1
        self._learn()

    def _good_point(self, goal: int) -> Integers:
        """k (levels,), in turns the best that was seen and one of the others that the descents keep."""
        self._turn += 1
        if self._turn % 2 and self._descents is not None and self._reduced is not None and goal in self._reduced.goals:
            several = self._descents.targets > 1
            levels = self._descents.kept(self._reduced.goals.index(goal) if several else 0)
            if levels is not None:
                return self._reduced.point(levels, self._box.levels.count)
        return self._falsifier.best_point(goal)

    def _answered(self, engine: GateEngine, answer: GateAnswer, reduced: Reduced) -> bool:
        """Whether an engine's answer decides the goals of its program."""
        level = EvidenceLevel.SOLVER
        if answer.steps is not None and self._worth_checking(answer.steps):
            level = self._proved(level, reduced, whole=True, counter=engine.form, steps=answer.steps)
        return self._conclude(answer, engine.name, level, reduced)

    @property
    def _large(self) -> bool:
        program = None if self._reduced is None else self._reduced.program
        return program is not None and sum(len(layer) for layer in program.layers) > LARGE

    def _shrink(self) -> None:
        """The program of the disjuncts that are still open, after some were closed."""
        if self._portfolio is not None:
            self._portfolio.end()
        if self._descents is not None:
            self._remember(self._descents.best)
        self._portfolio, self._descents = None, None
        self._reduced = presolve(self._box, tuple(self.open)) if self.open else None

    def _chosen(self) -> list[GateEngine]:
        """The engines to use, in their order; notes which are not installed."""
        options = self._state.options
        names: tuple[str, ...] = (options.engine,)
        if options.engine == "auto":
            names = AUTO if options.keep_proof is None else (*AUTO_PROOF, *AUTO)
        engines = [ENGINES[name] for name in dict.fromkeys(names)]
        missing = [engine.name for engine in engines if not engine.available and engine.name not in EXTRA]
        if missing:
            self._state.notes.append(
                f"{', '.join(missing)} not installed, install with: pip install 'nn-verifier[bnn]'"
            )
        return [engine for engine in engines if engine.available]

    def _task(self) -> Task:
        options = self._state.options
        hint = None if self._descents is None or not len(self._descents.best) else self._descents.best[0]
        return Task(self._state.deadline.remaining, hint, options.seed, options.keep_proof is not None)

    def _proved(self, level: EvidenceLevel, reduced: Reduced, **parts: Any) -> EvidenceLevel:
        """PROOF where the section made of ``parts`` passes its check, else ``level``."""
        state = self._state
        assert reduced.program is not None
        section = Section(self._number, fingerprint(reduced.program), **parts)
        begun = time.monotonic()
        fault = check_section(section, reduced.program, state.deadline)
        state.counts["seconds of checking the proof"] = round(time.monotonic() - begun, 3)
        if fault:
            state.notes.append(f"the proof was not accepted: {fault}")
            return level
        state.sections[self._number] = section
        return EvidenceLevel.PROOF

    def _conclude(self, answer: GateAnswer, method: str, level: EvidenceLevel, reduced: Reduced) -> bool:
        """Whether an answer decides the goals of its program."""
        if answer.sat is False:
            self._close(reduced.goals, method, level)
            return True
        if answer.sat:
            assert answer.levels is not None
            k = reduced.point(answer.levels, self._box.levels.count)
            if self._judge(k):
                return True
            goals = [self._box.goals[goal] for goal in reduced.goals]
            if all(goal.exact for goal in goals):
                raise SoundnessError(
                    f"{method} found levels that break the property in integers, but onnxruntime does not confirm them"
                )
            self._state.notes.append(f"{method} found a point that only rounding separates from a counterexample")
        return False

    def _climb_until(self, deadline: Deadline) -> None:
        reduced, counts = self._reduced, self._box.levels.count
        if reduced is None or reduced.program is None:
            return
        if self._descents is None:
            self._descents = Descents(reduced.program, self._state.options.seed)
        self._descents.seed([reduced.levels(k) for k in self._near])
        self._near = []
        while not deadline.expired and self._state.witness is None:
            found = self._descents.search(deadline)
            if found is None:
                break
            if self._falsifier.consider(reduced.point(found, counts)[None]) is None:
                self._state.notes.append("the attack found a point that only rounding separates from a counterexample")
                self._descents = Descents(reduced.program, self._falsifier.evaluations)
        self._falsifier.consider(np.array([reduced.point(levels, counts) for levels in self._descents.best]))
        self._learn()

    def _remember(self, points: Iterable[Integers]) -> None:
        """Levels of the program that came near a solution: the next descents start there."""
        assert self._reduced is not None
        self._near += [self._reduced.point(levels, self._box.levels.count) for levels in points]

    def _learn(self) -> None:
        """The best slacks seen are upper bounds on the margins."""
        tried = self._falsifier.evaluations + (0 if self._descents is None else self._descents.evaluations)
        self._state.counts["points tried"] = tried
        for goal, position in enumerate(self._box.positions):
            unit, slack = self._box.goals[goal].unit, float(self._falsifier.best[goal])
            if unit > 0:
                bound = self._state.bounds[position]
                self._state.bounds[position] = replace(bound, upper=min(bound.upper, -unit * slack))

    def _judge(self, k: Integers) -> bool:
        witness = self._state.query.judge(self._box.levels.point(k))
        if witness is None:
            return False
        closed = self._state.bounds[witness.disjunct]
        if closed.level is not None:
            raise SoundnessError(
                f"disjunct {witness.disjunct} was closed by {closed.closed_by} "
                "but onnxruntime confirms a counterexample to it"
            )
        self._state.witness = witness
        return True

    def _bound(self, goals: Sequence[int], slacks: Integers) -> None:
        """No point has a slack above these."""
        for goal, slack in zip(goals, slacks.tolist(), strict=True):
            unit, position = self._box.goals[goal].unit, self._box.positions[goal]
            if unit > 0:
                bound = self._state.bounds[position]
                self._state.bounds[position] = replace(bound, lower=max(bound.lower, -unit * (slack + 1)))

    def _close(self, goals: object, method: str, level: EvidenceLevel) -> None:
        self._state.close(tuple(self._box.positions[goal] for goal in goals), method, level)  # type: ignore[attr-defined]
