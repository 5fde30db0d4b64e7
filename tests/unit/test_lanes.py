"""Vectors of numbers in compiled code against numpy."""

from __future__ import annotations

import numpy as np
from numba import njit

from verifier.search.lanes import LANES, any_below, larger, load, root, smaller, spread, store, where_negative


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
        store(out, 6, root(x * x))
        store(out, 7, where_negative(x, y, spread(np.float32(3))))
    return any_below(load(a, rows[0]), load(b, 0))


def test_arithmetic_lane_by_lane():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, LANES)).astype(np.float32), rng.normal(size=(1, LANES)).astype(np.float32)
    out = np.zeros((8, LANES), np.float32)
    for row in range(5):
        found = everything(a, b, np.array([row], np.uint32), out)
        x, y = a[row], b[0]
        three = np.float32(3)
        right = [x + y, x - y, x * y, x / y, np.maximum(x, y), np.minimum(x, y), np.abs(x), np.where(x < 0, y, three)]
        assert np.allclose(out, np.stack(right), rtol=1e-6)
        assert found == (x < y).any()


def test_no_lane_below_another():
    one = np.ones((1, LANES), np.float32)
    less = one.copy()
    out = np.zeros((8, LANES), np.float32)
    rows = np.zeros(1, np.uint32)
    assert not everything(one, one, rows, out)
    less[0, LANES - 1] = 0.5
    assert everything(less, one, rows, out)
