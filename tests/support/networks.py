"""Small random networks and boxes for tests: dense, convolutional, residual, with every operator."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from verifier.model.network import Network, build
from verifier.model.operators import Concat, Conv, Gather, Input, Linear, Relu, Reshape, Scale, Sum


def _tensor(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Random values that float32 represents, so that the ONNX writer loses nothing."""
    values = (rng.normal(size=shape) * scale).astype(np.float32)
    return torch.from_numpy(values).double()


def linear(rng: np.random.Generator, n_in: int, n_out: int) -> Linear:
    return Linear(_tensor(rng, n_out, n_in, scale=1.2 / np.sqrt(n_in)), _tensor(rng, n_out, scale=0.4))


def dense(rng: np.random.Generator, sizes: tuple[int, ...]) -> Network:
    """Linear, Relu, ..., Linear over inputs of shape (1, sizes[0])."""
    nodes: list = [(Input((1, sizes[0])), ())]
    for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
        if layer:
            nodes.append((Relu(), (len(nodes) - 1,)))
        nodes.append((linear(rng, n_in, n_out), (len(nodes) - 1,)))
    return build(nodes, "dense")


def residual(rng: np.random.Generator, width: int = 3, n_out: int = 2) -> Network:
    """A dense network with a skip connection around two layers."""
    nodes = [
        (Input((1, width)), ()),
        (linear(rng, width, width), (0,)),
        (Relu(), (1,)),
        (linear(rng, width, width), (2,)),
        (Relu(), (3,)),
        (linear(rng, width, width), (4,)),
        (Sum(), (2, 5)),
        (Relu(), (6,)),
        (linear(rng, width, n_out), (7,)),
    ]
    return build(nodes, "residual")


def convolutional(rng: np.random.Generator, n_out: int = 2) -> Network:
    """Every affine operator on a (1, 2, 4, 3) input: strided, padded, dilated and grouped convolutions."""
    kernel = (2, 2)
    nodes = [
        (Input((1, 2, 4, 3)), ()),
        (Scale(_tensor(rng, 1, 2, 1, 1), _tensor(rng, 1, 2, 1, 1)), (0,)),
        (
            Conv(_tensor(rng, 2, 2, *kernel, scale=0.5), _tensor(rng, 2), (2, 1), (1, 0, 0, 1), (1, 1), 1),
            (1,),
        ),
        (Relu(), (2,)),
        (
            Conv(_tensor(rng, 2, 1, *kernel, scale=0.7), _tensor(rng, 2), (1, 2), (0, 0, 1, 0), (1, 2), 2),
            (3,),
        ),
        (Relu(), (4,)),
    ]
    network = build(nodes)
    size = network.nodes[-1].size
    shuffled = np.append(rng.permutation(size), [-1, 0]).reshape(1, -1)
    nodes += [
        (Reshape((1, size)), (5,)),
        (Gather(torch.from_numpy(shuffled)), (6,)),
        (Concat(1), (6, 7)),
        (linear(rng, 2 * size + 2, n_out), (8,)),
    ]
    return build(nodes, "convolutional")


def small_convolutional(rng: np.random.Generator, n_out: int = 2) -> Network:
    """One padded convolution on a (1, 1, 3, 3) input: 8 neurons, few enough to enumerate."""
    convolution = Conv(_tensor(rng, 2, 1, 2, 2), _tensor(rng, 2), (2, 2), (1, 0, 0, 1))
    nodes = [(Input((1, 1, 3, 3)), ()), (convolution, (0,)), (Relu(), (1,))]
    size = build(nodes).nodes[-1].size
    nodes += [(Reshape((1, size)), (2,)), (linear(rng, size, n_out), (3,))]
    return build(nodes, "small_convolutional")


def stacked_convolutions(rng: np.random.Generator, n_out: int = 2) -> Network:
    """Two convolutions on a (1, 1, 4, 4) input and a dense layer: 26 to 53 neurons."""
    middle, last = int(rng.integers(2, 5)), int(rng.integers(2, 9))
    nodes: list = [
        (Input((1, 1, 4, 4)), ()),
        (Conv(_tensor(rng, middle, 1, 2, 2, scale=0.6), _tensor(rng, middle, scale=0.4), (1, 1)), (0,)),
        (Relu(), (1,)),
        (Conv(_tensor(rng, 2, middle, 2, 2, scale=0.5), _tensor(rng, 2, scale=0.4), (1, 1)), (2,)),
        (Relu(), (3,)),
        (Reshape((1, 8)), (4,)),
        (linear(rng, 8, last), (5,)),
        (Relu(), (6,)),
        (linear(rng, last, n_out), (7,)),
    ]
    return build(nodes, "stacked_convolutions")


def leaky(rng: np.random.Generator, n_in: int, width: int, n_out: int) -> Network:
    """LeakyReLU as it is lowered: ``relu(z) - slope * relu(-z)``."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    nodes = [
        (Input((1, n_in)), ()),
        (linear(rng, n_in, width), (0,)),
        (Relu(), (1,)),
        (Scale(-one, zero), (1,)),
        (Relu(), (3,)),
        (Scale(-one / 8, zero), (4,)),
        (Sum(), (2, 5)),
        (linear(rng, width, n_out), (6,)),
    ]
    return build(nodes, "leaky")


def twins(rng: np.random.Generator, n_in: int, width: int, n_out: int) -> Network:
    """Two branches over one layer that partly cancel, joined by Concat: relaxations lose what they share."""
    nodes = [
        (Input((1, n_in)), ()),
        (linear(rng, n_in, width), (0,)),
        (Relu(), (1,)),
        (linear(rng, width, width), (1,)),
        (Relu(), (3,)),
        (Concat(1), (2, 4)),
        (linear(rng, 2 * width, n_out), (5,)),
    ]
    return build(nodes, "twins")


def box(rng: np.random.Generator, n: int, radius: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A random box (lower, upper), each (n,)."""
    centre = rng.normal(size=n)
    widths = rng.uniform(0, radius, size=n)
    return centre - widths, centre + widths
