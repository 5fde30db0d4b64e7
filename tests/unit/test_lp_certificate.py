"""The certificate is a lower bound whatever the multipliers, and the optimum with the right ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog

from verifier.deadline import Deadline
from verifier.encodings.milp.model import MilpModel
from verifier.solve.lp import LinearPrograms
from verifier.solve.lp_certificate import certified_lower_bound


def random_program(seed: int) -> MilpModel:
    """Feasible and bounded, with one-sided rows, ranges and equations."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 8)), int(rng.integers(0, 8))
    scale = 10.0 ** rng.integers(-3, 4, size=(m, 1))
    rows = rng.normal(size=(m, n)) * (rng.random((m, n)) < 0.6) * scale
    lower = rng.normal(size=n)
    upper = lower + rng.exponential(size=n) * (rng.random(n) < 0.9)
    value = rows @ rng.uniform(lower, upper)
    kind = rng.integers(0, 4, size=m)
    below = np.where(kind == 0, -np.inf, value - np.where(kind == 1, 0.0, scale[:, 0] * rng.random(m)))
    above = np.where(kind == 2, np.inf, value + np.where(kind == 1, 0.0, scale[:, 0] * rng.random(m)))
    return MilpModel(
        cost=rng.normal(size=n),
        offset=float(rng.normal()),
        lower=lower,
        upper=upper,
        integral=np.zeros(n, dtype=bool),
        rows=sp.csr_array(rows),
        row_lower=below,
        row_upper=above,
        row_error=np.zeros(m),
    )


def optimum(model: MilpModel) -> float:
    """By another road: scipy's interior point method, on inequalities."""
    rows = model.rows.toarray()
    parts = [(rows, model.row_upper), (-rows, -model.row_lower)]
    kept = [(part[np.isfinite(side)], side[np.isfinite(side)]) for part, side in parts]
    found = linprog(
        model.cost,
        A_ub=np.vstack([part for part, _ in kept]),
        b_ub=np.concatenate([side for _, side in kept]),
        bounds=np.stack([model.lower, model.upper], axis=1),
        method="highs-ipm",
    )
    assert found.status == 0, found.message
    return float(found.fun + model.offset)


def exact_bound(model: MilpModel, multipliers: np.ndarray) -> Fraction:
    """Weak duality in rational arithmetic, for finite multipliers of the right sign."""
    rows = model.rows.toarray()
    total = Fraction(model.offset)
    reduced = [Fraction(float(c)) for c in model.cost]
    for i, p in enumerate(multipliers):
        if p != 0:
            total += Fraction(float(p)) * Fraction(float(model.row_lower[i] if p > 0 else model.row_upper[i]))
            for j in range(model.n_columns):
                reduced[j] -= Fraction(float(rows[i, j])) * Fraction(float(p))
    for j, d in enumerate(reduced):
        total += min(d * Fraction(float(model.lower[j])), d * Fraction(float(model.upper[j])))
    return total


@pytest.mark.parametrize("seed", range(60))
def test_the_solvers_duals_certify_the_optimum(seed: int) -> None:
    model = random_program(seed)
    truth = optimum(model)
    found = LinearPrograms(model).minimum(model.cost, model.offset, Deadline.never())
    scale = 1.0 + abs(truth)
    assert found.lower <= truth + 1e-7 * scale
    assert found.lower >= truth - 1e-6 * scale
    assert found.point is not None
    assert model.violation(found.point) <= 1e-5


@pytest.mark.parametrize("seed", range(60))
def test_any_multipliers_give_a_bound(seed: int) -> None:
    model = random_program(seed)
    truth = optimum(model)
    rng = np.random.default_rng(1000 + seed)
    for scale in (0.0, 1e-8, 1e-3, 1.0, 1e6):
        multipliers = rng.normal(size=model.n_rows) * scale
        assert certified_lower_bound(model, multipliers) <= truth + 1e-9 * (1 + abs(truth))


@pytest.mark.parametrize("seed", range(40))
def test_the_bound_is_below_its_exact_value(seed: int) -> None:
    """What is computed in float64 is never above what the same multipliers prove in exact arithmetic."""
    model = random_program(seed)
    rng = np.random.default_rng(2000 + seed)
    for scale in (1.0, 1e9):
        multipliers = rng.normal(size=model.n_rows) * scale
        wrong = np.where(multipliers > 0, np.isinf(model.row_lower), np.isinf(model.row_upper))
        multipliers = np.where(wrong, 0.0, multipliers)
        exact = exact_bound(model, multipliers)
        found = certified_lower_bound(model, multipliers)
        assert Fraction(found) <= exact
        assert found >= float(exact) - 1e-9 * (1 + np.abs(multipliers).max(initial=0.0)) * 1e4


def test_cancellation_is_covered() -> None:
    """1e16 + 1 - 1e16: the rounding error is as large as the answer."""
    model = MilpModel(
        cost=np.array([1.0, 1.0, 1.0]),
        offset=0.0,
        lower=np.array([1e16, 1.0, -1e16]),
        upper=np.array([1e16, 1.0, -1e16]),
        integral=np.zeros(3, dtype=bool),
        rows=sp.csr_array((0, 3)),
        row_lower=np.zeros(0),
        row_upper=np.zeros(0),
        row_error=np.zeros(0),
    )
    assert certified_lower_bound(model, np.zeros(0)) <= 1.0


def test_useless_multipliers() -> None:
    """Not a number, infinite, or for a side that does not exist: dropped, not believed."""
    model = MilpModel(
        cost=np.array([1.0]),
        offset=0.0,
        lower=np.array([-1.0]),
        upper=np.array([5.0]),
        integral=np.zeros(1, dtype=bool),
        rows=sp.csr_array(np.array([[1.0], [1.0]])),
        row_lower=np.array([2.0, -np.inf]),
        row_upper=np.array([np.inf, 4.0]),
        row_error=np.zeros(2),
    )
    assert certified_lower_bound(model, np.array([1.0, 0.0])) == pytest.approx(2.0)
    for multipliers in ([np.nan, 0.0], [np.inf, 0.0], [-1.0, 0.0], [0.0, 1.0]):
        assert certified_lower_bound(model, np.array(multipliers)) == pytest.approx(-1.0)


def test_unbounded_columns() -> None:
    model = MilpModel(
        cost=np.array([1.0, 0.0]),
        offset=0.0,
        lower=np.array([-np.inf, -np.inf]),
        upper=np.array([np.inf, np.inf]),
        integral=np.zeros(2, dtype=bool),
        rows=sp.csr_array(np.array([[1.0, 0.0]])),
        row_lower=np.array([3.0]),
        row_upper=np.array([np.inf]),
        row_error=np.zeros(1),
    )
    assert certified_lower_bound(model, np.array([0.5])) == -np.inf
    # Exactly cancelled, but the evaluation cannot know that it was exact.
    assert certified_lower_bound(model, np.array([1.0])) in (-np.inf, pytest.approx(3.0))


def test_errors_of_the_model_are_subtracted() -> None:
    model = random_program(3)
    plain = certified_lower_bound(model, np.ones(model.n_rows))
    worse = MilpModel(**{**vars(model), "cost_error": 0.25, "row_error": np.full(model.n_rows, 0.5)})
    used = np.isfinite(model.row_lower).sum()
    assert certified_lower_bound(worse, np.ones(model.n_rows)) == pytest.approx(plain - 0.25 - 0.5 * used)
