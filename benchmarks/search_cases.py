"""Shared instances on which the searches are measured, prepared as the pipeline prepares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from verifier.bounds.alpha_crown import AlphaOptions, RowSlopes, optimised_bounds
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.level import Bounds
from verifier.bounds.margins import group_by_box, margin_bounds
from verifier.bounds.reduce import without_inactive
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.model.read import load
from verifier.query import Query
from verifier.search import relu_split
from verifier.vnnlib.read import read

SUITES = Path(__file__).resolve().parents[2] / "shared" / "benchmarks" / "vnncomp2021"

RELU_CASES: Mapping[str, tuple[str, str, str]] = {
    "mnistfc 256x4 prop_0 0.03": ("mnistfc", "mnist-net_256x4.onnx", "prop_0_0.03.vnnlib.gz"),
    "oval21 base img5303": ("oval21", "cifar_base_kw.onnx", "cifar_base_kw-img5303-eps0.017777777777777778.vnnlib.gz"),
    "acasxu 1_1 prop_5": ("acasxu", "ACASXU_run2a_1_1_batch_2000.onnx", "prop_5.vnnlib.gz"),
}
"""Suite, model and property of instances for splitting ReLUs; all take more than a few seconds."""
INPUT_CASES: Mapping[str, tuple[str, str, str]] = {
    "acasxu 1_1 prop_5": ("acasxu", "ACASXU_run2a_1_1_batch_2000.onnx", "prop_5.vnnlib.gz"),
    "acasxu 1_1 prop_6": ("acasxu", "ACASXU_run2a_1_1_batch_2000.onnx", "prop_6.vnnlib.gz"),
}
"""The same for splitting inputs."""
OPTIMISE_SECONDS = 5.0


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """``module.name`` is ``value`` inside the block."""
    usual = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, usual)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Disjuncts over one box that CROWN leaves open, on the network without inactive neurons, as searches take them."""

    query: Query
    nodes: tuple[Bounds, ...]
    slopes: Mapping[int, RowSlopes]


def read_case(root: Path, suite: str, model: str, prop: str) -> Query:
    """Raises InputError where the files are missing or damaged."""
    loaded = load(root / suite / "onnx" / model)
    return Query.of(loaded.network, read(root / suite / "vnnlib" / prop), loaded.replay)


def prepared(query: Query, seconds: float = OPTIMISE_SECONDS) -> Prepared:
    """The open disjuncts over the first box, with bounds optimised for at most ``seconds``."""
    margins = margin_bounds(query.network, query.disjuncts, Deadline.never())
    still = [p for g in margins for p, margin in zip(g.group.positions, g.margins, strict=True) if margin <= 0]
    if not still:
        raise InputError("CROWN closes this property at once: nothing is left to measure a search on; take another one")
    query = query.restricted(still)
    group = group_by_box(query.disjuncts)[0]
    query = query.restricted(group.positions)
    lower, upper = torch.as_tensor(group.lower)[None].double(), torch.as_tensor(group.upper)[None].double()
    nodes = intermediate_bounds(query.network, lower, upper)
    network, nodes = without_inactive(query.network, nodes)
    better = optimised_bounds(network, nodes, Deadline.after(seconds), AlphaOptions())
    network, nodes = without_inactive(network, better.nodes)
    return Prepared(replace(query, network=network), nodes, better.slopes)


def relu_search(case: Prepared, batch: int) -> relu_split.ReluSplitting:
    """A search whose batches have this size from the start, whatever their pace."""
    options = relu_split.BranchOptions(largest_batch=batch, most_bytes=2**34)
    with replaced(relu_split, "FIRST_BATCH", batch):
        return relu_split.ReluSplitting(case.query, case.nodes, options)
