"""Steps that make the network of a case smaller or its numbers coarser; the property follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fuzz.case import Case, constraints, spec_of
from fuzz.generate import with_parameters
from fuzz.shrink_spec import GRIDS
from verifier.model.network import Network, build
from verifier.model.operators import Input, Linear, Operator
from verifier.vnnlib.spec import Disjunct

Nodes = list[tuple[Operator, tuple[int, ...]]]


def _with_nodes(case: Case, nodes: Nodes) -> Case:
    return Case(build(nodes, case.network.name, case.network.input_dtype), case.spec)


def _nodes(network: Network) -> Nodes:
    return [(node.operator, node.inputs) for node in network.nodes]


def fewer_nodes(case: Case) -> Iterator[Case]:
    """Every node in turn replaced by one of its inputs of the same size; what is then unused goes."""
    nodes = case.network.nodes
    for index in range(len(nodes) - 1, 0, -1):
        for source in dict.fromkeys(nodes[index].inputs):
            if nodes[source].shape == nodes[index].shape:
                yield _with_nodes(case, _pruned(_nodes(case.network), index, source))


def _pruned(nodes: Nodes, removed: int, source: int) -> Nodes:
    """The nodes with ``source`` read wherever ``removed`` was, unused nodes left out."""
    last = source if removed == len(nodes) - 1 else len(nodes) - 1
    redirected = [(op, tuple(source if i == removed else i for i in inputs)) for op, inputs in nodes]
    used, waiting = {0}, [last]
    while waiting:
        index = waiting.pop()
        if index not in used:
            used.add(index)
            waiting.extend(redirected[index][1])
    places = {old: new for new, old in enumerate(sorted(used))}
    return [(redirected[old][0], tuple(places[i] for i in redirected[old][1])) for old in sorted(used)]


def fewer_neurons(case: Case) -> Iterator[Case]:
    """One neuron less where Linear, Relu, Linear follow each other and nothing else reads them."""
    network = case.network
    for relu in network.relus:
        before, readers = network.nodes[relu].inputs[0], network.consumers[relu]
        first = network.nodes[before].operator
        if len(readers) != 1 or len(network.consumers[before]) != 1 or not isinstance(first, Linear):
            continue
        second = network.nodes[readers[0]].operator
        if not isinstance(second, Linear) or len(first.weight) == 1:
            continue
        for neuron in range(len(first.weight)):
            nodes = _nodes(network)
            nodes[before] = (_without_outputs(first, neuron), nodes[before][1])
            nodes[readers[0]] = (
                Linear(_without(second.weight, 1, neuron), second.bias),
                nodes[readers[0]][1],
            )
            yield _with_nodes(case, nodes)


def _without(values: torch.Tensor, axis: int, index: int) -> torch.Tensor:
    kept = [i for i in range(values.shape[axis]) if i != index]
    return values.index_select(axis, torch.tensor(kept, dtype=torch.long))


def _without_outputs(layer: Linear, index: int) -> Linear:
    return Linear(_without(layer.weight, 0, index), _without(layer.bias, 0, index))


def fewer_outputs(case: Case) -> Iterator[Case]:
    """One output less where the last layer is Linear and no row asks for it."""
    nodes = _nodes(case.network)
    last, inputs = nodes[-1]
    if not isinstance(last, Linear) or case.network.n_outputs == 1 or len(last.weight) != case.network.n_outputs:
        return
    for output in range(case.network.n_outputs):
        if any(np.any(d.constraints.outputs[:, output]) for d in case.spec.disjuncts):
            continue
        network = build([*nodes[:-1], (_without_outputs(last, output), inputs)], case.network.name)
        disjuncts = [
            dataclasses.replace(d, constraints=dataclasses.replace(
                d.constraints, outputs=np.delete(d.constraints.outputs, output, axis=1)))
            for d in case.spec.disjuncts
        ]  # fmt: skip
        yield Case(network, spec_of(network, tuple(disjuncts)))


def fewer_inputs(case: Case) -> Iterator[Case]:
    """One input less where it is one and the same point everywhere and only Linear layers read it."""
    network = case.network
    readers = [network.nodes[i].operator for i in network.consumers[0]]
    if network.n_inputs == 1 or len(network.nodes) == 1:
        return
    if not all(isinstance(reader, Linear) for reader in readers) or network.input_shape != (
        1,
        network.n_inputs,
    ):
        return
    for i in range(network.n_inputs):
        values = {float(v) for d in case.spec.disjuncts for v in (d.lower[i], d.upper[i])}
        if len(values) == 1:
            yield _without_input(case, i, values.pop())


def _without_input(case: Case, i: int, value: float) -> Case:
    nodes = _nodes(case.network)
    nodes[0] = (Input((1, case.network.n_inputs - 1)), ())
    for reader in case.network.consumers[0]:
        layer = nodes[reader][0]
        assert isinstance(layer, Linear)
        # Rounded to what an ONNX file stores; the case changes a little, and is tried like any other.
        bias = (layer.bias + value * layer.weight[:, i]).float().double()
        nodes[reader] = (Linear(_without(layer.weight, 1, i), bias), nodes[reader][1])
    network = build(nodes, case.network.name, case.network.input_dtype)
    disjuncts = []
    for d in case.spec.disjuncts:
        rows = d.constraints
        bounds = rows.bounds - (value * rows.inputs[:, i] if rows.mentions_inputs else 0.0)
        kept = constraints(np.delete(rows.inputs, i, axis=1), rows.outputs, bounds, rows.strict)
        disjuncts.append(Disjunct(np.delete(d.lower, i), np.delete(d.upper, i), kept))
    return Case(network, spec_of(network, tuple(disjuncts)))


def _on_grid(values: torch.Tensor, grid: float) -> torch.Tensor:
    return (values / grid).round() * grid


def coarser_parameters(case: Case) -> Iterator[Case]:
    """All parameters at once, then one node's at a time, on a coarser grid."""
    for grid in GRIDS:
        for only in (None, *range(1, len(case.network.nodes))):
            changed = with_parameters(case.network, lambda value, grid=grid: (value / grid).round() * grid, only)  # type: ignore[misc]
            if not _same_parameters(case.network, changed):
                yield Case(changed, case.spec)


def zeros(case: Case) -> Iterator[Case]:
    """One entry of one parameter at a time set to zero."""
    for index, node in enumerate(case.network.nodes):
        for name, value in _fields(node.operator).items():
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                continue
            for place in torch.nonzero(value.reshape(-1)).reshape(-1).tolist():
                changed = value.clone().contiguous()
                changed.view(-1)[place] = 0
                nodes = _nodes(case.network)
                operator = dataclasses.replace(node.operator, **{name: changed})
                nodes[index] = (operator, node.inputs)
                yield _with_nodes(case, nodes)


def _fields(operator: Any) -> dict[str, Any]:
    """What the operator was made of, without what it keeps for later."""
    return {field.name: getattr(operator, field.name) for field in dataclasses.fields(operator)}


def _same_parameters(one: Network, other: Network) -> bool:
    pairs = zip(one.nodes, other.nodes, strict=True)
    return all(
        torch.equal(value, getattr(b.operator, name))
        for a, b in pairs
        for name, value in _fields(a.operator).items()
        if isinstance(value, torch.Tensor)
    )
