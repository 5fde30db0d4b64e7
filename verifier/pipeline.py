"""The order of the stages: this page is the data flow of one query, in code.

    bound       intervals and CROWN close what is easy, rigorously
    attack      a gradient attack looks for a counterexample; onnxruntime confirms it
    split       dense networks with few inputs: branch and bound on the input box, rigorously
    branch      branch and bound on ReLU phases, and on the box of other networks with few inputs, rigorously, in turns
                with the attack
    milp        what is still open: bounds tightened neuron by neuron, then a big-M MILP per open disjunct

Every stage sees only the disjuncts that are still open, gets a deadline, and hands on what it learned: better
bounds on the margins, and the best points seen.  No stage calls another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.bounds.alpha_crown import AlphaOptions, optimised_bounds
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.level import Bounds, Level
from verifier.bounds.margins import BoxGroup, GroupBounds, group_by_box, margin_bounds
from verifier.bounds.reduce import without_inactive
from verifier.conclusion import conclude
from verifier.deadline import Deadline
from verifier.falsify.attack import AttackOptions, attack
from verifier.memory import DEFAULT_SHARE, give_back, machine_bytes, resident_bytes
from verifier.model.network import Network
from verifier.options import Trust
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.search.box_split import BoxOptions, BoxSplitting
from verifier.search.box_split import applicable as splits_boxes
from verifier.search.candidates import root_of
from verifier.search.evidence_log import BranchLog, EvidenceLog
from verifier.search.input_split import METHOD as INPUT_SPLITTING
from verifier.search.input_split import InputSplitting, SplitOptions, applicable
from verifier.search.mip import MipOptions
from verifier.search.mip import solve as solve_mip
from verifier.search.outcome import SearchOutcome
from verifier.search.refining_split import RefineOptions, RefiningSplitting
from verifier.search.relu_split import BranchOptions, ReluSplitting
from verifier.search.tighten import TightenOptions, tighten
from verifier.search.turns import FIRST_TURN, Search, alternate, attack_seconds
from verifier.verdict import (
    DisjunctBounds,
    EvidenceLevel,
    Result,
    SearchStatistics,
    Statistics,
    Witness,
)

Array = NDArray[np.float64]

BOUND_SHARE = 0.6
"""Of the time left, for the first bounds: an attack shall have its chance on large networks too."""
ATTACKED_BOXES = 16
FIRST_WAVES, SPLIT_ATTACK = 1, (0.5, 1.0)
"""Where the box can be split the first attack is short: splitting may close all in less time.  Later ones are long
at first, because on such small networks they find within a second what is hard to find (ACAS Xu 1_9 prop_7)."""
SPLIT_SHARE_SMALL, FEW_UNDECIDED = 0.3, 60
"""Of the time left, for input splitting where no more ReLUs than this are undecided; beyond it gets all."""
EARLY_SHARE = 0.2
"""Of the time for branching, before bounds are optimised, where boxes of few inputs can be split."""
OPTIMISE_SHARE = 0.25
"""Of the time for branching, for alpha-CROWN on the pre-activation bounds."""
BRANCH_SHARE, BRANCH_SHARE_LARGE = 0.6, 0.95
"""Of the time left, for branch and bound on ReLU phases; the MILP has the rest.  Beyond ``MANY_UNDECIDED`` ReLUs
a MILP hardly ever ends in time, and branch and bound gets nearly all."""
MANY_UNDECIDED = 200
MANY_WAVES = 10**6
"""The deadline ends the attack."""

LEAST_ROOM = 2**26
"""Bytes that a frontier may always have, however little memory is left."""
KEPT_BYTES = 2**28
"""Node bounds of open boxes are kept for later stages up to this size, and recomputed beyond it."""


@dataclass(frozen=True)
class Options:
    """device: "cpu" or "cuda" for attacks and first bounds; closings are always checked on the CPU.

    threads: for torch, HiGHS and searches side by side.  seed: makes a run repeatable.
    memory: bytes that a run should stay within; None for ``memory.DEFAULT_SHARE`` of the machine.
    evidence: where to write what a checker needs to replay the run; None for nowhere, which costs nothing.
    The rest are the options of single stages.
    """

    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    trust: Trust = Trust.SOLVER
    memory: int | None = None
    evidence: Path | None = None
    attack: AttackOptions = field(default_factory=AttackOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    alpha: AlphaOptions = field(default_factory=AlphaOptions)
    branch: BranchOptions = field(default_factory=BranchOptions)
    refine: RefineOptions = field(default_factory=RefineOptions)
    boxes: BoxOptions = field(default_factory=BoxOptions)
    tighten: TightenOptions = field(default_factory=TightenOptions)
    mip: MipOptions = field(default_factory=MipOptions)
    stages: tuple[str, ...] = ("bound", "attack", "split", "branch", "milp")
    """Which stages run, in this order; leave some out to study the others."""


@dataclass(eq=False)
class State:
    """What is known so far; one entry of each list per disjunct of the whole query."""

    query: Query
    deadline: Deadline
    options: Options
    progress: Progress
    bounds: list[DisjunctBounds]
    points: list[Array | None]
    witness: Witness | None = None
    nodes: dict[int, GroupBounds] = field(default_factory=dict)
    better: dict[int, tuple[Network, tuple[Bounds, ...]]] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    searches: dict[str, SearchStatistics] = field(default_factory=dict)
    interrupted: bool = False
    log: EvidenceLog | None = None

    @property
    def open(self) -> list[int]:
        """Positions of the disjuncts that are neither closed nor satisfied."""
        return [i for i, bound in enumerate(self.bounds) if bound.level is None]

    @property
    def decided(self) -> bool:
        return self.witness is not None or not self.open

    def learn(self, position: int, found: DisjunctBounds) -> None:
        """Merge bounds of one disjunct; a stage's word never makes them worse."""
        known = self.bounds[position]
        if known.level is not None:
            return
        self.bounds[position] = replace(found, lower=max(known.lower, found.lower), upper=min(known.upper, found.upper))

    def count(self, name: str, amount: float) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def searched(self, method: str, work: SearchStatistics) -> None:
        self.searches[method] = self.searches.get(method, SearchStatistics()).then(work)

    @property
    def room(self) -> int:
        """Bytes for a stage's own use: half of what the memory limit leaves, and never too little to work."""
        limit = self.options.memory or int(DEFAULT_SHARE * machine_bytes())
        return max(LEAST_ROOM, (limit - resident_bytes()) // 2)


def solve(
    query: Query,
    deadline: Deadline,
    options: Options | None = None,
    progress: Progress = silent,
) -> Result:
    """Decide the query within the deadline.

    The network must be in float64 on the CPU.  Ctrl-C ends the run with what is known so far.
    Raises SoundnessError when two of our own results contradict each other.
    """
    options = options or Options()
    count = len(query.disjuncts)
    state = State(query, deadline, options, progress, [DisjunctBounds()] * count, [None] * count)
    if options.evidence is not None:
        state.log = EvidenceLog(query)
    started = time.monotonic()
    stages: dict[str, Callable[[State], None]] = {
        "bound": _bound,
        "attack": _attack,
        "split": _split,
        "branch": _branch,
        "milp": _milp,
    }
    try:
        for name in options.stages:
            if state.decided or deadline.expired:
                break
            begun = time.monotonic()
            try:
                stages[name](state)
            finally:
                state.stages[name] = time.monotonic() - begun
    except KeyboardInterrupt:
        state.interrupted = True
    statistics = Statistics(time.monotonic() - started, state.stages, state.counts, state.searches)
    result = conclude(
        state.witness, tuple(state.bounds), statistics, options.trust, state.interrupted, state.deadline.expired
    )
    if state.log is None or options.evidence is None:
        return result
    return replace(result, recorded=state.log.save(options.evidence, result))


def _bound(state: State) -> None:
    """Close disjuncts by CROWN.  On a GPU the bounds are estimates; what they would close is redone on the CPU."""
    query, options = state.query, state.options
    deadline = state.deadline.share(BOUND_SHARE)
    candidates = state.open
    if options.device != "cpu":
        estimates = margin_bounds(query.network.to(torch.float64, options.device), query.disjuncts, deadline)
        candidates = [
            group.group.positions[i] for group in estimates for i, margin in enumerate(group.margins) if margin > 0
        ]
    kept = 0
    open_query = query.restricted(candidates)
    # Recorded searches rest on bounds that the checker knows how to repeat.
    for group in margin_bounds(query.network, open_query.disjuncts, deadline, forms=state.log is None):
        for position, margin in zip(group.group.positions, group.margins, strict=True):
            closed = margin > 0 and group.level is Level.RIGOROUS
            level, method = (EvidenceLevel.RIGOROUS, group.method) if closed else (None, "")
            state.learn(candidates[position], DisjunctBounds(margin, closed_by=method, level=level))
        still_open = [candidates[p] for p in group.group.positions if candidates[p] in state.open]
        size = 2 * sum(bound.lower.numel() * 8 for bound in group.nodes)
        # Bounds that the deadline cut short are made anew when they are needed.
        if still_open and kept + size <= KEPT_BYTES and not deadline.expired:
            kept += size
            state.nodes.update(dict.fromkeys(still_open, group))
        state.progress(_event(state, "bound"))


def _attack(state: State) -> None:
    """Look for a counterexample with the default effort; keep the best points for the MILP."""
    positions = state.open
    query = state.query.restricted(positions)
    stages = state.options.stages
    few = "split" in stages and applicable(query, state.options.split)
    few |= "branch" in stages and splits_boxes(query, state.options.boxes)
    waves = FIRST_WAVES if few else None
    outcome = attack(query, state.deadline, _attack_options(state, state.options.seed, waves), state.progress)
    state.witness = outcome.witness
    for position, point, margin in zip(positions, outcome.points, outcome.margins, strict=True):
        state.points[position] = point
        state.learn(position, DisjunctBounds(upper=float(margin)))


def _split(state: State) -> None:
    """Branch and bound on the input box where it has few dimensions, in turns with attacks inside the worst boxes."""
    positions = state.open
    query = state.query.restricted(positions)
    if not applicable(query, state.options.split):
        return
    search = InputSplitting(query, state.options.split, state.progress, state.log)
    turn = FIRST_TURN
    seed = state.options.seed
    # Conjunctions that fail by a hair need ever smaller boxes; with few ReLUs the later stages decide them at once.
    end = state.deadline.share(SPLIT_SHARE_SMALL if _undecided(state) <= FEW_UNDECIDED else 1.0)
    visited = 0
    while not state.decided and not end.expired and not search.exhausted:
        begun = time.monotonic()
        outcome = search.work(end.within(turn))
        state.witness = outcome.witness
        work = SearchStatistics(time.monotonic() - begun, outcome.regions - visited, outcome.open)
        state.searched(INPUT_SPLITTING, work)
        visited = outcome.regions
        for position, bound in zip(positions, outcome.bounds, strict=True):
            state.learn(position, bound)
        if state.decided or search.exhausted:
            return
        seed += 1
        state.witness = _attack_inside(state, query, search, seed, end.within(attack_seconds(turn, *SPLIT_ATTACK)))
        turn *= 2


def _attack_inside(state: State, query: Query, search: InputSplitting, seed: int, deadline: Deadline) -> Witness | None:
    """Attack the whole boxes once more, and the open boxes where the bound is worst."""
    whole = query.restricted([p for p in range(len(query.disjuncts)) if query.indices[p] in state.open])
    worst = search.worst_boxes(ATTACKED_BOXES)
    inner = query.restricted([position for position, _, _ in worst])
    boxes = [replace(d, lower=lower, upper=upper) for d, (_, lower, upper) in zip(inner.disjuncts, worst, strict=True)]
    inner = replace(inner, spec=replace(inner.spec, disjuncts=tuple(boxes)))
    for target, share in ((whole, 0.75), (inner, 1.0)):
        options = _attack_options(state, seed, MANY_WAVES)
        witness = attack(target, deadline.share(share), options, state.progress).witness
        if witness is not None:
            return witness
    return None


def _branch(state: State) -> None:
    """Branch and bound on ReLU phases, box by box, for part of the time: the MILP gets the rest."""
    positions = state.open
    groups = group_by_box([state.query.disjuncts[p] for p in positions])
    end = state.deadline.share(BRANCH_SHARE if _undecided(state) <= MANY_UNDECIDED else BRANCH_SHARE_LARGE)
    for number, group in enumerate(groups):
        if state.witness is not None or end.expired:
            return
        own = [positions[p] for p in group.positions]
        _branch_box(state, own, group, end.share(1 / (len(groups) - number)))


@dataclass(eq=False)
class _Ledger:
    """What the searches over one box find, for the disjuncts at positions ``own`` of the state; ``views``: other
    positions, by the method of the search that has these."""

    state: State
    own: list[int]
    views: dict[str, list[int]] = field(default_factory=dict)
    attacks: int = 0

    def closed(self, method: str) -> list[int]:
        own = self.views.get(method, self.own)
        return [i for i, p in enumerate(own) if self.state.bounds[p].level is not None]

    @property
    def decided(self) -> bool:
        return self.state.witness is not None or all(self.state.bounds[p].level is not None for p in self.own)

    def learn(self, method: str, outcome: SearchOutcome, work: SearchStatistics) -> None:
        self.state.witness = self.state.witness or outcome.witness
        self.state.searched(method, work)
        for position, bound in zip(self.views.get(method, self.own), outcome.bounds, strict=True):
            self.state.learn(position, bound)

    def attack(self, deadline: Deadline) -> None:
        state = self.state
        self.attacks += 1
        still = [p for p in self.own if state.bounds[p].level is None]
        options = _attack_options(state, state.options.seed + self.attacks, MANY_WAVES)
        state.witness = attack(state.query.restricted(still), deadline, options, state.progress).witness


def _branch_box(state: State, own: list[int], group: BoxGroup, deadline: Deadline) -> None:
    """One box: a short turn with the bounds at hand, then with optimised ones two searches in turns with attacks.

    Where few inputs vary splitting the box takes part, and has more time before bounds are optimised.
    """
    options, ledger = state.options, _Ledger(state, own, {INPUT_SPLITTING: own})
    whole = _nodes(state, own, group, deadline)
    network, nodes = without_inactive(state.query.network, whole)
    query = replace(state.query.restricted(own), network=network)
    branching = replace(options.branch, frontier_bytes=state.room // 2)
    log = BranchLog(state.log, own, state.query.network, whole, network, nodes)
    plain = ReluSplitting(query, nodes, branching, state.progress, log.leaves(own))
    boxing = replace(options.boxes, frontier_bytes=state.room // 3)
    # What the compiled search took was its alone.
    few = not applicable(state.query.restricted(own), options.split) and splits_boxes(query, boxing)
    tree = state.log.tree(own) if few and state.log is not None else None
    boxes = [BoxSplitting(query, nodes, boxing, state.progress, tree)] if few else []
    early = deadline.share(EARLY_SHARE) if boxes else deadline.within(FIRST_TURN)
    alternate([*boxes, plain], ledger, early, options.threads)
    if ledger.decided or plain.exhausted or deadline.expired:
        return
    del plain  # and the memory of its matrices and regions
    ledger.attack(deadline.within(attack_seconds(FIRST_TURN)))
    if ledger.decided:
        return
    ledger.own = [p for p in own if state.bounds[p].level is None]
    state.progress(Event("optimising bounds", open=len(ledger.own), unit="disjuncts"))
    better = optimised_bounds(network, nodes, deadline.share(OPTIMISE_SHARE), options.alpha, log.visit)
    give_back()
    log.optimised(network, better)
    network, nodes = without_inactive(network, better.nodes)
    state.better.update(dict.fromkeys(ledger.own, (network, nodes)))
    query = replace(state.query.restricted(ledger.own), network=network)
    refine = replace(options.refine, frontier_bytes=state.room // 2)
    root, progress = root_of(query, nodes), state.progress
    searches: list[Search] = [
        RefiningSplitting(query, nodes, better.slopes, refine, progress, log.regions(ledger.own), root),
        ReluSplitting(query, nodes, branching, progress, log.leaves(ledger.own), root),
        *(search for search in boxes if not search.exhausted),
    ]
    alternate(searches, ledger, deadline, options.threads)


def _milp(state: State) -> None:
    """Tighten bounds and solve one MILP per open disjunct, box by box."""
    positions = state.open
    groups = group_by_box([state.query.disjuncts[p] for p in positions])
    for number, group in enumerate(groups):
        if state.witness is not None or state.deadline.expired:
            return
        own = [positions[p] for p in group.positions]
        deadline = state.deadline.share(1 / (len(groups) - number))
        network, nodes = without_inactive(state.query.network, _nodes(state, own, group, deadline))
        if own[0] in state.better:
            network, nodes = state.better[own[0]]
        query = replace(state.query.restricted(own), network=network)
        # HiGHS works in a process of its own, and this one waits.
        tightening = replace(state.options.tighten, threads=state.options.threads, most_bytes=2 * state.room)
        tighter, counts = tighten(query.network, group.lower, group.upper, nodes, deadline, tightening, state.progress)
        options = replace(state.options.mip, threads=state.options.threads, most_bytes=2 * state.room)
        starts = [state.points[p] for p in own]
        outcome = solve_mip(query, tighter, deadline, options, starts, state.progress)
        state.witness = outcome.witness
        for name, amount in {**counts, **outcome.counts}.items():
            state.count(name, amount)
        for position, bound in zip(own, outcome.bounds, strict=True):
            state.learn(position, bound)


def _undecided(state: State) -> int:
    """How many ReLUs are undecided over the box of the first open disjunct."""
    positions = state.open
    group = group_by_box([state.query.disjuncts[p] for p in positions])[0]
    nodes = _nodes(state, [positions[p] for p in group.positions], group, state.deadline.share(BOUND_SHARE))
    network = state.query.network
    return sum(int(nodes[network.nodes[k].inputs[0]].unstable.sum()) for k in network.relus)


def _nodes(state: State, own: list[int], group: BoxGroup, deadline: Deadline) -> tuple[Bounds, ...]:
    """Rigorous bounds on all nodes over one box, as kept from the first stage or made anew."""
    if own[0] in state.nodes:
        return state.nodes[own[0]].nodes
    lower, upper = torch.as_tensor(group.lower)[None], torch.as_tensor(group.upper)[None]
    return intermediate_bounds(state.query.network, lower, upper, deadline)


def _attack_options(state: State, seed: int, waves: int | None = None) -> AttackOptions:
    options = replace(state.options.attack, seed=seed, device=state.options.device)
    return options if waves is None else replace(options, waves=waves)


def _event(state: State, stage: str) -> Event:
    still = state.open
    lower = min((state.bounds[p].lower for p in still), default=None)
    return Event(stage, lower=lower, open=len(still), unit="disjuncts")
