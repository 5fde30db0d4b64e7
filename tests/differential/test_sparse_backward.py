"""Backward passes on sparse matrices give the bounds of those on dense tensors."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from support import networks
from verifier.bounds import blocks_kernel
from verifier.bounds.blocks import blocks_of
from verifier.bounds.crown import Relaxed, backward, intermediate_bounds, relax
from verifier.bounds.level import Bounds
from verifier.bounds.relaxation import Relaxation, triangle
from verifier.bounds.sparse_backward import Matrices, by_place, sparse_least
from verifier.model.network import Network, build
from verifier.model.operators import Concat, Gather, Input, Relu, Reshape, Scale, Sum

KINDS = {
    "dense": lambda rng: networks.dense(rng, (4, 9, 8, 3)),
    "residual": lambda rng: networks.residual(rng, 6, 3),
    "convolutional": lambda rng: networks.convolutional(rng, 3),
    "stacked": lambda rng: networks.stacked_convolutions(rng, 3),
    "moving": lambda rng: moving(rng),
}


def moving(rng: np.random.Generator) -> Network:
    """All operators that a pass meets: one node read three times, values gathered twice, zeros inserted."""
    index = torch.tensor([[3, 0, -1, 2, 2, 5]])
    vector = lambda: torch.from_numpy(rng.normal(size=(1, 6)))  # noqa: E731
    return build(
        [
            (Input((1, 4)), ()),
            (networks.linear(rng, 4, 6), (0,)),
            (Relu(), (1,)),
            (Gather(index), (2,)),
            (Scale(vector(), vector()), (3,)),
            (Sum(), (2, 4, 2)),
            (Relu(), (5,)),
            (Concat(1), (6, 0)),
            (networks.linear(rng, 10, 6), (7,)),
            (Reshape((1, 2, 3)), (8,)),
            (Relu(), (9,)),
            (Reshape((1, 6)), (10,)),
            (networks.linear(rng, 6, 3), (11,)),
        ]
    )


def dense_extremes(relaxed: Relaxed, index: int, places: Tensor, sign: float) -> Tensor:
    node = relaxed.network.nodes[index]
    rows = torch.zeros(1, len(places), node.size, dtype=torch.float64)
    rows[0, torch.arange(len(places)), places] = sign
    lower, upper = (side.flatten(1) for side in (relaxed.bounds[0].lower, relaxed.bounds[0].upper))
    return backward(relaxed, index, rows.reshape(1, len(places), *node.shape)).over_box(lower, upper)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(8))
def test_every_node_is_bounded_as_by_dense_tensors(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    lower, upper = (torch.from_numpy(side)[None] for side in networks.box(rng, network.n_inputs, 0.4))
    nodes = intermediate_bounds(network, lower, upper)
    relaxed = relax(network, nodes)
    matrices = Matrices(network)
    points = lower + torch.from_numpy(rng.uniform(size=(200, network.n_inputs))) * (upper - lower)
    values = network.values(points)
    for index, node in enumerate(network.nodes[1:], 1):
        places = by_place(torch.from_numpy(rng.permutation(node.size)), node.shape)
        for sign in (1.0, -1.0):
            sparse = sparse_least(matrices, relaxed, index, places, sign)
            assert torch.allclose(sparse, dense_extremes(relaxed, index, places, sign), rtol=1e-12, atol=1e-12)
            assert (sign * values[index].flatten(1)[:, places] >= sparse).all()


def regions(
    rng: np.random.Generator, network: Network, lower: Tensor, upper: Tensor, batch: int, count: int
) -> Relaxed:
    """Regions of one box with narrower bounds, neurons split either way, slopes per row and multipliers."""
    nodes = intermediate_bounds(network, lower, upper)
    relaxed = relax(network, nodes)
    lines, multipliers = {}, {}
    for k in network.relus:
        pre = nodes[network.nodes[k].inputs[0]]
        shape = (batch, *pre.lower.shape[1:])
        low, high = (side.expand(shape).clone() for side in (pre.lower, pre.upper))
        sign = torch.from_numpy(rng.integers(-1, 2, size=shape)) * pre.unstable
        low, high = torch.where(sign > 0, 0.0, low), torch.where(sign < 0, 0.0, high)
        slopes = torch.from_numpy(rng.uniform(size=(batch, count, *shape[1:])))
        lines[k] = triangle(Bounds(low, high, pre.level), slopes)
        multipliers[k] = (sign * torch.from_numpy(rng.exponential(size=shape))).unsqueeze(1)
    return replace(relaxed, relaxations=lines, multipliers=multipliers)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(6))
def test_regions_are_bounded_as_on_dense_tensors(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    batch, count = int(rng.integers(1, 5)), int(rng.integers(1, 70))
    lower, upper = (torch.from_numpy(side)[None] for side in networks.box(rng, network.n_inputs, 0.6))
    relaxed = regions(rng, network, lower, upper, batch, count)
    last = len(network.nodes) - 1
    rows = torch.from_numpy(rng.normal(size=(rng.choice([1, batch]), count, *network.output_shape)))
    inputs = torch.from_numpy(rng.normal(size=(batch, count, network.n_inputs))) if seed % 2 else None
    shown: list[dict[int, Tensor]] = [{}, {}]
    dense = backward(relaxed, last, rows, inputs, shown[0].__setitem__)
    sparse = backward(replace(relaxed, matrices=Matrices(network)), last, rows, inputs, shown[1].__setitem__)
    close = partial(torch.allclose, rtol=1e-11, atol=1e-11)
    assert close(sparse.coefficients, dense.coefficients.expand(batch, count, -1))
    assert close(sparse.constants, dense.constants.expand(batch, count))
    # What dense passes charge for neurons that are inactive everywhere is no error.
    assert (sparse.error <= 1.0001 * dense.error).all()
    assert (sparse.error >= 0.01 * dense.error).all()
    for k in network.relus:
        undecided = (relaxed.relaxations[k].upper_intercept != 0).any(1).any(0).flatten()
        seen = [side[k].flatten(2).expand(batch, count, -1)[:, :, undecided] for side in shown]
        assert close(*seen)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_some_relus_of_the_networks_above_are_undecided(kind: str) -> None:
    found = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = KINDS[kind](rng)
        lower, upper = (torch.from_numpy(side)[None] for side in networks.box(rng, network.n_inputs, 0.4))
        nodes = intermediate_bounds(network, lower, upper)
        found += sum(int(nodes[network.nodes[k].inputs[0]].unstable.sum()) for k in network.relus)
    assert found >= 8


def test_the_error_of_a_pass_is_subtracted() -> None:
    rng = np.random.default_rng(3)
    network = networks.stacked_convolutions(rng)
    point = torch.from_numpy(rng.normal(size=(1, network.n_inputs)))
    nodes = intermediate_bounds(network, point, point)
    relaxed, last = relax(network, nodes), len(network.nodes) - 1
    found = sparse_least(Matrices(network), relaxed, last, torch.tensor([0]), 1.0)
    exact = Relaxed(network, nodes, relaxed.relaxations, dict.fromkeys(relaxed.sensitivities))
    bare = sparse_least(Matrices(network), exact, last, torch.tensor([0]), 1.0)
    assert 1e-17 < float(bare - found) < 1e-9


def test_a_line_that_is_neither_zero_nor_the_identity_is_kept() -> None:
    rng = np.random.default_rng(5)
    network = networks.stacked_convolutions(rng)
    lower, upper = (torch.from_numpy(side)[None] for side in networks.box(rng, network.n_inputs, 0.4))
    relaxed = relax(network, intermediate_bounds(network, lower, upper))
    half = {}
    for k, line in relaxed.relaxations.items():
        slope = torch.full_like(line.upper_slope, 0.5)
        half[k] = Relaxation(slope, slope, torch.zeros_like(slope))
    places, last = torch.arange(network.n_outputs), len(network.nodes) - 1
    changed = replace(relaxed, relaxations=half)
    sparse = sparse_least(Matrices(network), changed, last, places, 1.0)
    assert torch.allclose(sparse, dense_extremes(changed, last, places, 1.0), rtol=1e-12, atol=1e-12)


def random_pattern(rng: np.random.Generator, rows: int, columns: int, patterns: int) -> sp.csr_array:
    """Rows of few different patterns, some of them empty, stored zeros among the entries."""
    chosen = rng.uniform(size=(patterns, columns)) < rng.uniform(0, 0.7, size=(patterns, 1))
    mask = chosen[rng.integers(patterns, size=rows)]
    values = rng.normal(size=(rows, columns)) * (rng.uniform(size=(rows, columns)) < 0.9)
    where = np.nonzero(mask)
    return sp.csr_array((values[where], where), shape=(rows, columns))


@pytest.mark.parametrize("seed", range(30))
def test_a_product_leaves_out_what_is_not_live_or_not_wanted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = random_pattern(rng, int(rng.integers(1, 40)), int(rng.integers(1, 30)), int(rng.integers(1, 6)))
    blocks = blocks_of(matrix)
    live, wanted = rng.uniform(size=matrix.shape[1]) < 0.7, rng.uniform(size=matrix.shape[0]) < 0.7
    x = np.where(live[:, None], rng.normal(size=(matrix.shape[1], 5)), np.nan)
    y, live_y = np.full((matrix.shape[0], 5), np.nan), np.empty(matrix.shape[0], dtype=np.bool_)
    blocks_kernel.multiply(*blocks.arrays, x, live, wanted, y, live_y)
    truth: NDArray[np.float64] = matrix.toarray() @ np.where(live[:, None], x, 0)
    assert np.allclose(y[live_y], truth[live_y], rtol=1e-13, atol=1e-13)
    assert not truth[wanted & ~live_y].any()
    assert not (live_y & ~wanted).any()


@pytest.mark.parametrize("seed", range(10))
def test_a_block_has_all_rows_of_one_pattern(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = random_pattern(rng, 50, 20, 4)
    blocks = blocks_of(matrix)
    rebuilt = np.zeros(matrix.shape)
    for b in range(len(blocks.row_start) - 1):
        rows = blocks.rows[blocks.row_start[b] : blocks.row_start[b + 1]]
        columns = blocks.columns[blocks.column_start[b] : blocks.column_start[b + 1]]
        values = blocks.values[blocks.value_start[b] : blocks.value_start[b + 1]]
        rebuilt[np.ix_(rows, columns)] = values.reshape(len(rows), len(columns))
    assert (rebuilt == matrix.toarray()).all()
    assert len(blocks.row_start) - 1 <= 4
