"""Queries with a counterexample in a known place, or with none, judged by onnxruntime itself."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from verifier.falsify.attack import AttackOutcome
from verifier.model.network import Network, build
from verifier.model.operators import Input, Linear, Relu
from verifier.model.replay import OnnxReplay
from verifier.model.write import to_onnx
from verifier.query import Query
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec


def linear(weight: ArrayLike, bias: ArrayLike) -> Linear:
    return Linear(torch.tensor(np.array(weight, np.float64)), torch.tensor(np.array(bias, np.float64)))


def weighted_sum(weights: ArrayLike) -> Network:
    """One output, ``weights @ x``, through a ReLU that changes nothing where the sum is above -1000."""
    row = np.atleast_2d(np.asarray(weights, np.float64))
    nodes = [(Input((1, row.shape[1])), ()), (linear(row, [1000.0]), (0,)), (Relu(), (1,))]
    return build([*nodes, (linear([[1.0]], [-1000.0]), (2,))], "weighted_sum")


def distance(centre: ArrayLike, scale: float = 1.0) -> Network:
    """One output, ``scale * sum |x - centre|``."""
    c = np.asarray(centre, np.float64)
    n = len(c)
    both = np.concatenate([np.eye(n), -np.eye(n)])
    nodes = [(Input((1, n)), ()), (linear(both, np.concatenate([-c, c])), (0,)), (Relu(), (1,))]
    return build([*nodes, (linear(np.full((1, 2 * n), scale), [0.0]), (2,))], "distance")


def two_sided(n: int) -> Network:
    """Two outputs, the sum of the inputs and its negative."""
    nodes = [(Input((1, n)), ()), (linear([[1.0] * n, [-1.0] * n], [0.0, 0.0]), (0,))]
    return build(nodes, "two_sided")


def disjunct(
    lower: ArrayLike,
    upper: ArrayLike,
    outputs: ArrayLike,
    bounds: ArrayLike,
    strict: bool = False,
    inputs: ArrayLike | None = None,
) -> Disjunct:
    """A box with the rows ``inputs @ x + outputs @ y <= bounds`` (``<`` if strict)."""
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    out, limit = np.atleast_2d(np.asarray(outputs, np.float64)), np.atleast_1d(np.asarray(bounds, np.float64))
    zero = np.broadcast_to(0.0, (len(limit), len(low)))
    mixed = zero if inputs is None else np.atleast_2d(np.asarray(inputs, np.float64))
    return Disjunct(low, high, LinearConstraints(mixed, out, limit, np.full(len(limit), strict)))


def query(network: Network, *disjuncts: Disjunct) -> Query:
    """The query, with onnxruntime on the written network."""
    replay = OnnxReplay(to_onnx(network).SerializeToString())
    return Query.of(network, Spec(network.n_inputs, network.n_outputs, disjuncts), replay)


def assert_sound(asked: Query, outcome: AttackOutcome) -> None:
    """Whatever an attack returns: a true witness or none, points in their boxes, margins that are theirs."""
    assert outcome.points.shape == (len(asked.disjuncts), asked.network.n_inputs)
    for d, point, margin in zip(asked.disjuncts, outcome.points, outcome.margins, strict=True):
        assert (d.lower <= point).all()
        assert (point <= d.upper).all()
        if np.isfinite(margin):
            y = asked.network.forward(torch.from_numpy(point)[None])[0].numpy()
            assert margin == np.max(d.constraints.margins(point, y)) or abs(
                margin - np.max(d.constraints.margins(point, y))
            ) <= 1e-9 * (1 + abs(margin) + np.abs(y).sum())
    witness = outcome.witness
    if witness is not None:
        found = asked.disjuncts[asked.indices.index(witness.disjunct)]
        y = asked.replay.run(witness.x)
        assert (y == witness.y).all()
        assert found.holds_exactly(witness.x, y)
        assert (witness.x.astype(np.float32) == witness.x).all()
        assert witness.margin <= 0
