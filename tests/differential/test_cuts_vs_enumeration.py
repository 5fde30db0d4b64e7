"""Hull cuts against sampled inputs, and branch and cut against exhaustive enumeration of activation patterns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import networks
from support.oracle import minimum_margin
from verifier.bounds.crown import intermediate_bounds
from verifier.deadline import Deadline
from verifier.encodings.milp.hull_cuts import HullCuts
from verifier.encodings.milp.triangle import triangle_program
from verifier.model.network import Network, Node
from verifier.search.branch_and_cut import BranchAndCut, CutOptions
from verifier.vnnlib.spec import Disjunct, LinearConstraints


def thresholding(rng: np.random.Generator) -> Network:
    """A dense network whose first neurons read one input each, but for a little of the others."""
    network = networks.dense(rng, (3, 6, 5, 2))
    first = network.nodes[1].operator
    strong = torch.zeros_like(first.weight)
    strong[torch.arange(6), torch.arange(6) % 3] = torch.from_numpy(rng.choice([-1.0, 1.0], 6))
    weight = strong + 0.02 * first.weight
    operator = type(first)(weight, 0.3 * first.bias)
    nodes = list(network.nodes)
    nodes[1] = Node(operator, nodes[1].inputs, nodes[1].shape)
    return Network(tuple(nodes))


def cases(seed: int) -> tuple[Network, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    make = (thresholding, lambda r: networks.dense(r, (3, 6, 5, 2)), networks.small_convolutional, networks.residual)
    network = make[seed % 4](rng)
    lower, upper = networks.box(rng, network.n_inputs, 0.6)
    return network, lower, upper


def program_of(network: Network, lower: np.ndarray, upper: np.ndarray):
    nodes = intermediate_bounds(network, torch.from_numpy(lower)[None], torch.from_numpy(upper)[None])
    return triangle_program(network, lower, upper, nodes)


def columns_at(network: Network, program, x: np.ndarray) -> np.ndarray:
    """The true values of all columns at inputs (K, n): (K, columns)."""
    found = np.zeros((len(x), program.terms.count))
    found[:, : x.shape[1]] = x
    neurons = program.neurons
    for i in range(len(neurons)):  # a neuron reads older columns only
        pre = found @ neurons.pre.matrix[[i], : program.terms.count].toarray()[0] + neurons.pre.constant[i]
        found[:, neurons.column[i]] = np.maximum(pre, 0)
    return found


@pytest.mark.parametrize("seed", range(24))
def test_rows_and_cuts_hold_at_every_input(seed):
    network, lower, upper = cases(seed)
    program = program_of(network, lower, upper)
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 2, (2000, len(lower)))
    inside = rng.uniform(0, 1, (2000, len(lower)))
    x = lower + np.vstack([corners, inside]) * (upper - lower)
    truth = columns_at(network, program, x)
    y = network.forward(torch.from_numpy(x)).numpy()
    assert np.allclose(truth @ program.output.matrix[:, : truth.shape[1]].toarray().T + program.output.constant, y)
    model = program.model
    values = truth @ model.rows.toarray().T
    assert (values <= model.row_upper + model.row_error + 1e-12).all()
    assert (values >= model.row_lower - model.row_error - 1e-12).all()
    assert (truth >= model.lower - 1e-12).all()
    assert (truth <= model.upper + 1e-12).all()
    hull = HullCuts(program)
    made = 0
    for _ in range(60):
        point = rng.uniform(model.lower, model.upper)
        point[program.neurons.column] = model.upper[program.neurons.column]
        cuts = hull.separate(point, np.ones(len(program.neurons)), 1e-6)
        made += len(cuts)
        assert (cuts.rows @ point > cuts.sides).all()
        assert (truth @ cuts.rows.toarray().T <= cuts.sides + cuts.error + 1e-12).all()
    assert made > 0 or not len(program.neurons)


@pytest.mark.parametrize("seed", range(40))
def test_branch_and_cut_agrees_with_enumeration(seed):
    network, lower, upper = cases(seed)
    n_outputs = network.n_outputs
    row = np.eye(n_outputs)[0] - (np.eye(n_outputs)[1] if n_outputs > 1 else 0)
    free = LinearConstraints(np.zeros((1, len(lower))), row[None], np.zeros(1), np.zeros(1, bool))
    least = minimum_margin(network, Disjunct(lower, upper, free))[0]
    program = program_of(network, lower, upper)
    root = BranchAndCut(program, HullCuts(program), row, lambda x: None)
    root.bound_root(Deadline.after(30))
    assert root.root <= least + 1e-7
    # Shift the output so that the least margin is just above, and just below, zero.
    for shift in (1e-3, -1e-3):
        moved = program_with_margin(program, row, shift - least)
        for rounds in (0, 4):
            search = BranchAndCut(moved, HullCuts(moved), row, lambda x: None, CutOptions(rounds=rounds))
            assert search.work(Deadline.after(30)) == (shift > 0)


def program_with_margin(program, row: np.ndarray, shift: float):
    """The same program with ``row`` of the output larger by ``shift``."""
    from dataclasses import replace

    constant = program.output.constant + shift * row / (row @ row)
    return replace(program, output=replace(program.output, constant=constant))
