"""Regions' arrays side by side and back."""

from __future__ import annotations

import numpy as np
import pytest

from verifier.search.transpose import TILE, interleave, separate


@pytest.mark.parametrize("rows", [0, 1, TILE - 1, TILE, 3 * TILE + 5])
@pytest.mark.parametrize(("kind", "wider"), [(np.int8, np.float64), (np.float32, np.float32), (np.float32, np.float64)])
def test_there_and_back(rows, kind, wider):
    parts = [np.random.default_rng(k).integers(-9, 9, rows).astype(kind) for k in range(4)]
    out = np.full((rows, 4), 99, wider)
    interleave(parts, out)
    assert np.array_equal(out, np.stack(parts, axis=1))
    back = separate(out)
    assert all(np.array_equal(a, b) and a.base is None for a, b in zip(parts, back, strict=True))
