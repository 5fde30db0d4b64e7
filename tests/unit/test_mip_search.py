"""What the MILP search concludes from what HiGHS and onnxruntime say."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch

from support import networks
from support.planted import disjunct
from support.replay import TorchReplay
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.interval import interval_bounds
from verifier.bounds.level import Bounds, Level
from verifier.deadline import Deadline
from verifier.errors import SolverError
from verifier.model.network import Network, build
from verifier.model.operators import Input, Linear, Relu
from verifier.progress import Event
from verifier.query import Query
from verifier.search import mip
from verifier.search.mip import MipOptions, MipOutcome
from verifier.solve.outcome import Outcome, Status
from verifier.verdict import EvidenceLevel
from verifier.vnnlib.spec import Disjunct, Spec


class Shifted(TorchReplay):
    """A replay whose outputs are all larger than the network's, as rounding might make them."""

    def __init__(self, network: Network, shift: float) -> None:
        super().__init__(network)
        self.shift = shift

    def run(self, x: np.ndarray) -> np.ndarray:
        return super().run(x) + self.shift


def tent() -> Network:
    """|x| - 1 as two ReLUs: its smallest value on a box around 0 is -1, the relaxation's is lower."""

    def linear(weight: list[list[float]], bias: list[float]) -> Linear:
        return Linear(torch.tensor(weight, dtype=torch.float64), torch.tensor(bias, dtype=torch.float64))

    # The second copy, negated and shifted back, makes the relaxation loose.
    nodes = [
        (Input((1, 1)), ()),
        (linear([[1.0], [-1.0], [1.0]], [0.0, 0.0, 0.0]), (0,)),
        (Relu(), (1,)),
        (linear([[1.0, 1.0, -0.5]], [-1.0]), (2,)),
    ]
    return build(nodes, "tent")


LOW, HIGH = np.array([-2.0]), np.array([2.0])
LEAST = -1.0
"""At 0; x - 0.5 x - 1 grows on the right and -x - 1 on the left."""


def bounds_of(network: Network, lower: np.ndarray, upper: np.ndarray) -> tuple[Bounds, ...]:
    return intermediate_bounds(network, torch.from_numpy(lower)[None], torch.from_numpy(upper)[None], Deadline.never())


def below(*thresholds: float, strict: bool = False) -> tuple[Disjunct, ...]:
    """The tent's output is at most the threshold, for each of them."""
    return tuple(disjunct(LOW, HIGH, [1.0], t, strict=strict) for t in thresholds)


def solved(*disjuncts: Disjunct, replay: TorchReplay | None = None, **settings: object) -> MipOutcome:
    network = tent()
    query = Query.of(network, Spec(1, 1, disjuncts), replay or TorchReplay(network))
    return mip.solve(query, bounds_of(network, LOW, HIGH), Deadline.after(20), **settings)  # type: ignore[arg-type]


def test_sat_and_unsat() -> None:
    outcome = solved(*below(LEAST - 0.1))
    assert outcome.witness is None
    assert outcome.bounds[0].level is EvidenceLevel.SOLVER
    assert outcome.bounds[0].closed_by == "milp"
    assert 0 < outcome.bounds[0].lower <= 0.1 + 1e-6
    outcome = solved(*below(LEAST - 0.1, LEAST + 0.01))
    assert outcome.witness is not None
    assert outcome.witness.disjunct == 1
    assert outcome.witness.margin <= 0
    assert abs(outcome.witness.x[0]) <= 0.02


def test_what_the_relaxation_closes_is_rigorous() -> None:
    outcome = solved(*below(-10.0))
    assert outcome.bounds[0].level is EvidenceLevel.RIGOROUS
    assert outcome.bounds[0].closed_by == "lp"
    assert outcome.counts["milp_runs"] == 0


def test_bounds_on_trust_close_at_solver_level() -> None:
    network = tent()
    query = Query.of(network, Spec(1, 1, below(-10.0)), TorchReplay(network))
    bounds = [dataclasses.replace(b, level=Level.TRUSTED) for b in bounds_of(network, LOW, HIGH)]
    assert mip.solve(query, bounds, Deadline.after(20)).bounds[0].level is EvidenceLevel.SOLVER


@pytest.mark.parametrize("strict", [False, True])
def test_a_margin_too_close_to_zero_is_no_proof(strict: bool) -> None:
    outcome = solved(*below(LEAST - 1e-7, strict=strict))
    assert outcome.witness is None
    assert outcome.bounds[0].level is None
    # What HiGHS says, less what it may be wrong by.
    assert -3e-5 <= outcome.bounds[0].lower <= 0


def test_strict_rows_at_the_minimum() -> None:
    """Not strictly below: no witness, and no proof either."""
    outcome = solved(*below(LEAST, strict=True))
    assert outcome.witness is None
    assert outcome.bounds[0].level is None
    assert solved(*below(LEAST)).witness is not None


def test_a_candidate_that_replay_refutes_is_no_witness() -> None:
    network = tent()
    outcome = solved(*below(LEAST + 0.01), replay=Shifted(network, 0.05))
    assert outcome.witness is None
    assert outcome.bounds[0].level is None, "the network as HiGHS sees it does reach the threshold"
    assert outcome.bounds[0].upper <= 0


