"""Random cases, each from one seed: networks of every kind, and thresholds where engines go wrong.

A margin shifts by t when all bounds of its rows shift by t.  So a disjunct is made with any bounds, its
smallest margin is enumerated, and the bounds are moved to place that minimum where it hurts: at zero, one
rounding error beside it, within solver tolerances, or clearly on one side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fuzz.case import Array, Case, constraints, spec_of
from fuzz.oracle import smallest_margin
from support import networks
from verifier.model.network import Network
from verifier.vnnlib.spec import Disjunct

OFFSETS = (0.0, 1e-12, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Distances of the smallest margin from zero, in units of the outputs' size."""


def random_case(seed: int) -> Case:
    """The case of a seed; the same for the same numpy."""
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    lower, upper = random_box(rng, network.n_inputs)
    usual = int(rng.choice([-1, 1], p=[0.3, 0.7]))
    disjuncts = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))):
        if rng.random() < 0.3:
            lower, upper = random_box(rng, network.n_inputs)
        # Mostly one side for all: a single reachable disjunct would hide the others.
        side = usual if rng.random() < 0.8 else -usual
        disjunct = random_rows(rng, network, lower, upper)
        is_planted = rng.random() < 0.2
        disjunct = planted(rng, network, disjunct) if is_planted else placed(rng, network, disjunct, side)
        disjuncts.append(with_input_row(rng, disjunct) if rng.random() < 0.15 else disjunct)
    return Case(network, spec_of(network, tuple(disjuncts)), seed)


def random_network(rng: np.random.Generator) -> Network:
    """Any kind, at most about a dozen neurons that can be undecided at once."""
    kinds = ["affine", "dense", "deep", "residual", "convolutional", "leaky", "twins"]
    kind = rng.choice(kinds, p=[0.05, 0.3, 0.2, 0.15, 0.1, 0.1, 0.1])
    n_in, n_out = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    if kind == "affine":
        network = networks.dense(rng, (n_in, n_out))
    elif kind == "dense":
        network = networks.dense(rng, (n_in, int(rng.integers(1, 6)), n_out))
    elif kind == "deep":
        network = networks.dense(rng, (n_in, *map(int, rng.integers(1, 4, size=rng.integers(2, 5))), n_out))
    elif kind == "residual":
        network = networks.residual(rng, int(rng.integers(1, 4)), n_out)
    elif kind == "convolutional":
        network = networks.small_convolutional(rng, n_out)
    elif kind == "leaky":
        network = networks.leaky(rng, n_in, int(rng.integers(1, 4)), n_out)
    else:
        network = networks.twins(rng, n_in, int(rng.integers(1, 4)), n_out)
    return restyled(rng, network)


def restyled(rng: np.random.Generator, network: Network) -> Network:
    """The same network with other numbers: integers make exact ties, zeros dead neurons."""
    style = rng.choice(["plain", "integer", "sparse", "uneven"], p=[0.5, 0.2, 0.15, 0.15])

    def change(value: torch.Tensor) -> torch.Tensor:
        if style == "integer":
            return (value * 2).round()
        if style == "sparse":
            return value * torch.from_numpy(rng.random(tuple(value.shape)) < 0.6)
        if style == "uneven":
            return value * torch.from_numpy(2.0 ** rng.integers(-8, 5, size=tuple(value.shape)))
        return value

    return with_parameters(network, change)


def with_parameters(
    network: Network, change: Callable[[torch.Tensor], torch.Tensor], only: int | None = None
) -> Network:
    """The network with every parameter tensor changed, or those of one node."""
    nodes = []
    for index, node in enumerate(network.nodes):
        if only not in (None, index):
            nodes.append(node)
            continue
        values = {field.name: getattr(node.operator, field.name) for field in dataclasses.fields(node.operator)}
        parts = {
            name: change(value)
            for name, value in values.items()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        }
        nodes.append(dataclasses.replace(node, operator=dataclasses.replace(node.operator, **parts)))
    return dataclasses.replace(network, nodes=tuple(nodes))


