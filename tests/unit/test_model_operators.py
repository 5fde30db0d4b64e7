"""forward, adjoint, absolute, matrix, offset and terms of every operator tell the same story."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from verifier.model.operators import Affine, Concat, Conv, Gather, Linear, Reshape, Scale, Sum


def numbers(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=shape))


def indices(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def cases() -> list[tuple[Affine, tuple[tuple[int, ...], ...]]]:
    rng = np.random.default_rng(0)
    r = lambda *shape: numbers(rng, *shape)  # noqa: E731
    return [
        (Linear(r(3, 4), r(3)), ((1, 4),)),
        (Linear(r(3, 4), r(3)), ((4,),)),
        (Linear(r(3, 4), r(3)), ((2, 5, 4),)),
        (Linear.zeros(4, 2), ((1, 4),)),
        (Conv(r(4, 3, 2, 2), r(4)), ((1, 3, 5, 4),)),
        (Conv(r(4, 3, 2, 2), r(4)), ((2, 3, 5, 4),)),
        (Conv(r(4, 3, 3, 2), r(4), stride=(2, 3), padding=(1, 1, 1, 1)), ((1, 3, 6, 7),)),
        (Conv(r(4, 3, 2, 2), r(4), padding=(2, 0, 1, 3)), ((1, 3, 5, 4),)),
        (Conv(r(4, 1, 2, 2), r(4), groups=2, dilation=(2, 1), stride=(1, 2)), ((2, 2, 5, 6),)),
        (Conv(r(6, 2, 2, 1), r(6), groups=3, padding=(0, 1, 1, 0)), ((1, 6, 3, 3),)),
        (Conv(r(2, 2, 4, 4), r(2), stride=(3, 3), padding=(0, 0, 2, 1)), ((1, 2, 6, 6),)),
        (Scale(r(1, 3, 1), r(3, 4)), ((2, 3, 4),)),
        (Scale(r(), r(4)), ((2, 3, 4),)),
        (Reshape((2, 6)), ((3, 4),)),
        (Gather(indices([[3, -1, 0], [0, 2, 0]])), ((2, 2),)),
        (Gather(indices([-1, -1])), ((3,),)),
        (Gather(torch.arange(6).reshape(2, 3).T.contiguous()), ((2, 3),)),
        (Concat(1), ((2, 3, 2), (2, 1, 2), (2, 4, 2))),
        (Concat(0), ((2,), (3,))),
        (Sum(), ((2, 3), (2, 3), (2, 3))),
        (Sum(), ((2, 3),)),
    ]


@pytest.mark.parametrize("case", range(len(cases())))
def test_all_views_agree(case):
    operator, shapes = cases()[case]
    rng = np.random.default_rng(1)
    shape = operator.output_shape(shapes)
    batch = 3
    inputs = [numbers(rng, batch, *given) for given in shapes]
    outputs = operator.forward(*inputs)
    assert tuple(outputs.shape) == (batch, *shape)
    assert isinstance(operator, Affine)

    matrices = operator.matrix(shapes)
    size = math.prod(shape)
    assert [matrix.shape for matrix in matrices] == [(size, math.prod(given)) for given in shapes]
    offset = operator.offset(shape)
    expected = np.zeros((batch, size)) if offset is None else np.tile(offset.reshape(1, -1).numpy(), (batch, 1))
    assert offset is None or tuple(offset.shape) == shape
    for matrix, given in zip(matrices, inputs, strict=True):
        expected += given.reshape(batch, -1).numpy() @ matrix.toarray().T
    np.testing.assert_allclose(outputs.reshape(batch, -1).numpy(), expected, rtol=1e-12, atol=1e-12)

    rows = numbers(rng, batch, 5, *shape)
    for row, matrix, given in zip(operator.adjoint(rows, shapes), matrices, shapes, strict=True):
        assert tuple(row.shape) == (batch, 5, *given)
        wanted = rows.reshape(batch, 5, -1).numpy() @ matrix.toarray()
        np.testing.assert_allclose(row.reshape(batch, 5, -1).numpy(), wanted, rtol=1e-12, atol=1e-12)

    magnitudes = [given.abs() for given in inputs]
    wanted = sum(
        given.reshape(batch, -1).numpy() @ abs(matrix).toarray().T
        for matrix, given in zip(matrices, magnitudes, strict=True)
    )
    found = operator.absolute(*magnitudes)
    assert tuple(found.shape) == (batch, *shape)
    np.testing.assert_allclose(found.reshape(batch, -1).numpy(), wanted, rtol=1e-12, atol=1e-12)

    joined = np.hstack([matrix.toarray() != 0 for matrix in matrices])
    longest = max(joined.sum(axis=1).max(), joined.sum(axis=0).max())
    assert operator.terms(shapes) >= max(longest, 1)
    assert operator.ulps == 0
    assert operator.offset_error is None
