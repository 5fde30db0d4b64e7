"""The margin as objective: conjunctions, constraints on inputs, mixtures, and no rows at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import networks
from verifier.bounds.interval import interval_bounds
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import Encoding, encode
from verifier.encodings.milp.columns import Kind
from verifier.encodings.milp.margin import margin_program
from verifier.encodings.milp.start import start
from verifier.solve.highs import minimise
from verifier.solve.outcome import Status
from verifier.vnnlib.spec import LinearConstraints


def encoding_of(seed: int) -> Encoding:
    rng = np.random.default_rng(seed)
    network = networks.dense(rng, (3, 6, 5, 2))
    lower, upper = networks.box(rng, 3, 1.0)
    return encode(
        network, lower, upper, interval_bounds(network, torch.from_numpy(lower)[None], torch.from_numpy(upper)[None])
    )


def rows(inputs: object, outputs: object, bounds: list[float], strict: bool = False) -> LinearConstraints:
    count = len(bounds)
    return LinearConstraints(
        np.asarray(inputs, np.float64).reshape(count, 3) if inputs is not None else np.broadcast_to(0.0, (count, 3)),
        np.asarray(outputs, np.float64).reshape(count, 2),
        np.array(bounds, np.float64),
        np.full(count, strict),
    )


CONSTRAINTS = {
    "one row": rows(None, [[1, -1]], [0.5]),
    "conjunction": rows(None, [[1, -1], [0.5, 2], [-1, 0]], [0.5, 0.1, 0.3]),
    "one mixed row": rows([[1, 0, -2]], [[1, -1]], [0.5]),
    "input only and output": rows([[1, 1, 0], [0, 0, 0]], [[0, 0], [1, 1]], [0.2, 0.1]),
    "everything": rows([[1, 1, 0], [0, 0, 0], [0, 3, 1]], [[0, 0], [1, 1], [-1, 2]], [0.2, 0.1, 0.4]),
    "input only": rows([[1, 1, 0]], [[0, 0]], [0.2]),
}


@pytest.mark.parametrize("constraints", CONSTRAINTS.values(), ids=CONSTRAINTS)
@pytest.mark.parametrize("seed", range(4))
def test_a_start_costs_its_margin(constraints: LinearConstraints, seed: int) -> None:
    encoding = encoding_of(seed)
    program = margin_program(encoding, constraints)
    model = program.model
    assert np.isfinite(model.lower).all()
    assert np.isfinite(model.upper).all()
    inputs = encoding.columns.of(Kind.INPUT)
    rng = np.random.default_rng(seed)
    for x in rng.uniform(model.lower[inputs], model.upper[inputs], (20, 3)):
        y = encoding.network.forward(torch.from_numpy(x)[None])[0].numpy()
        margins = constraints.margins(x, y)
        point = start(program, x)
        assert len(point) == model.n_columns == len(program.columns)
        assert model.objective(point) == pytest.approx(margins.max(), abs=1e-9)
        hard = margins[~constraints.outputs.any(axis=1)]
        assert model.violation(point) == pytest.approx(max(0.0, *hard, 0.0), abs=1e-9)


def test_input_only_rows_are_hard() -> None:
    """The region that they leave is empty: infeasible, where the margin alone would be tiny but positive."""
    encoding = encoding_of(0)
    inputs = encoding.columns.of(Kind.INPUT)
    low = float(encoding.model.lower[inputs][0])
    program = margin_program(encoding, rows([[1, 0, 0], [0, 0, 0]], [[0, 0], [0, 1]], [low - 1e-3, 1e3]))
    assert program.has_hard_rows
    assert minimise(program.model, Deadline.after(10)).status is Status.INFEASIBLE


def test_without_rows_everything_is_a_witness() -> None:
    program = margin_program(encoding_of(0), rows(None, np.zeros((0, 2)), []))
    outcome = minimise(program.model, Deadline.after(10))
    assert outcome.status is Status.OPTIMAL
    assert outcome.objective == 0.0


def test_output_rows_keep_the_rows_of_the_encoding() -> None:
    """So that linear programs of many disjuncts can go on from one basis."""
    encoding = encoding_of(0)
    assert margin_program(encoding, CONSTRAINTS["one row"]).model.rows is encoding.model.rows
    assert margin_program(encoding, CONSTRAINTS["one mixed row"]).model.rows is encoding.model.rows
