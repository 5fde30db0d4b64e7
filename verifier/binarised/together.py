"""Several networks and one image: can it fool all of them at once?

    same       one disjunct of the property holds for every network (all see the same wrong class)
    any        every network satisfies some disjunct (each sees some wrong class)
    majority   more than half of the networks satisfy some disjunct (a vote of them is no longer for the right class)

The networks are laid side by side as one network with block-diagonal layers; what they share are the input levels.
For ``same`` the property's rows are repeated over the stacked outputs.  For the others every row becomes a gate, then
every
disjunct, then "some disjunct", and the stacked network has one output: how many networks are fooled.  So nothing behind
this file, engines and proofs included, knows that there are several networks.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.binarised.goals import Goal, GoalMaker
from verifier.binarised.network import BinarisedNetwork, Gates, Outputs
from verifier.binarised.query import BinarisedModel, Query, Replaying, check_sizes, prepare
from verifier.errors import ModelError, OptionError, SpecError
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WAYS = ("same", "any", "majority")


class StackedReplay:
    """All models, run by onnxruntime: their outputs one behind the other."""

    def __init__(self, replays: Sequence[Replaying]) -> None:
        self._replays = replays

    def each(self, x: Floats) -> list[Floats]:
        """Every model's own outputs."""
        return [replay.run(x) for replay in self._replays]

    def run(self, x: Floats) -> Floats:
        return np.concatenate(self.each(x))

    def representable(self, x: Floats, lower: Floats, upper: Floats) -> Floats:
        return self._replays[0].representable(x, lower, upper)


class CountingReplay(StackedReplay):
    """How many of the models satisfy the property, (1,)."""

    def __init__(self, replays: Sequence[Replaying], spec: Spec) -> None:
        super().__init__(replays)
        self._spec = spec

    def run(self, x: Floats) -> Floats:
        outputs = self.each(x)
        # Whether x is in the box is the caller's question: here only the rows count.
        fooled = [any(d.constraints.hold_exactly(x, y) for d in self._spec.disjuncts) for y in outputs]
        return np.array([float(sum(fooled))])


class Ensemble:
    """Networks for one image, laid side by side once.

    Raises ModelError where they do not fit together.
    """

    def __init__(self, models: Sequence[BinarisedModel]) -> None:
        for model in models:
            if model.network.quantiser is None:
                raise ModelError(f"{model.path} reads real inputs; several networks are taken together by their levels")
            if model.network.input_shape != models[0].network.input_shape:
                sentence = f"{model.path} has another input shape than {models[0].path}"
                raise ModelError(f"{sentence}; give networks for one image")
        self._models = models
        self._layers = _hidden(models)
        self._stacked = _stacked(models, self._layers)
        for layer in self._layers:
            layer.products.prepare()

    def queries(self, spec: Spec, way: str) -> Iterator[Query]:
        """Queries of which the first with a ``sat`` decides; the last decides alone.

        ``same`` implies the other two and is far easier to attack, so it goes first there.
        Raises ModelError, SpecError or OptionError where the property does not fit.
        """
        if way not in WAYS:
            raise OptionError(f"unknown way {way!r} to take several networks together; use one of {', '.join(WAYS)}")
        for model in self._models:
            check_sizes(model.network, spec)
        _check_levels(self._models, spec)
        yield prepare(self._stacked, _repeated(spec, len(self._models)))
        if way != "same":
            needed = len(self._models) if way == "any" else len(self._models) // 2 + 1
            yield prepare(_counting(self._models, self._layers, spec), _at_least(spec, needed))


def _check_levels(models: Sequence[BinarisedModel], spec: Spec) -> None:
    if not spec.disjuncts:
        return
    box = spec.disjuncts[0]
    for other in spec.disjuncts:
        if not (np.array_equal(other.lower, box.lower) and np.array_equal(other.upper, box.upper)):
            raise SpecError("several networks are taken together over one box only", spec.source or None)
    first = models[0].finder
    assert first is not None
    for model in models[1:]:
        if model.finder is None or not model.finder.agrees(first, box.lower, box.upper):
            sentence = f"{model.path} quantises its input otherwise than {models[0].path}"
            raise ModelError(f"{sentence}; networks can only share levels that are the same")


def _hidden(models: Sequence[BinarisedModel]) -> list[Gates]:
    """The layers side by side; networks with fewer layers repeat their last bits."""
    depth = max(len(model.network.layers) for model in models)
    stacks = [list(model.network.layers) for model in models]
    for layers in stacks:
        while len(layers) < depth:
            width = len(layers[-1])
            layers.append(Gates(sp.csr_array(sp.eye_array(width, dtype=np.int64)), np.ones(width, np.int64)))
    first = sp.csr_array(sp.vstack([layers[0].weights for layers in stacks]))
    result = [Gates(first, np.concatenate([layers[0].thresholds for layers in stacks]))]
    for number in range(1, depth):
        result.append(_side_by_side([layers[number] for layers in stacks]))
    return result


