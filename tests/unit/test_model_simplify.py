"""Simplifiers keep the function, remove what they should, and leave everything else as the same object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.networks import dense, residual
from support.onnx_models import check_invariants
from verifier.model.network import Network, build
from verifier.model.operators import Concat, Gather, Input, Linear, Relu, Reshape, Scale, Sum
from verifier.model.simplify import SIMPLIFIERS, simplify


def kinds(network: Network) -> list[str]:
    return [type(entry.operator).__name__ for entry in network.nodes]


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Chains and joins of affine operators, moves and ReLUs over six values, with dead ends."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes: list = [(Input((1, 6)), ())]
    shapes = [(1, 6)]
    for _ in range(draw(st.integers(1, 14))):
        source = draw(st.integers(max(0, len(nodes) - 3), len(nodes) - 1))
        shape = shapes[source]
        kind = draw(st.sampled_from(["linear", "scale", "relu", "reshape", "gather", "permute", "sum", "one"]))
        inputs = (source,)
        if kind == "linear":
            width = shape[-1]
            operator = Linear(
                torch.from_numpy(rng.normal(size=(width, width))), torch.from_numpy(rng.normal(size=width))
            )
        elif kind == "scale":
            full = shape if rng.random() < 0.5 else (shape[-1],)
            operator = Scale(torch.from_numpy(rng.normal(size=full)), torch.from_numpy(rng.normal(size=full)))
        elif kind == "one":
            operator = Scale(tensor(1.0), tensor(0.0))
        elif kind == "relu":
            operator = Relu()
        elif kind == "reshape":
            operator = Reshape(draw(st.sampled_from([(1, 6), (6,), (2, 3), (1, 3, 2)])))
        elif kind == "gather":
            operator = Gather(torch.from_numpy(rng.integers(-1, 6, size=shape)))
        elif kind == "permute":
            operator = Gather(torch.from_numpy(rng.permutation(6).reshape(shape)))
        else:
            other = draw(st.integers(0, len(nodes) - 1))
            if shapes[other] != shape:
                continue
            operator, inputs = Sum(), (source, other)
        nodes.append((operator, inputs))
        shapes.append(tuple(operator.output_shape(tuple(shapes[i] for i in inputs))))
    return build(nodes)


@settings(deadline=None, max_examples=150)
@given(networks(), st.integers(0, 2**32 - 1))
def test_every_simplifier_keeps_the_function(network, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 6)))
    expected = network.forward(x)
    scale = 1e-10 * (1 + max(value.abs().max() for value in network.values(x)))
    for simplifier in (*SIMPLIFIERS, simplify):
        found = simplifier(network)
        check_invariants(found)
        assert found.output_shape == network.output_shape
        assert torch.allclose(found.forward(x), expected, rtol=1e-9, atol=float(scale))


@settings(deadline=None, max_examples=50)
@given(networks())
def test_nothing_is_left_to_simplify(network):
    once = simplify(network)
    for simplifier in SIMPLIFIERS:
        assert simplifier(once) is once
    used = {source for entry in once.nodes for source in entry.inputs}
    assert used >= set(range(len(once.nodes) - 1))


@pytest.mark.parametrize("make", [residual, lambda rng: dense(rng, (3, 4, 2))])
def test_networks_that_are_simple_stay_the_same_object(make):
    network = make(np.random.default_rng(0))
    assert simplify(network) is network


def test_chains_of_moves_become_one():
    nodes = [
        (Input((2, 3)), ()),
        (Reshape((6,)), (0,)),
        (Gather(torch.tensor([5, 4, -1, 2])), (1,)),
        (Reshape((2, 2)), (2,)),
        (Gather(torch.tensor([[3, 0, -1]])), (3,)),
    ]
    network = simplify(build(nodes))
    assert kinds(network) == ["Input", "Gather"]
    operator = network.nodes[1].operator
    assert isinstance(operator, Gather)
    assert operator.index.tolist() == [[2, 5, -1]]


def test_opposite_transposes_vanish():
    transpose = torch.arange(6).reshape(2, 3).T.contiguous()
    back = torch.arange(6).reshape(3, 2).T.contiguous()
    nodes = [(Input((2, 3)), ()), (Gather(transpose), (0,)), (Relu(), (1,)), (Gather(back), (2,))]
    assert kinds(simplify(build(nodes))) == ["Input", "Relu"]


def test_a_selection_is_not_moved_behind_a_relu():
    """It would enlarge the ReLU."""
    nodes = [(Input((1, 6)), ()), (Gather(torch.tensor([[0, 2]])), (0,)), (Relu(), (1,))]
    assert kinds(simplify(build(nodes))) == ["Input", "Gather", "Relu"]


def test_a_permutation_before_a_linear_layer_permutes_its_columns():
    weight = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    nodes = [
        (Input((3,)), ()),
        (Gather(torch.tensor([[2, 0, 1]])), (0,)),
        (Linear(weight, tensor(0.0, 0.0)), (1,)),
    ]
    network = simplify(build(nodes))
    assert kinds(network) == ["Input", "Reshape", "Linear"]
    operator = network.nodes[2].operator
    assert isinstance(operator, Linear)
    assert operator.weight.tolist() == [[1, 2, 0], [4, 5, 3]]


def test_identities_of_every_kind():
    nodes = [
        (Input((1, 2)), ()),
        (Sum(), (0,)),
        (Concat(1), (1,)),
        (Scale(tensor(1.0), tensor(0.0)), (2,)),
        (Gather(torch.tensor([[0, 1]])), (3,)),
        (Reshape((1, 2)), (4,)),
        (Relu(), (5,)),
        (Scale(tensor(1.0), tensor(0.0)), (6,)),
    ]
    assert kinds(simplify(build(nodes))) == ["Input", "Relu"]


def test_an_identity_network_keeps_one_operator():
    nodes = [(Input((1, 2)), ()), (Scale(tensor(1.0), tensor(0.0)), (0,))]
    assert kinds(simplify(build(nodes))) == ["Input", "Reshape"]


def test_a_scale_that_is_only_nearly_one_stays():
    operator = Scale(tensor(1.0), tensor(0.0), ulps=1)
    network = build([(Input((1, 2)), ()), (operator, (0,))])
    assert kinds(simplify(network)) == ["Input", "Scale"]


def test_dead_nodes_go_and_the_input_stays():
    nodes = [(Input((1, 2)), ()), (Relu(), (0,)), (Gather(torch.tensor([[-1, -1]])), (0,))]
    assert kinds(simplify(build(nodes))) == ["Input", "Gather"]