def test_the_search_goes_on_to_a_candidate_that_replay_confirms() -> None:
    network = tent()
    outcome = solved(*below(LEAST + 0.06), replay=Shifted(network, 0.05))
    assert outcome.witness is not None
    assert abs(outcome.witness.x[0]) <= 0.021


def test_starts_give_the_upper_bound() -> None:
    outcome = solved(*below(LEAST - 0.1, LEAST - 0.2), starts=[np.array([0.1]), None])
    assert outcome.bounds[0].upper <= 0.15 + 1e-9
    confirmed = solved(*below(0.0), starts=[np.array([0.5])])
    assert confirmed.witness is not None
    assert confirmed.counts["lp_runs"] == 0


def test_input_rows_leave_only_a_sign() -> None:
    """Points that break them have positive margins of any size, so no larger bound would be true."""
    impossible = disjunct(LOW, HIGH, [[0.0], [1.0]], [-1.0, LEAST - 0.5], inputs=[[1.0], [0.0]])
    outcome = solved(impossible)
    assert outcome.bounds[0].level is not None
    assert 0 < outcome.bounds[0].lower < 1e-300
    empty = disjunct(LOW, HIGH, [[0.0], [1.0]], [-2.5, 100.0], inputs=[[1.0], [0.0]])
    outcome = solved(empty)
    assert outcome.bounds[0].level is not None
    assert 0 < outcome.bounds[0].lower < 1e-300
    touched = disjunct(LOW, HIGH, [[0.0], [1.0]], [-0.5, LEAST + 0.55], inputs=[[1.0], [0.0]])
    outcome = solved(touched)
    assert outcome.witness is not None
    assert outcome.witness.x[0] <= -0.5


def test_no_rows_and_no_disjuncts() -> None:
    anything = Disjunct(
        LOW,
        HIGH,
        dataclasses.replace(
            below(0.0)[0].constraints,
            inputs=np.zeros((0, 1)),
            outputs=np.zeros((0, 1)),
            bounds=np.zeros(0),
            strict=np.zeros(0, bool),
        ),
    )
    assert solved(anything).witness is not None
    assert solved().bounds == ()


def test_programs_that_cannot_be_written_down_are_left_open() -> None:
    outcome = solved(*below(LEAST - 0.1), options=MipOptions(most_unstable=2))
    assert outcome.bounds[0].level is None
    assert outcome.counts["lp_runs"] == 0
    network = tent()
    query = Query.of(network, Spec(1, 1, below(LEAST - 0.1)), TorchReplay(network))
    bounds = list(bounds_of(network, LOW, HIGH))
    bounds[1] = Bounds(torch.full_like(bounds[1].lower, -torch.inf), bounds[1].upper, Level.RIGOROUS)
    assert mip.solve(query, bounds, Deadline.after(20)).bounds[0].level is None


def test_no_time() -> None:
    network = tent()
    query = Query.of(network, Spec(1, 1, below(LEAST - 0.1)), TorchReplay(network))
    outcome = mip.solve(query, bounds_of(network, LOW, HIGH), Deadline.after(0))
    assert outcome.witness is None
    assert outcome.bounds[0].level is None


def test_an_infeasible_program_that_cannot_be_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Outcome(Status.INFEASIBLE, np.inf, np.inf, None, 0, 0.0)
    monkeypatch.setattr(mip, "minimise", lambda *_, **__: answer)
    with pytest.raises(SolverError, match="infeasible"):
        solved(*below(LEAST - 0.1))


def test_a_limit_is_no_answer_and_gets_another_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []

    def minimise(*_: object, **__: object) -> Outcome:
        turns.append(time.monotonic())
        if len(turns) < 5:
            return Outcome(Status.LIMIT, np.inf, -0.5, None, 3, 0.1)
        return Outcome(Status.BOUND, np.inf, 0.05, None, 3, 0.1)

    monkeypatch.setattr(mip, "minimise", minimise)
    outcome = solved(*below(LEAST - 0.1, LEAST - 0.11))
    assert len(turns) == 6
    assert all(bound.level is EvidenceLevel.SOLVER for bound in outcome.bounds)
    assert outcome.counts["milp_nodes"] == 18


def test_failures_are_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mip, "minimise", lambda *_, **__: Outcome(Status.FAILED, np.inf, -np.inf, None, 0, 0.1))
    outcome = solved(*below(LEAST - 0.1))
    assert outcome.bounds[0].level is None


def test_progress_tells_the_bounds() -> None:
    events: list[Event] = []
    solved(*below(LEAST - 0.1), progress=events.append)
    assert events
    assert events[-1].stage == mip.STAGE
    assert events[-1].open == 0
    assert events[-1].lower is not None
    assert events[-1].lower > 0


def test_the_deadline_is_obeyed() -> None:
    """A program whose presolve alone takes longer than this."""
    rng = np.random.default_rng(0)
    network = networks.dense(rng, (60, 120, 120, 120, 120, 1))
    lower, upper = -np.ones(60), np.ones(60)
    query = Query.of(network, Spec(60, 1, (disjunct(lower, upper, [1.0], -50.0),)), TorchReplay(network))
    bounds = interval_bounds(network, torch.from_numpy(lower)[None], torch.from_numpy(upper)[None])
    begun = time.monotonic()
    outcome = mip.solve(query, bounds, Deadline.after(2.0))
    assert time.monotonic() - begun < 3.0
    assert outcome.bounds[0].level is None
