"""What simplifiers and lowerings claim about rounding, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from support.onnx_models import f32, lowered, make, node, read
from verifier.errors import ModelError
from verifier.model.network import build
from verifier.model.operators import Conv, Input, Linear, Reshape, Scale
from verifier.model.rounding import Offset, mapped_offset, product, reciprocal, scaled_offset, total
from verifier.model.simplify import simplify
from verifier.model.simplify.fuse_scale_after import fuse_scale_after
from verifier.model.simplify.fuse_scale_before import fuse_scale_before
from verifier.model.simplify.merge_scales import merge_scales

UNIT = Fraction(1, 2**53)


def exact(values: torch.Tensor) -> list[Fraction]:
    return [Fraction(float(value)) for value in values.reshape(-1)]


def within(stored: torch.Tensor, wanted: list[Fraction], ulps: int) -> bool:
    """Whether the relative errors are at most ulps * 2**-53."""
    return all(abs(s - w) <= ulps * UNIT * abs(w) for s, w in zip(exact(stored), wanted, strict=True))


def covered(offset: Offset, wanted: list[Fraction]) -> bool:
    errors = [Fraction(0)] * len(wanted) if offset.error is None else exact(offset.error)
    return all(abs(s - w) <= e for s, w, e in zip(exact(offset.value), wanted, errors, strict=True))


def wild(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Numbers of very different sizes."""
    return torch.from_numpy(rng.normal(size=shape) * 2.0 ** rng.integers(-30, 30, size=shape))


@pytest.mark.parametrize("seed", range(20))
def test_product_and_reciprocal(seed):
    rng = np.random.default_rng(seed)
    a, b = wild(rng, 50), wild(rng, 50)
    result = product(a, 0, b, 0)
    assert result is not None
    assert within(result[0], [x * y for x, y in zip(exact(a), exact(b), strict=True)], result[1])
    inverse, ulps = reciprocal(a)
    assert ulps == 1
    assert within(inverse, [1 / x for x in exact(a)], ulps)


def test_exact_products_are_recognised():
    short = torch.from_numpy(np.random.default_rng(0).normal(size=20).astype(np.float32)).double()
    long = torch.from_numpy(np.random.default_rng(1).normal(size=20))
    for a, b in ((short, short.flip(0)), (long, torch.tensor(0.25)), (torch.tensor(-1.0), long)):
        result = product(a.double(), 0, b.double(), 0)
        assert result is not None
        wanted = [x * y for x, y in zip(exact(a.expand(20)), exact(b.expand(20)), strict=True)]
        assert result[1] == 0
        assert exact(result[0]) == wanted
    assert reciprocal(torch.tensor([4.0, -0.5]))[1] == 0


def test_products_that_underflow_or_overflow_are_refused():
    tiny, huge = torch.tensor([1e-200], dtype=torch.float64), torch.tensor([1e200], dtype=torch.float64)
    assert product(tiny, 0, tiny, 0) is None
    assert product(huge, 0, huge, 0) is None
    assert product(torch.zeros(1, dtype=torch.float64), 0, tiny, 0) is not None
    with pytest.raises(ModelError, match="overflows"):
        reciprocal(torch.tensor([1e-320], dtype=torch.float64))


def test_sums_say_whether_they_are_exact():
    assert total(torch.tensor([1.0, 0.5]).double(), torch.tensor([2.0, -0.25]).double())[1] == 0
    assert total(torch.tensor([1.0]).double(), torch.tensor([1e-20]).double())[1] == 1


@pytest.mark.parametrize("seed", range(20))
def test_offsets(seed):
    rng = np.random.default_rng(seed)
    inner, scale, outer = wild(rng, 30), wild(rng, 30), wild(rng, 30)
    found = scaled_offset(Offset(inner, None), scale, 0, Offset(outer, None))
    wanted = [s * i + o for s, i, o in zip(exact(scale), exact(inner), exact(outer), strict=True)]
    assert covered(found, wanted)

    matrix, inputs = wild(rng, 4, 30), wild(rng, 4, 30)
    found = mapped_offset(matrix, 0, Offset(inputs, None), Offset(outer[:4], None))
    rows = [zip(exact(m), exact(i), strict=True) for m, i in zip(matrix, inputs, strict=True)]
    wanted = [sum((m * i for m, i in row), start=o) for row, o in zip(rows, exact(outer[:4]), strict=True)]
    assert covered(found, wanted)


