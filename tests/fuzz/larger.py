"""Cases with up to sixty ReLUs: deep, wide, convolutional and residual networks, for searches that must branch.

Too many neurons to enumerate: a MILP tells the truth about them, within its tolerances.  So thresholds stay mostly
clear of ties, where every engine would search until its time is over.
"""

from __future__ import annotations

import numpy as np
import torch

from fuzz.case import Array, Case, spec_of
from fuzz.generate import placed, planted, random_case, random_rows, with_parameters
from support import networks
from verifier.model.network import Network

OFFSETS = (1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 1e-2, 3e-2, 3e-2, 0.1, 0.3)
"""Distances of the smallest margin from zero, in units of the outputs' size."""
EVERY = 3
"""One case in so many is a larger one."""


def mixed_case(seed: int) -> Case:
    """The case of a seed: a tiny one or, every third time, a larger one."""
    return larger_case(seed) if seed % EVERY == EVERY - 1 else random_case(seed)


def larger_case(seed: int) -> Case:
    """The larger case of a seed; the same for the same numpy."""
    rng = np.random.default_rng([seed, 1])
    network = larger_network(rng)
    lower, upper = larger_box(rng, network.n_inputs)
    side = int(rng.choice([-1, 1], p=[0.4, 0.6]))
    disjuncts = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
        disjunct = random_rows(rng, network, lower, upper)
        is_planted = rng.random() < 0.15
        disjuncts.append(
            planted(rng, network, disjunct) if is_planted else placed(rng, network, disjunct, side, OFFSETS)
        )
    return Case(network, spec_of(network, tuple(disjuncts)), seed)


def larger_network(rng: np.random.Generator) -> Network:
    """Five to sixty ReLUs, most of them undecided on the boxes of ``larger_box``."""
    n_out = int(rng.integers(1, 5))
    kind = rng.choice(["dense", "deep", "residual", "convolutional"])
    if kind == "dense":
        widths = rng.integers(3, 21, size=rng.integers(1, 4))
        network = networks.dense(rng, (int(rng.integers(2, 9)), *map(int, widths), n_out))
    elif kind == "deep":
        layers = int(rng.integers(4, 9))
        widths = rng.integers(3, 60 // layers + 1, size=layers)
        network = networks.dense(rng, (int(rng.integers(2, 6)), *map(int, widths), n_out))
    elif kind == "residual":
        network = networks.residual(rng, int(rng.integers(2, 21)), n_out)
    else:
        network = networks.stacked_convolutions(rng, n_out)
    if rng.random() < 0.2:
        return with_parameters(network, lambda value: value * (torch.from_numpy(rng.random(tuple(value.shape)) < 0.6)))
    return network


def larger_box(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """A box (lower, upper), each (n,), of float32 numbers; sides of different widths, some of them points."""
    centre = rng.normal(size=n) * 0.5
    widths = rng.uniform(0.2, 1.0, size=n) * rng.choice([0.1, 0.3, 0.6, 1.0]) * (rng.random(n) < 0.9)
    return (centre - widths).astype(np.float32).astype(float), (centre + widths).astype(np.float32).astype(float)