def _side_by_side(layers: Sequence[Gates]) -> Gates:
    weights = sp.csr_array(sp.block_diag([layer.weights for layer in layers], format="csr"))
    blocks, row, column = [], 0, 0
    for layer in layers:
        height, width = layer.weights.shape
        blocks.append((slice(row, row + height), slice(column, column + width)))
        row, column = row + height, column + width
    thresholds = np.concatenate([layer.thresholds for layer in layers])
    return Gates(sp.csr_array(weights.astype(np.int64)), thresholds, None, tuple(blocks))


def _combined(
    models: Sequence[BinarisedModel], layers: Sequence[Gates], outputs: Outputs, replay: StackedReplay
) -> BinarisedModel:
    first = models[0]
    network = BinarisedNetwork(
        name=" + ".join(model.network.name for model in models),
        input_shape=first.network.input_shape,
        largest=min(model.network.largest for model in models),
        quantiser=first.network.quantiser,
        first=None,
        layers=tuple(layers),
        outputs=outputs,
    )
    digest = hashlib.sha256("".join(model.sha256 for model in models).encode()).hexdigest()
    return BinarisedModel(network, replay, first.path, digest, first.finder, GoalMaker(outputs))


def _stacked(models: Sequence[BinarisedModel], layers: Sequence[Gates]) -> BinarisedModel:
    parts = [model.network.outputs for model in models]
    if any(part.softmax for part in parts):
        raise ModelError("networks that end in Softmax cannot be taken together; remove the Softmax")

    def chain(values: Floats) -> Floats:
        ends = np.cumsum([len(part) for part in parts])[:-1]
        pieces = np.split(values, ends)
        return np.concatenate(
            [piece if part.chain is None else part.chain(piece) for part, piece in zip(parts, pieces, strict=True)]
        )

    outputs = Outputs(
        weights=sp.csr_array(sp.block_diag([part.weights for part in parts], format="csr")),
        offset=np.concatenate([part.offset for part in parts]),
        chain=None if all(part.chain is None for part in parts) else chain,
        exact=all(part.exact for part in parts),
    )
    return _combined(models, layers, outputs, StackedReplay([model.replay for model in models]))


def _repeated(spec: Spec, times: int) -> Spec:
    """Every disjunct's rows once per network, over the stacked outputs."""
    disjuncts = []
    for disjunct in spec.disjuncts:
        rows = disjunct.constraints
        outputs: Floats = np.kron(np.eye(times), rows.outputs).astype(np.float64)
        inputs = rows.inputs if not rows.mentions_inputs else np.tile(rows.inputs, (times, 1))
        if not rows.mentions_inputs:
            inputs = np.broadcast_to(np.zeros(()), (len(outputs), spec.n_inputs))
        constraints = LinearConstraints(inputs, outputs, np.tile(rows.bounds, times), np.tile(rows.strict, times))
        disjuncts.append(dataclasses.replace(disjunct, constraints=constraints))
    return dataclasses.replace(spec, n_outputs=times * spec.n_outputs, disjuncts=tuple(disjuncts))


def _counting(models: Sequence[BinarisedModel], hidden: Sequence[Gates], spec: Spec) -> BinarisedModel:
    """Three more layers: rows, disjuncts, networks."""
    goals = [model.goals.goals(spec) for model in models]
    layers = list(hidden)
    layers.append(_side_by_side([_rows(own) for own in goals]))
    layers.append(_side_by_side([_conjunctions(own) for own in goals]))
    layers.append(_side_by_side([_disjunction(len(own)) for own in goals]))
    outputs = Outputs(
        weights=sp.csr_array(np.ones((1, len(models)))),
        offset=np.zeros(1),
        chain=None,
        exact=all(goal.exact for own in goals for goal in own),
    )
    return _combined(models, layers, outputs, CountingReplay([model.replay for model in models], spec))


def _rows(goals: Sequence[Goal]) -> Gates:
    weights = sp.csr_array(sp.vstack([goal.weights for goal in goals]))
    return Gates(weights, np.concatenate([goal.thresholds for goal in goals]))


def _conjunctions(goals: Sequence[Goal]) -> Gates:
    sizes = np.array([len(goal.thresholds) for goal in goals], np.int64)
    rows = np.repeat(np.arange(len(goals)), sizes)
    shape = (len(goals), int(sizes.sum()))
    return Gates(sp.csr_array((np.ones(shape[1], np.int64), (rows, np.arange(shape[1]))), shape=shape), sizes)


def _disjunction(count: int) -> Gates:
    return Gates(sp.csr_array(np.ones((1, count), np.int64)), np.ones(1, np.int64))


def _at_least(spec: Spec, needed: int) -> Spec:
    """``-Y_0 <= -needed`` over the property's box."""
    box = spec.disjuncts[0]
    inputs = np.broadcast_to(np.zeros(()), (1, spec.n_inputs))
    rows = LinearConstraints(inputs, np.array([[-1.0]]), np.array([-float(needed)]), np.zeros(1, bool))
    disjunct = Disjunct(box.lower, box.upper, rows, box.point_lower, box.point_upper)
    return dataclasses.replace(spec, n_outputs=1, disjuncts=(disjunct,))
