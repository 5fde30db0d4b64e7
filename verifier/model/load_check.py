"""Does the network compute what onnxruntime computes?  Compared on random points at every load.

The network runs in float64, onnxruntime in the model's own type of unit roundoff u (2**-24 for float32).
How far apart may they be?  One operator that sums n products makes an error of at most n u (|M| |x| + |b|),
and in practice sqrt(n) instead of n (roundings behave like random ones: Higham and Mary, "A new approach to
probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019, with lambda = 2).  An error at a node
reaches output j multiplied by the derivative of the output there, so to first order

    |difference_j| <= sum over nodes i of  |d y_j / d z_i| . (4 + 2 sqrt(n_i)) u (|M_i| |x_i| + |b_i|)

The derivatives come from one backward pass at the point.  Bounding them by products of |M| instead would be
rigorous, and vacuous for deep networks.  A ReLU whose input is near 0 counts as active, since rounding may
switch it.  Twice this sum is allowed; measured differences stay below a tenth of it, while a misread pad,
axis or attribute is off by many orders of magnitude.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.errors import ModelError
from verifier.model.network import Network
from verifier.model.operators import Affine, Concat, Conv, Gather, Input, Relu, Reshape
from verifier.model.replay import nearest_inside

Array = NDArray[np.float64]


class Runner(Protocol):
    """The part of a replay that the check needs."""

    def run(self, x: Array) -> Array: ...


UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}
# The unit that the operators' ulps and offset errors are counted in.
STORED_UNIT = 2.0**-53
SAFETY = 2.0
# Differences that underflow alone can make.
NEGLIGIBLE = 1e-30
# A ReLU input above this part of its layer's largest one, times -1, counts as active.
NEAR_ZERO = 2.0**-10
MOST_OUTPUTS = 64
# Numbers held per node in the backward pass.
MEMORY = 2**22


def check(
    network: Network,
    replay: Runner,
    lower: Array | None = None,
    upper: Array | None = None,
    seed: int = 0,
    points: int = 4,
) -> None:
    """Raise ModelError unless the network and the replay agree on ``points`` random points.

    lower, upper: (n_inputs,) the box to take points from, its corners among them; without one the points are
    drawn from N(0, 1) and from the unit cube.
    """
    rng = np.random.default_rng(seed)
    inputs = _points(network, lower, upper, rng, points)
    expected, tolerances = expectation(network, inputs, rng)
    for x, wanted, tolerance in zip(inputs, expected, tolerances, strict=True):
        _compare(x, replay.run(x), wanted, tolerance)


def _compare(x: Array, found: Array, expected: Array, tolerance: Array) -> None:
    """One point: the replay's outputs, the network's, and how far apart they may be, each (n_outputs,)."""
    if found.shape != expected.shape:
        raise ModelError(
            f"onnxruntime gives {found.size} output values where {expected.size} were expected; "
            "export the model with fixed sizes"
        )
    if not np.isfinite(found).all():
        raise ModelError(
            f"onnxruntime gives a NaN or infinite output ({_excerpt(found)}) for the input ({_excerpt(x)}); "
            "check the model's weights and the range of its inputs"
        )
    excess = np.abs(found - expected) - tolerance
    worst = int(np.argmax(excess))
    if not excess[worst] <= 0:
        raise ModelError(
            f"output {worst} is {found[worst]:.9g} in onnxruntime but {expected[worst]:.9g} in the network "
            f"read from the file (rounding explains {tolerance[worst]:.1e}) for the input ({_excerpt(x)}); "
            "the model cannot be used, please report it"
        )


def expectation(network: Network, points: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """The network's outputs and how far the replay's may be from them, both (B, n_outputs).

    points: (B, n_inputs).  Of more than ``MOST_OUTPUTS`` outputs a random choice gets tolerances of their
    own, the others get the largest one.
    """
    values = network.values(torch.from_numpy(points))
    errors = _local_errors(network, values)
    active = _active(network, values, errors)
    chosen = np.arange(network.n_outputs)
    if len(chosen) > MOST_OUTPUTS:
        chosen = np.sort(rng.choice(chosen, MOST_OUTPUTS, replace=False))
    largest = len(points) * max(node.size for node in network.nodes)
    rows = max(1, MEMORY // largest)
    sums = np.concatenate(
        [_amplified(network, active, errors, len(points), chosen[i : i + rows]) for i in range(0, len(chosen), rows)],
        axis=1,
    )
    tolerances = np.repeat(sums.max(axis=1, keepdims=True), network.n_outputs, axis=1)
    tolerances[:, chosen] = sums
    return values[-1].reshape(len(points), -1).numpy(), SAFETY * tolerances + NEGLIGIBLE


def _points(network: Network, lower: Array | None, upper: Array | None, rng: np.random.Generator, count: int) -> Array:
    """Points that the input type represents: (count, n_inputs)."""
    n = network.n_inputs
    if lower is None or upper is None:
        drawn = [rng.normal(size=n) if i % 2 else rng.uniform(size=n) for i in range(count)]
        low, high = np.full(n, -np.inf), np.full(n, np.inf)
    else:
        low, high = lower, upper
        corners = [low, high, *(np.where(rng.uniform(size=n) < 0.5, low, high) for _ in range(count))]
        inner = [low + rng.uniform(size=n) * (high - low) for _ in range(count)]
        drawn = (corners[: (count + 1) // 2] + inner)[:count]
    return np.stack([nearest_inside(x, low, high, network.input_dtype) for x in drawn])


def _local_errors(network: Network, values: list[Tensor]) -> list[Tensor | None]:
    """What rounding in the model's own type can change in each node's value; None where nothing."""
    unit = UNIT_ROUNDOFF[network.input_dtype]
    errors: list[Tensor | None] = []
    for i, node in enumerate(network.nodes):
        operator = node.operator
        if isinstance(operator, Input | Relu | Reshape | Gather | Concat):
            errors.append(None)
            continue
        assert isinstance(operator, Affine)
        shapes = network.input_shapes(i)
        magnitude = operator.absolute(*(values[source].abs() for source in node.inputs))
        offset = operator.offset(node.shape)
        if offset is not None:
            magnitude = magnitude + offset.abs()
        error = (4 + 2 * math.sqrt(operator.terms(shapes)) + operator.ulps) * unit * magnitude
        if operator.offset_error is not None:
            # Fusing made these roundings in float64; the replay makes them in its own type.
            stored = _offset_error(operator, operator.offset_error)
            error = error + stored * (unit / STORED_UNIT)
        errors.append(error)
    return errors


def _offset_error(operator: Affine, error: Tensor) -> Tensor:
    """The error laid out to broadcast against the node's value, as the operator's own offset is."""
    return error.reshape(1, -1, 1, 1) if isinstance(operator, Conv) else error


def _active(network: Network, values: list[Tensor], errors: list[Tensor | None]) -> dict[int, Tensor]:
    """For every ReLU where it passes its input on, (B, *shape), or might do so with another rounding."""
    active: dict[int, Tensor] = {}
    recent: list[Tensor] = []  # each node's local error, moved along by nodes that only move values
    for i, node in enumerate(network.nodes):
        error = errors[i]
        if error is None and isinstance(node.operator, Reshape | Gather | Concat):
            error = node.operator.absolute(*(recent[source] for source in node.inputs))
        recent.append(torch.zeros_like(values[i]) if error is None else error)
        if isinstance(node.operator, Relu):
            source = values[node.inputs[0]]
            largest = source.abs().reshape(len(source), -1).amax(1).reshape(-1, *(1,) * (source.dim() - 1))
            active[i] = source >= -(NEAR_ZERO * largest + SAFETY * recent[node.inputs[0]])
    return active


def _amplified(
    network: Network,
    active: dict[int, Tensor],
    errors: list[Tensor | None],
    batch: int,
    outputs: NDArray[np.int64],
) -> Array:
    """The bound in the head of this file, for some outputs: (B, len(outputs))."""
    nodes, count = network.nodes, len(outputs)
    rows = torch.zeros(batch, count, network.n_outputs, dtype=torch.float64)
    rows[:, torch.arange(count), torch.from_numpy(outputs)] = 1.0
    pending: dict[int, Tensor] = {len(nodes) - 1: rows.reshape(batch, count, *network.output_shape)}
    bound = torch.zeros(batch, count, dtype=torch.float64)
    for i in range(len(nodes) - 1, 0, -1):
        node = nodes[i]
        derivative = pending.pop(i, None)
        if derivative is None:
            continue
        error = errors[i]
        if error is not None:
            bound += (derivative.abs() * error.unsqueeze(1)).reshape(batch, count, -1).sum(2)
        if isinstance(node.operator, Relu):
            results: tuple[Tensor, ...] = (derivative * active[i].unsqueeze(1),)
        else:
            assert isinstance(node.operator, Affine)
            results = node.operator.adjoint(derivative, network.input_shapes(i))
        for source_index, result in zip(node.inputs, results, strict=True):
            known = pending.get(source_index)
            pending[source_index] = result if known is None else known + result
    return bound.numpy()


def _excerpt(values: Array) -> str:
    """The first few numbers of a vector."""
    shown = ", ".join(f"{value:.6g}" for value in values[:5])
    return shown if len(values) <= 5 else f"{shown}, ... {len(values)} numbers"
