"""The triangular systems of input splitting against exact rational arithmetic, reduced again and again."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from verifier.search.triangular import reduced, root_system
from verifier.search.zonotope_kernel import new_scratch, propagate, row_bound, satisfied


def random_system(rng, sizes, spread):
    """A chain with layers of these sizes (inputs first) and two rows; entries differ by up to ``spread`` decades."""
    D, hidden = sizes[0], sizes[1:]
    starts = np.cumsum([0, *hidden])
    n = int(starts[-1])
    weights = np.zeros((n, D + n))
    place = 0
    for h, size in enumerate(hidden):
        below = D if h == 0 else hidden[h - 1]
        block = rng.normal(size=(size, below)) * 10 ** rng.uniform(-spread, spread, (size, below))
        weights[starts[h] : starts[h + 1], place : place + below] = block / np.sqrt(below)
        place = D + starts[h]
    constants = 0.3 * rng.normal(size=n)
    rows = np.zeros((2, D + n))
    rows[:, D + starts[-2] :] = rng.normal(size=(2, hidden[-1]))
    rows[:, :D] = rng.normal(size=(2, D))
    return starts, weights, constants, rows, rng.normal(size=2)


def exactly(starts, weights, constants, rows, row_constants, x):
    """Pre-activations and rows at x in rational arithmetic."""
    known = [Fraction(float(value)) for value in x]
    found = []
    for h in range(len(starts) - 1):
        values = []
        for j in range(starts[h], starts[h + 1]):
            z = Fraction(float(constants[j]))
            z += sum(Fraction(float(w)) * y for w, y in zip(weights[j], known, strict=False) if w != 0.0)
            values.append(z)
        found += values
        known += [max(z, Fraction(0)) for z in values]
    ends = [
        Fraction(float(c)) + sum(Fraction(float(w)) * y for w, y in zip(row, known, strict=True) if w != 0.0)
        for row, c in zip(rows, row_constants, strict=True)
    ]
    return found, ends


def written_out(system, x, activations):
    """What the system's rows say at the true activations of its neurons, in rational arithmetic."""
    known = [Fraction(float(value)) for value in x] + activations

    def value(row, constant):
        return Fraction(float(constant)) + sum(Fraction(float(w)) * y for w, y in zip(row, known, strict=True))

    return (
        [value(row, c) for row, c in zip(system.weights, system.constants, strict=True)],
        [value(row, c) for row, c in zip(system.rows, system.row_constants, strict=True)],
    )


@pytest.mark.parametrize("seed", range(12))
def test_reduced_systems_say_the_same_up_to_their_defects(seed):
    rng = np.random.default_rng(seed)
    D = int(rng.integers(1, 4))
    sizes = (D, *(int(rng.integers(2, 8)) for _ in range(int(rng.integers(1, 4)))))
    starts, weights, constants, rows, row_constants = random_system(rng, sizes, spread=seed % 4)
    n, layers = len(constants), len(sizes) - 1
    lower, upper = -np.ones(D), np.ones(D)
    system = root_system(
        starts, weights, constants, np.zeros(n), rows, row_constants, np.zeros(2), np.maximum(abs(lower), abs(upper))
    )
    kept = np.arange(n)
    scratch = new_scratch(D, n, layers)
    for _ in range(8):
        propagate(lower, upper, system, scratch)
        low, high = scratch.low[: len(kept)].copy(), scratch.high[: len(kept)].copy()
        bounds = [row_bound(lower, upper, system, r, scratch) - system.row_error[r] for r in range(2)]
        for _ in range(6):
            x = np.clip(lower + rng.random(D) * (upper - lower), lower, upper)
            truth, ends = exactly(starts, weights, constants, rows, row_constants, x)
            own = [truth[j] for j in kept]
            assert all(Fraction(float(a)) <= z <= Fraction(float(b)) for a, z, b in zip(low, own, high, strict=True))
            assert all(Fraction(float(b)) <= end for b, end in zip(bounds, ends, strict=True))
            said, said_ends = written_out(system, x, [max(z, Fraction(0)) for z in own])
            for given, meant, defect in zip(said, own, system.defects, strict=True):
                assert abs(given - meant) <= Fraction(float(defect))
            for given, meant, defect in zip(said_ends, ends, system.row_defects, strict=True):
                assert abs(given - meant) <= Fraction(float(defect))
        unstable = (low < 0) & (high > 0)
        system = reduced(D, system, low, high, np.maximum(abs(lower), abs(upper)), 0)
        kept = kept[unstable]
        assert len(system.constants) == len(kept)
        side = int(rng.integers(D))
        middle = 0.5 * (lower[side] + upper[side])
        if rng.random() < 0.5:
            lower[side] = middle
        else:
            upper[side] = middle


def test_substitution_does_round():
    """The test above would notice defects that are too small: some coefficient really differs from the exact one."""
    rng = np.random.default_rng(5)
    starts, weights, constants, rows, row_constants = random_system(rng, (2, 6, 6), spread=2)
    system = root_system(starts, weights, constants, np.zeros(12), rows, row_constants, np.zeros(2), np.ones(2))
    scratch = new_scratch(2, 12, 2)
    low = upper = np.full(2, 0.5)
    propagate(low, upper, system, scratch)
    linear = reduced(2, system, scratch.low, scratch.high, np.ones(2), 0)
    assert len(linear.constants) == 0
    _, ends = exactly(starts, weights, constants, rows, row_constants, low)
    _, said = written_out(linear, low, [])
    assert any(given != meant for given, meant in zip(said, ends, strict=True))
    assert np.all(linear.row_defects > 0)


@pytest.mark.parametrize("seed", range(6))
def test_a_point_satisfies_what_its_rows_say(seed):
    rng = np.random.default_rng([seed, 7])
    starts, weights, constants, rows, row_constants = random_system(rng, (2, 5, 4), spread=0)
    system = root_system(starts, weights, constants, np.zeros(9), rows, row_constants, np.zeros(2), np.ones(2))
    for _ in range(20):
        x = rng.uniform(-1, 1, 2)
        _, ends = exactly(starts, weights, constants, rows, row_constants, x)
        holds = [float(end) <= 0 for end in ends]
        wanted = holds.index(True) if any(holds) else -1
        assert satisfied(x, system, np.array([0, 1, 2]), np.array([True, True]), 0.0, np.empty(11)) == wanted
        assert satisfied(x, system, np.array([0, 2]), np.array([True]), 0.0, np.empty(11)) == (0 if all(holds) else -1)