def test_offset_errors_are_carried_along():
    """Perturbing the inputs by their stated errors stays within the stated error of the result."""
    rng = np.random.default_rng(0)
    inner, scale, outer = wild(rng, 30), wild(rng, 30), wild(rng, 30)
    error = inner.abs() * 1e-10
    found = scaled_offset(Offset(inner, error), scale, 3, Offset(outer, outer.abs() * 1e-9))
    for sign in (-1, 1):
        wanted = [
            s * (1 + sign * 3 * UNIT) * (i + sign * e) + o + sign * abs(o) * Fraction(1, 10**9) * (1 - UNIT)
            for s, i, e, o in zip(exact(scale), exact(inner), exact(error), exact(outer), strict=True)
        ]
        assert covered(found, wanted)


@pytest.mark.parametrize("seed", range(10))
def test_fused_linear_layers_are_as_close_as_they_say(seed):
    rng = np.random.default_rng(seed)
    scales = [Scale(wild(rng, 5), wild(rng, 5)), Scale(wild(rng, 1, 5), wild(rng, 5))]
    affine, after = Linear(wild(rng, 3, 5), wild(rng, 3)), Scale(wild(rng, 3), wild(rng, 3))
    nodes = [(Input((1, 5)), ()), (scales[0], (0,)), (scales[1], (1,)), (affine, (2,)), (after, (3,))]
    network = simplify(build(nodes))
    (fused,) = (entry.operator for entry in network.nodes[1:])
    assert isinstance(fused, Linear)
    a, c = exact(scales[0].scale), exact(scales[0].shift)
    a2, c2 = exact(scales[1].scale), exact(scales[1].shift)
    matrix, offsets = [], []
    for row, bias, factor, shift in zip(
        affine.weight, exact(affine.bias), exact(after.scale), exact(after.shift), strict=True
    ):
        weights = exact(row)
        matrix += [factor * w * s2 * s1 for w, s2, s1 in zip(weights, a2, a, strict=True)]
        moved = sum(w * (s2 * t1 + t2) for w, s2, t1, t2 in zip(weights, a2, c, c2, strict=True))
        offsets.append(factor * (moved + bias) + shift)
    assert within(fused.weight, matrix, fused.ulps)
    assert covered(Offset(fused.bias, fused.offset_error), offsets)


