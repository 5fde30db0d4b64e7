"""Our programs against their readable twins, which are written neuron by neuron and solved through PuLP."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import highspy
import numpy as np
import pytest
import torch

from support import networks
from support.programs import market_split
from verifier.bounds.crown import intermediate_bounds
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import encode
from verifier.encodings.milp.columns import Kind
from verifier.encodings.milp.margin import MarginProgram, margin_program
from verifier.encodings.milp.start import start
from verifier.model.network import Network
from verifier.solve.highs import minimise
from verifier.solve.outcome import Status
from verifier.vnnlib.spec import Disjunct, LinearConstraints

pulp = pytest.importorskip("pulp")

from verifier.encodings.milp import pulp_twin  # noqa: E402

NETWORKS: dict[str, Callable[[np.random.Generator], Network]] = {
    "dense": lambda rng: networks.dense(rng, (3, 10, 8, 2)),
    "residual": lambda rng: networks.residual(rng, 6, 2),
    "convolutional": lambda rng: networks.convolutional(rng, 2),
}


def cbc() -> object:
    """The CBC that comes with PuLP 3; version 4 will want an extra of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        solver = pulp.PULP_CBC_CMD(msg=False, gapRel=0.0)
    if not solver.available():
        pytest.skip("no CBC on this machine")
    return solver


SOLVERS = {"HiGHS": lambda: pulp.HiGHS(msg=False, gapRel=0.0), "CBC": cbc}

Problem = tuple[MarginProgram, "pulp.LpProblem"]


@pytest.fixture(params=[(kind, rows, seed) for kind in NETWORKS for rows in (1, 3) for seed in range(3)], ids=str)
def both(request: pytest.FixtureRequest) -> Problem:
    """A program and its twin."""
    kind, rows, seed = request.param
    rng = np.random.default_rng(200 + seed)
    network = NETWORKS[kind](rng)
    lower, upper = networks.box(rng, network.n_inputs, 0.5)
    bounds = intermediate_bounds(
        network, torch.from_numpy(lower)[None], torch.from_numpy(upper)[None], Deadline.never()
    )
    n, k = network.n_inputs, network.n_outputs
    inputs = np.broadcast_to(0.0, (1, n)) if rows == 1 else rng.normal(size=(rows, n)) * [[0.0], [1.0], [0.2]]
    outputs = rng.normal(size=(rows, k))
    if rows == 3:
        outputs[2] = 0.0
    sides = rng.normal(size=rows)
    if rows == 3:  # a constraint on the inputs that leaves something
        sides[2] = inputs[2] @ (lower + upper) / 2
    constraints = LinearConstraints(inputs, outputs, sides, np.zeros(rows, bool))
    program = margin_program(encode(network, lower, upper, bounds), constraints)
    return program, pulp_twin.twin(network, Disjunct(lower, upper, constraints), bounds)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_optima_agree(both: Problem, solver: Callable[[], object]) -> None:
    program, twin = both
    ours = minimise(program.model, Deadline.after(30), options={"mip_rel_gap": 0.0})
    theirs = pulp_twin.solve(twin, solver())
    assert theirs.status == "Optimal"
    assert theirs.margin == pytest.approx(ours.objective, abs=1e-5)


def test_their_point_costs_the_same_here(both: Problem) -> None:
    program, twin = both
    theirs = pulp_twin.solve(twin, pulp.HiGHS(msg=False, gapRel=0.0))
    names = program.columns.names()
    # PuLP forgets an input that no constraint mentions.
    places = program.encoding.columns.of(Kind.INPUT)
    inputs = np.array([theirs.values.get(names[i], program.model.lower[i]) for i in places])
    point = start(program, inputs)
    assert program.model.objective(point) == pytest.approx(theirs.margin, abs=1e-5)
    # The same neurons have columns of the same names; ours may have some more, of stable ones.
    assert set(theirs.values) - {"t"} <= set(names)
    for name, value in zip(names, point, strict=True):
        if name[0] in "xyz" and name in theirs.values:
            assert theirs.values[name] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("suffix", ["lp", "mps"])
def test_files_hold_the_whole_problem(both: Problem, suffix: str, tmp_path: Path) -> None:
    program, twin = both
    path = tmp_path / f"twin.{suffix}"
    {"lp": pulp_twin.write_lp, "mps": pulp_twin.write_mps}[suffix](twin, path)
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("mip_rel_gap", 0.0)
    assert highs.readModel(str(path)) == highspy.HighsStatus.kOk
    highs.run()
    ours = minimise(program.model, Deadline.after(30), options={"mip_rel_gap": 0.0})
    assert highs.getInfo().objective_function_value == pytest.approx(ours.objective, abs=1e-5)
    if suffix == "lp":
        text = path.read_text()
        assert " x_0 " in text
        assert "row_0:" in text


def test_a_time_limit_is_called_optimal_by_pulp() -> None:
    """Why a twin's answer is never a verdict: with a point in hand when time is over it is ``Optimal``."""
    model = market_split()
    problem = pulp.LpProblem("market_split", pulp.LpMinimize)
    columns = [
        problem.add_variable(f"c_{i}", low, high, pulp.LpInteger if integral else pulp.LpContinuous)
        for i, (low, high, integral) in enumerate(zip(model.lower, model.upper, model.integral, strict=True))
    ]
    problem += pulp.lpSum(float(c) * column for c, column in zip(model.cost, columns, strict=True)), "surplus"
    for i, row in enumerate(model.rows.toarray()):
        problem += pulp.lpSum(float(c) * column for c, column in zip(row, columns, strict=True)) == model.row_lower[i]
    problem.solve(pulp.HiGHS(msg=False, timeLimit=1))
    assert pulp.LpStatus[problem.status] == "Optimal"
    ours = minimise(model, Deadline.after(1))
    assert ours.status is Status.LIMIT
    assert ours.dual_bound < problem.objective.value() - 1
