"""Small programs for tests of solver drivers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from verifier.encodings.milp.model import MilpModel


def milp(
    cost: Sequence[float],
    lower: Sequence[float],
    upper: Sequence[float],
    rows: ArrayLike = (),
    row_lower: Sequence[float] = (),
    row_upper: Sequence[float] = (),
    integral: bool | Sequence[bool] = True,
    offset: float = 0.0,
) -> MilpModel:
    """minimise cost @ x + offset over a box and ``row_lower <= rows @ x <= row_upper``."""
    matrix = np.asarray(rows, np.float64).reshape(len(row_lower), len(cost))
    return MilpModel(
        cost=np.array(cost, np.float64),
        offset=offset,
        lower=np.array(lower, np.float64),
        upper=np.array(upper, np.float64),
        integral=np.broadcast_to(np.array(integral, bool), (len(cost),)).copy(),
        rows=sp.csr_array(matrix),
        row_lower=np.array(row_lower, np.float64),
        row_upper=np.array(row_upper, np.float64),
        row_error=np.zeros(len(row_lower)),
    )


def market_split(items: int = 40, markets: int = 5, seed: int = 0) -> MilpModel:
    """Split every column of random numbers into equal halves, as nearly as possible: hopeless for branch and
    bound (Cornuéjols and Dawande, 1998), with trivial points and a dual bound that stays near 0."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 100, size=(markets, items)).astype(np.float64)
    half = np.floor(numbers.sum(axis=1) / 2)
    surplus, deficit = np.eye(markets), -np.eye(markets)
    largest = numbers.sum(axis=1)
    return milp(
        cost=[*np.zeros(items), *np.ones(2 * markets)],
        lower=np.zeros(items + 2 * markets),
        upper=[*np.ones(items), *largest, *largest],
        rows=np.hstack([numbers, surplus, deficit]),
        row_lower=half,
        row_upper=half,
        integral=[True] * items + [False] * (2 * markets),
    )
