"""Vectors of numbers in compiled code against numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

from verifier.search.lanes import (
    DOUBLES,
    LANES,
    aligned,
    any_below,
    inverse_root,
    larger,
    load,
    magnitude,
    smaller,
    spread,
    store,
    where_negative,
)
from verifier.search.pointers import pointers

KINDS = [(np.float32, LANES), (np.float64, DOUBLES)]


@njit
def everything(a, b, rows, out):
    for k in range(len(rows)):
        x, y = load(a, rows[k]), load(b, k)
        store(out, 0, x + y)
        store(out, 1, x - y)
        store(out, 2, x * y)
        store(out, 3, x / y)
        store(out, 4, larger(x, y))
        store(out, 5, smaller(x, y))
        store(out, 6, magnitude(x))
        store(out, 7, where_negative(x, y, spread(a[0, 0])))
    return any_below(load(a, rows[0]), load(b, 0))


@pytest.mark.parametrize(("kind", "count"), KINDS)
def test_arithmetic_lane_by_lane(kind, count):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, count)).astype(kind), rng.normal(size=(1, count)).astype(kind)
    out = np.zeros((8, count), kind)
    for row in range(5):
        found = everything(a, b, np.array([row], np.uint32), out)
        x, y = a[row], b[0]
        first = np.where(x < 0, y, a[0, 0])
        right = [x + y, x - y, x * y, x / y, np.maximum(x, y), np.minimum(x, y), np.abs(x), first]
        assert np.allclose(out, np.stack(right), rtol=1e-6 if kind == np.float32 else 1e-15)
        assert found == (x < y).any()


@pytest.mark.parametrize(("kind", "count"), KINDS)
def test_no_lane_below_another(kind, count):
    one = np.ones((1, count), kind)
    less = one.copy()
    out = np.zeros((8, count), kind)
    rows = np.zeros(1, np.uint32)
    assert not everything(one, one, rows, out)
    less[0, count - 1] = 0.5
    assert everything(less, one, rows, out)


@njit
def roots(a, out):
    for k in range(len(a)):
        store(out, k, inverse_root(load(a, k)))


def test_inverse_roots_of_all_magnitudes():
    a = (10.0 ** np.random.default_rng(0).uniform(-35, 35, (200, LANES))).astype(np.float32)
    out = np.zeros_like(a)
    roots(a, out)
    assert np.allclose(out, 1 / np.sqrt(a.astype(np.float64)), rtol=2e-3)


class Record(NamedTuple):
    rows: np.ndarray
    flags: np.ndarray
    last: int


@njit
def total(record):
    """Of the rows that have a flag, and of every one's first number."""
    record = pointers(record)
    sums, first = spread(np.float32(0)), 0.0
    for k in range(record.last):
        first += record.rows[k * LANES]
        if record.flags[k]:
            sums = sums + load(record.rows, k)
    store(record.rows, record.last, sums)
    return first


def test_pointers_read_and_write_what_the_arrays_hold():
    rng = np.random.default_rng(0)
    rows = aligned((9, LANES))
    assert rows.ctypes.data % 64 == 0
    rows[:8] = rng.normal(size=(8, LANES))
    flags = rng.integers(0, 2, 8).astype(bool)
    assert total(Record(rows, flags, 8)) == pytest.approx(float(rows[:8, 0].sum()), rel=1e-5)
    assert np.allclose(rows[8], rows[:8][flags].sum(0), atol=1e-5)
