"""Random questions to small networks."""

from __future__ import annotations

import numpy as np
import torch

from support import networks
from support.replay import TorchReplay
from verifier.query import Query
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(array, np.float64)) for array in arrays]


def query_of(rng, network, count, radius=1.0):
    """``count`` random conjunctions over one box, some with rows that mix inputs and outputs."""
    lower, upper = networks.box(rng, network.n_inputs, radius)
    disjuncts = []
    for _ in range(count):
        rows = int(rng.integers(1, 4))
        inputs = rng.normal(size=(rows, network.n_inputs)) * (rng.random() < 0.3)
        outputs = rng.normal(size=(rows, network.n_outputs))
        constraints = LinearConstraints(inputs, outputs, rng.normal(size=rows), np.zeros(rows, bool))
        disjuncts.append(Disjunct(lower, upper, constraints))
    return Query.of(network, Spec(network.n_inputs, network.n_outputs, tuple(disjuncts)), TorchReplay(network))
