"""The mixed-integer programs against exhaustive enumeration of activation patterns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from support import networks
from support.oracle import minimum_margin
from support.replay import TorchReplay
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.interval import interval_bounds
from verifier.bounds.level import Bounds, Level
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import encode
from verifier.encodings.milp.margin import margin_program
from verifier.model.network import Network, build
from verifier.query import Query
from verifier.search import mip
from verifier.search.tighten import TightenOptions, tighten
from verifier.solve.highs import minimise
from verifier.solve.outcome import Status
from verifier.verdict import EvidenceLevel
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

NETWORKS: dict[str, Callable[[np.random.Generator], Network]] = {
    "dense": lambda rng: networks.dense(rng, (2, 6, 5, 2)),
    "residual": lambda rng: networks.residual(rng, 3, 2),
    "convolutional": lambda rng: networks.convolutional(rng, 2),
}
TOLERANCE = 2e-5
"""Above the tolerances of HiGHS, 1e-6, times the few layers of these networks."""

Case = tuple[Network, np.ndarray, np.ndarray]


@pytest.fixture(params=[(kind, seed) for kind in NETWORKS for seed in range(6)], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    kind, seed = request.param
    rng = np.random.default_rng(100 + seed)
    network = NETWORKS[kind](rng)
    return network, *networks.box(rng, network.n_inputs, 0.2 + 0.2 * seed)


def bounds_of(case: Case, crown: bool = True) -> tuple[Bounds, ...]:
    network, lower, upper = case
    box = torch.from_numpy(lower)[None], torch.from_numpy(upper)[None]
    return intermediate_bounds(network, *box, Deadline.never()) if crown else interval_bounds(network, *box)


def constraints_of(case: Case) -> dict[str, LinearConstraints]:
    """One row, a conjunction, a row over inputs and outputs, and input-only rows, near the centre's values."""
    network, lower, upper = case
    rng = np.random.default_rng(5)
    n, k = network.n_inputs, network.n_outputs
    centre = (lower + upper) / 2
    y = network.forward(torch.from_numpy(centre)[None])[0].numpy()

    def rows(inputs: np.ndarray | None, outputs: np.ndarray) -> LinearConstraints:
        count = len(outputs)
        full = np.broadcast_to(0.0, (count, n)) if inputs is None else inputs
        values = outputs @ y + (0.0 if inputs is None else inputs @ centre)
        return LinearConstraints(full, outputs, values - 0.2 * rng.random(count), np.zeros(count, bool))

    none = np.zeros((1, k))
    return {
        "one row": rows(None, rng.normal(size=(1, k))),
        "conjunction": rows(None, rng.normal(size=(3, k))),
        "mixed row": rows(rng.normal(size=(1, n)), rng.normal(size=(1, k))),
        "input constraint": rows(
            np.vstack([rng.normal(size=(1, n)), np.zeros((1, n))]), np.vstack([none, rng.normal(size=(1, k))])
        ),
        "everything": rows(
            np.vstack([rng.normal(size=(2, n)), np.zeros((1, n))]), np.vstack([none, rng.normal(size=(2, k))])
        ),
    }


KINDS = ("one row", "conjunction", "mixed row", "input constraint", "everything")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crown", [False, True], ids=["interval", "crown"])
def test_the_optimum_is_the_smallest_margin(case: Case, kind: str, crown: bool) -> None:
    network, lower, upper = case
    constraints = constraints_of(case)[kind]
    truth, _ = minimum_margin(network, Disjunct(lower, upper, constraints))
    program = margin_program(encode(network, lower, upper, bounds_of(case, crown)), constraints)
    outcome = minimise(program.model, Deadline.after(30), options={"mip_rel_gap": 0.0})
    if truth > 0 and program.has_hard_rows:
        # The points that the oracle counts as well may break a hard row by a little.
        assert outcome.status is Status.INFEASIBLE or outcome.objective >= truth - TOLERANCE
        return
    assert outcome.status is Status.OPTIMAL
    assert outcome.objective == pytest.approx(truth, abs=TOLERANCE)
    assert outcome.dual_bound <= truth + TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_decides(case: Case, kind: str) -> None:
    """Just above and just below the smallest margin."""
    network, lower, upper = case
    constraints = constraints_of(case)[kind]
    for shift in (-1e-3, 1e-3):
        # Moving output rows only keeps the input-only rows where they are.
        bounds = constraints.bounds + 0.0
        moved = LinearConstraints(constraints.inputs, constraints.outputs, bounds, constraints.strict)
        truth, _ = minimum_margin(network, Disjunct(lower, upper, moved))
        moved = LinearConstraints(constraints.inputs, constraints.outputs, bounds + truth + shift, constraints.strict)
        disjunct = Disjunct(lower, upper, moved)
        query = Query.of(network, Spec(network.n_inputs, network.n_outputs, (disjunct,)), TorchReplay(network))
        outcome = mip.solve(query, bounds_of(case), Deadline.after(30))
        (known,) = outcome.bounds
        assert known.lower <= -shift + TOLERANCE
        if shift > 0:
            assert outcome.witness is not None
            assert disjunct.holds_exactly(outcome.witness.x, outcome.witness.y)
            assert outcome.witness.disjunct == 0
            assert known.level is None
        else:
            assert outcome.witness is None
            assert known.level is not None
            assert known.upper >= -shift - TOLERANCE


