"""Small random networks and boxes for tests: dense, convolutional, residual, with every operator."""

from __future__ import annotations

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
    for layer, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
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
        (Conv(_tensor(rng, 2, 1, *kernel, scale=0.7), _tensor(rng, 2), (1, 2), (0, 0, 1, 0), (1, 2), 2), (3,)),
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


def box(rng: np.random.Generator, n: int, radius: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A random box (lower, upper), each (n,)."""
    centre = rng.normal(size=n)
    widths = rng.uniform(0, radius, size=n)
    return centre - widths, centre + widths
