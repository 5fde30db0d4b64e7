"""What gates of one layer imply of each other, against all inputs of tiny layers; and what presolve makes of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from verifier.encodings.sat.dominance import dominance, implications
from verifier.encodings.sat.program import Program, Rows
from verifier.proofs.conflict import Conflict, pair_conflicts, refutes


def tiny_layer(seed: int) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Rows, upper ends, and all their inputs."""
    rng = np.random.default_rng(seed)
    upper = rng.integers(1, 4, rng.integers(1, 4))
    weights = rng.choice((-2, -1, 0, 1, 2), (int(rng.integers(2, 7)), len(upper)))
    low, high = np.minimum(weights, 0) @ upper, np.maximum(weights, 0) @ upper
    thresholds = np.where(high > low, rng.integers(low, np.maximum(high, low + 1)) + 1, low)
    points = np.array(list(itertools.product(*(range(top + 1) for top in upper.tolist()))))
    return Rows(sp.csr_array(weights), thresholds), upper, points


def literals(rows: Rows, points: np.ndarray) -> np.ndarray:
    bits = rows(points)
    return np.concatenate([bits, ~bits], axis=1)


@pytest.mark.parametrize("block", range(4))
def test_every_implication_holds_everywhere(block: int) -> None:
    found = 0
    for seed in range(100 * block, 100 * (block + 1)):
        rows, upper, points = tiny_layer(seed)
        relation = dominance(rows, upper)
        assert relation is not None
        values = literals(rows, points)
        for left, right in np.argwhere(relation).tolist():
            assert np.all(~values[:, left] | values[:, right]), f"seed {seed}"
        for clause in implications(rows, upper).tolist():
            signed = [values[:, gate - 1] if gate > 0 else ~values[:, -gate - 1] for gate in clause]
            assert np.all(signed[0] | signed[1]), f"seed {seed}"
            found += 1
    assert found > 100


def closure(count: int, clauses: np.ndarray) -> np.ndarray:
    """Entry (a, b): whether b follows from a by unit propagation along the clauses."""
    place = {sign * (gate + 1): gate + (sign < 0) * count for gate in range(count) for sign in (1, -1)}
    reached = np.eye(2 * count, dtype=bool)
    for a, b in clauses.tolist():
        reached[place[-a], place[b]] = reached[place[-b], place[a]] = True
    for _ in range(2 * count):
        reached |= (reached.astype(int) @ reached.astype(int)) > 0
    return reached


def test_the_clauses_are_few_and_say_all() -> None:
    fewer = 0
    for seed in range(200):
        rows, upper, points = tiny_layer(seed)
        values = rows(points)
        if np.any(values.all(axis=0) | ~values.any(axis=0)):
            continue
        relation = dominance(rows, upper)
        clauses = implications(rows, upper)
        assert relation is not None
        assert np.array_equal(closure(len(rows), clauses), relation), f"seed {seed}"
        fewer += 2 * len(clauses) < np.count_nonzero(relation) - len(relation)
    assert fewer > 10


def test_thresholds_on_one_row_are_a_chain() -> None:
    """3 or more, 1 or more, 2 or more of three bits."""
    rows = Rows(sp.csr_array(np.ones((3, 3), np.int64)), np.array([3, 1, 2]))
    found = {frozenset(clause) for clause in implications(rows, np.ones(3, np.int64)).tolist()}
    assert found == {frozenset(pair) for pair in ((-1, 3), (-3, 2))}


def test_pairs_are_conflicts_that_the_proof_checker_accepts() -> None:
    accepted = 0
    for seed in range(100):
        rows, upper, _ = tiny_layer(seed)
        one = Rows(sp.csr_array(np.ones((1, len(rows)), np.int64)), np.ones(1, np.int64))
        for conflict in pair_conflicts(Program(upper, (rows,), one)):
            assert refutes(rows, upper, conflict), f"seed {seed}"
            turned = Conflict(conflict.gates, ~conflict.bits, conflict.multipliers)
            accepted += 1
            bits = rows(np.array(list(itertools.product(*(range(top + 1) for top in upper.tolist())))))
            reachable = np.any((bits[:, conflict.gates] == turned.bits).all(axis=1))
            assert not (reachable and refutes(rows, upper, turned))
    assert accepted > 50


def test_wide_weights_are_left_alone() -> None:
    rows = Rows(sp.csr_array(np.array([[100, 1], [1, 100]])), np.array([5, 5]))
    assert dominance(rows, np.ones(2, np.int64)) is None
    assert implications(rows, np.ones(2, np.int64)).shape == (0, 2)