@pytest.mark.parametrize("seed", range(5))
def test_fused_convolutions_are_as_close_as_they_say(seed):
    rng = np.random.default_rng(seed)
    before = Scale(wild(rng, 1, 4, 1, 1), wild(rng, 1, 4, 1, 1))
    conv = Conv(wild(rng, 6, 2, 2, 2), wild(rng, 6), groups=2)
    after = Scale(wild(rng, 1, 6, 1, 1), wild(rng, 6, 1, 1))
    nodes = [(Input((1, 4, 3, 3)), ()), (before, (0,)), (conv, (1,)), (after, (2,))]
    network = simplify(build(nodes))
    (fused,) = (entry.operator for entry in network.nodes[1:])
    assert isinstance(fused, Conv)
    a, c = exact(before.scale), exact(before.shift)
    matrix, offsets = [], []
    for out in range(6):
        factor, shift = exact(after.scale)[out], exact(after.shift)[out]
        moved = Fraction(0)
        for channel in range(2):
            source = channel + 2 * (out // 3)
            weights = exact(conv.weight[out, channel])
            matrix += [factor * w * a[source] for w in weights]
            moved += sum(weights) * c[source]
        offsets.append(factor * (moved + exact(conv.bias)[out]) + shift)
    assert within(fused.weight, matrix, fused.ulps)
    assert covered(Offset(fused.bias, fused.offset_error), offsets)


def test_matmul_plus_add_of_float32_weights_stays_exact():
    rng = np.random.default_rng(0)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"])]
    network, _ = read(make(nodes, (1, 4), {"w": f32(rng, 4, 3), "b": f32(rng, 3)}))
    (fused,) = (entry.operator for entry in network.nodes[1:])
    assert isinstance(fused, Linear)
    assert fused.ulps == 0
    assert fused.offset_error is None


def test_batch_normalization_is_as_close_as_it_says():
    rng = np.random.default_rng(0)
    weights = {name: f32(rng, 50) for name in ("gamma", "beta", "mean")}
    weights["var"] = np.abs(f32(rng, 50)) * np.float32(1e-3)
    entry = node("BatchNormalization", ["x", "gamma", "beta", "mean", "var"], epsilon=1e-5)
    operator = lowered(make([entry], (1, 50), weights)).nodes[1].operator
    assert isinstance(operator, Scale)
    gamma, beta, mean, var = ([Fraction(float(v)) for v in weights[name]] for name in weights)
    epsilon = Fraction(float(np.float32(1e-5)))
    # The squared scale is rational: |s - g / r| <= t |g / r| is checked as bounds on s^2 r^2 / g^2.
    slack = operator.ulps * UNIT
    for s, g, v in zip(exact(operator.scale), gamma, var, strict=True):
        ratio = s * s * (v + epsilon) / (g * g)
        assert (1 - slack) ** 2 <= ratio <= (1 + slack) ** 2
    assert operator.offset_error is not None
    rows = zip(exact(operator.scale), exact(operator.shift), exact(operator.offset_error), beta, mean, strict=True)
    for s, shift, error, b, m in rows:
        # The exact scale is within 3 ulps of the stored one; the offset must be right for all of those.
        for exact_scale in (s * (1 - slack), s * (1 + slack)):
            assert abs(shift - (b - m * exact_scale)) <= error * (1 + 8 * UNIT)


def test_scale_and_shift_that_vary_within_a_channel_are_not_fused_into_a_convolution():
    rng = np.random.default_rng(0)
    conv = Conv(wild(rng, 2, 2, 1, 1), wild(rng, 2))
    varying = Scale(wild(rng, 1, 2, 3, 3), wild(rng, 1, 2, 3, 3))
    nodes = [(Input((1, 2, 3, 3)), ()), (varying, (0,)), (conv, (1,)), (varying, (2,))]
    network = build(nodes)
    assert fuse_scale_before(network) is network
    assert fuse_scale_after(network) is network


def test_a_shift_is_not_moved_into_a_padded_convolution():
    rng = np.random.default_rng(0)
    conv = Conv(wild(rng, 2, 2, 3, 3), wild(rng, 2), padding=(1, 1, 1, 1))
    shifting = Scale(wild(rng, 1, 2, 1, 1), wild(rng, 1, 2, 1, 1))
    scaling = Scale(wild(rng, 1, 2, 1, 1), torch.zeros(1, dtype=torch.float64))
    network = build([(Input((1, 2, 3, 3)), ()), (shifting, (0,)), (conv, (1,))])
    assert fuse_scale_before(network) is network
    network = build([(Input((1, 2, 3, 3)), ()), (scaling, (0,)), (conv, (1,))])
    assert len(fuse_scale_before(network).nodes) == 2


def test_a_value_that_is_read_twice_is_not_fused():
    rng = np.random.default_rng(0)
    linear, scale = Linear(wild(rng, 3, 3), wild(rng, 3)), Scale(wild(rng, 3), wild(rng, 3))
    from verifier.model.operators import Sum

    network = build([(Input((1, 3)), ()), (linear, (0,)), (scale, (1,)), (scale, (2,)), (Sum(), (1, 2, 3))])
    assert fuse_scale_after(network) is network
    assert merge_scales(network) is network


def test_fusing_through_a_flatten():
    rng = np.random.default_rng(0)
    nodes = [
        (Input((1, 2, 3)), ()),
        (Scale(wild(rng, 2, 1), wild(rng, 2, 1)), (0,)),
        (Reshape((1, 6)), (1,)),
        (Linear(wild(rng, 4, 6), wild(rng, 4)), (2,)),
    ]
    network = build(nodes)
    fused = fuse_scale_before(network)
    assert [type(entry.operator) for entry in fused.nodes] == [Input, Reshape, Linear]
    x = wild(rng, 5, 6)
    assert torch.allclose(fused.forward(x), network.forward(x), rtol=1e-12)