def random_box(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """A box (lower, upper), each (n,): few sides of many vary, some are points, some are wide."""
    centre = rng.normal(size=n) * rng.choice([0.0, 1.0, 1.0, 10.0])
    widths = rng.uniform(0, rng.choice([0.01, 0.5, 2.0, 10.0]), size=n)
    widths *= (rng.permutation(n) < 4) & (rng.random(n) < 0.9)
    lower, upper = centre - widths, centre + widths
    if rng.random() < 0.7:
        return lower.astype(np.float32).astype(float), upper.astype(np.float32).astype(float)
    if rng.random() < 0.5:
        return np.floor(lower), np.ceil(upper)
    # Decimals as people write them; a point that float32 does not hold would make every answer "unknown".
    lower, upper = np.round(lower, 3), np.round(upper, 3)
    points = lower == upper
    return (
        np.where(points, lower.astype(np.float32), lower),
        np.where(points, upper.astype(np.float32), upper),
    )


def random_rows(rng: np.random.Generator, network: Network, lower: Array, upper: Array) -> Disjunct:
    """A disjunct with bounds still to be placed: comparisons of outputs, random rows, mixed rows."""
    n_rows = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    outputs = np.zeros((n_rows, network.n_outputs))
    inputs = np.zeros((n_rows, network.n_inputs))
    for row in range(n_rows):
        kind = rng.choice(["difference", "one", "any", "mixed"], p=[0.35, 0.25, 0.2, 0.2])
        if kind == "difference" and network.n_outputs > 1:
            better, worse = rng.choice(network.n_outputs, size=2, replace=False)
            outputs[row, better], outputs[row, worse] = -1, 1
        elif kind in ("difference", "one"):
            outputs[row, rng.integers(network.n_outputs)] = rng.choice([-1, 1])
        else:
            outputs[row] = np.round(rng.normal(size=network.n_outputs), int(rng.integers(0, 4)))
        if kind == "mixed":
            inputs[row] = np.round(rng.normal(size=network.n_inputs), 1)
    strict = rng.random(n_rows) < 0.2
    bounds = rng.normal(size=n_rows) * 0.1
    return Disjunct(lower, upper, constraints(inputs, outputs, bounds, strict))


def placed(
    rng: np.random.Generator, network: Network, disjunct: Disjunct, side: int, offsets: Sequence[float] = OFFSETS
) -> Disjunct:
    """The disjunct with its smallest margin moved to ``side`` (its sign) times one of the offsets."""
    found = smallest_margin(network, disjunct)
    if not np.isfinite(found.value):
        return disjunct
    scale = output_scale(network, found.point)
    return shifted(disjunct, found.value - side * float(rng.choice(offsets)) * scale)


def planted(rng: np.random.Generator, network: Network, disjunct: Disjunct) -> Disjunct:
    """The disjunct with bounds that a random corner of the box just meets."""
    rows = disjunct.constraints
    corner = np.where(rng.random(len(disjunct.lower)) < 0.5, disjunct.lower, disjunct.upper)
    y = network.forward(torch.from_numpy(corner).unsqueeze(0)).squeeze(0).numpy()
    slack = float(rng.choice(OFFSETS[:8])) * output_scale(network, corner)
    moved = dataclasses.replace(rows, bounds=rows.margins(corner, y) + rows.bounds + slack)
    return dataclasses.replace(disjunct, constraints=moved)


def with_input_row(rng: np.random.Generator, disjunct: Disjunct) -> Disjunct:
    """The disjunct with one more row, on the inputs alone, that cuts the box somewhere."""
    rows = disjunct.constraints
    coefficients = np.round(rng.normal(size=len(disjunct.lower)), 1)
    inside = rng.uniform(disjunct.lower, disjunct.upper)
    return dataclasses.replace(
        disjunct,
        constraints=constraints(
            np.vstack([rows.inputs, coefficients]),
            np.vstack([rows.outputs, np.zeros(rows.outputs.shape[1])]),
            np.append(rows.bounds, coefficients @ inside),
            np.append(rows.strict, False),
        ),
    )


def shifted(disjunct: Disjunct, by: float) -> Disjunct:
    moved = dataclasses.replace(disjunct.constraints, bounds=disjunct.constraints.bounds + by)
    return dataclasses.replace(disjunct, constraints=moved)


def output_scale(network: Network, x: Array) -> float:
    """The size of the largest value in the network at a point, at least 1."""
    values = network.values(torch.from_numpy(x).unsqueeze(0))
    return max(1.0, *(float(value.abs().max()) for value in values))
