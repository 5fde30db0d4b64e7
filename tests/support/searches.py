"""The searches on a whole query: box by box, as the pipeline calls them, but each alone and to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from verifier.bounds.alpha_crown import AlphaOptions, optimised_bounds
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.interval import interval_bounds
from verifier.bounds.margins import group_by_box
from verifier.bounds.reduce import without_inactive
from verifier.deadline import Deadline
from verifier.query import Query
from verifier.search.box_split import BoxOptions, BoxSplitting
from verifier.search.refining_split import RefineOptions, RefiningSplitting
from verifier.search.relu_split import BranchOptions, ReluSplitting
from verifier.verdict import DisjunctBounds, Witness

Search = ReluSplitting | RefiningSplitting | BoxSplitting
Outcome = tuple[Witness | None, tuple[DisjunctBounds, ...]]


def relu_splitting(query: Query, deadline: Deadline, options: BranchOptions | None = None) -> Outcome:
    """``ReluSplitting`` on CROWN's bounds, with all neurons."""

    def search(own: Query) -> ReluSplitting:
        lower, upper = _box(own)
        return ReluSplitting(own, intermediate_bounds(own.network, lower, upper, deadline), options)

    return _box_by_box(query, deadline, search)


def refining_splitting(
    query: Query, deadline: Deadline, options: RefineOptions | None = None, iterations: int = 3
) -> Outcome:
    """``RefiningSplitting`` on optimised bounds, without the neurons that are inactive."""

    def search(own: Query) -> RefiningSplitting:
        nodes = intermediate_bounds(own.network, *_box(own), deadline)
        better = optimised_bounds(own.network, nodes, deadline, AlphaOptions(iterations=iterations))
        network, fewer = without_inactive(own.network, better.nodes)
        return RefiningSplitting(replace(own, network=network), fewer, better.slopes, options)

    return _box_by_box(query, deadline, search)


def box_splitting(query: Query, deadline: Deadline, options: BoxOptions | None = None) -> Outcome:
    """``BoxSplitting`` on interval bounds, however many inputs vary."""

    def search(own: Query) -> BoxSplitting:
        return BoxSplitting(own, interval_bounds(own.network, *_box(own)), options)

    return _box_by_box(query, deadline, search)


def _box(query: Query) -> tuple[torch.Tensor, torch.Tensor]:
    first = query.disjuncts[0]
    return torch.from_numpy(first.lower)[None].double(), torch.from_numpy(first.upper)[None].double()


def _box_by_box(query: Query, deadline: Deadline, search: Callable[[Query], Search]) -> Outcome:
    bounds = [DisjunctBounds()] * len(query.disjuncts)
    for group in group_by_box(query.disjuncts):
        own = query.restricted(group.positions)
        outcome = search(own).work(deadline)
        for position, bound in zip(group.positions, outcome.bounds, strict=True):
            bounds[position] = bound
        if outcome.witness is not None:
            return outcome.witness, tuple(bounds)
    return None, tuple(bounds)