def test_many_disjuncts_at_once(case: Case) -> None:
    network, lower, upper = case
    disjuncts = tuple(Disjunct(lower, upper, rows) for rows in constraints_of(case).values())
    truths = [minimum_margin(network, disjunct)[0] for disjunct in disjuncts]
    query = Query.of(network, Spec(network.n_inputs, network.n_outputs, disjuncts), TorchReplay(network))
    impossible = query.restricted([i for i, truth in enumerate(truths) if truth > 1e-3])
    outcome = mip.solve(impossible, bounds_of(case), Deadline.after(30))
    assert outcome.witness is None
    assert all(bound.level is not None for bound in outcome.bounds)
    if min(truths) < -1e-3:
        outcome = mip.solve(query, bounds_of(case), Deadline.after(30))
        assert outcome.witness is not None
        assert truths[outcome.witness.disjunct] <= 0


@pytest.mark.parametrize("kind", KINDS)
def test_relaxations_are_below_the_truth(case: Case, kind: str) -> None:
    network, lower, upper = case
    disjunct = Disjunct(lower, upper, constraints_of(case)[kind])
    truth, _ = minimum_margin(network, disjunct)
    query = Query.of(network, Spec(network.n_inputs, network.n_outputs, (disjunct,)), TorchReplay(network))
    outcome = mip.relax(query, bounds_of(case), Deadline.after(10))
    assert outcome.bounds[0].lower <= truth + 1e-9
    if outcome.bounds[0].level is not None:
        assert outcome.bounds[0].level is EvidenceLevel.RIGOROUS
        assert truth > 0
    if outcome.witness is not None:
        assert truth <= 0


def extremes(network: Network, node: int, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exact least and greatest values of one node over the box."""
    part = build([(one.operator, one.inputs) for one in network.nodes[: node + 1]])
    found = []
    for sign in (1.0, -1.0):
        values = []
        for i in range(part.n_outputs):
            row = np.zeros((1, part.n_outputs))
            row[0, i] = sign
            zero = np.broadcast_to(0.0, (1, part.n_inputs))
            rows = LinearConstraints(zero, row, np.zeros(1), np.zeros(1, bool))
            values.append(sign * minimum_margin(part, Disjunct(lower, upper, rows))[0])
        found.append(np.array(values))
    return found[0], found[1]


@pytest.mark.parametrize(
    "options",
    [
        TightenOptions(milp_share=0.0),
        TightenOptions(milp_share=0.0, only_signs=True),
        TightenOptions(lp_share=0.0, samples=0),
        TightenOptions(samples=2),
    ],
    ids=["lp", "lp, only signs", "milp", "both"],
)
def test_tightened_bounds_hold(case: Case, options: TightenOptions) -> None:
    network, lower, upper = case
    given = bounds_of(case, crown=False)
    found, counts = tighten(network, lower, upper, given, Deadline.after(60), options)
    for index in network.relus:
        source = network.nodes[index].inputs[0]
        least, greatest = extremes(network, source, lower, upper)
        low, high = (side.reshape(-1).numpy() for side in (found[source].lower, found[source].upper))
        assert (low <= least + 1e-9).all()
        assert (greatest - 1e-9 <= high).all()
        assert (found[source].lower >= given[source].lower).all()
        assert (found[source].upper <= given[source].upper).all()
        assert (found[index].lower >= given[index].lower).all()
        assert (found[index].upper == found[source].upper.clamp(min=0).reshape(found[index].upper.shape)).all()
        if options.lp_share == 0 or options.milp_share == 0:
            continue
        # With MILPs every neuron is decided that can be, but for what is too close to zero to call.
        undecided = (low < 0) & (high > 0)
        assert (undecided <= ((least < 1e-3) & (greatest > -1e-3))).all()
    if options.milp_share == 0:
        assert all(bound.level is Level.RIGOROUS for bound in found)
        assert counts["tighten_milps"] == 0


def test_rebounding_after_a_layer(case: Case) -> None:
    """Bounds computed anew for deeper layers are taken, and never make anything looser."""
    network, lower, upper = case
    asked = []

    def rebound(bounds: object) -> tuple[Bounds, ...]:
        asked.append(bounds)
        return bounds_of(case)

    found, _ = tighten(network, lower, upper, bounds_of(case, crown=False), Deadline.after(60), rebound=rebound)
    if asked:
        last = network.nodes[network.relus[-1]].inputs[0]
        assert (found[last].lower >= bounds_of(case)[last].lower).all()
    for index in network.relus:
        source = network.nodes[index].inputs[0]
        least, greatest = extremes(network, source, lower, upper)
        assert (found[source].lower.reshape(-1).numpy() <= least + 1e-9).all()
        assert (greatest - 1e-9 <= found[source].upper.reshape(-1).numpy()).all()
