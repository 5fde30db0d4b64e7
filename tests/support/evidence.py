"""Queries that take splitting to close, and the evidence files of single searches."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from support.oracle import minimum_margin
from support.queries import query_of
from verifier.bounds.alpha_crown import AlphaOptions, optimised_bounds
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.interval import interval_bounds
from verifier.bounds.reduce import without_inactive
from verifier.deadline import Deadline
from verifier.evidence.file import network_digest, property_digest
from verifier.query import Query
from verifier.search.box_split import BoxOptions, BoxSplitting
from verifier.search.dense_chain import is_dense_chain
from verifier.search.evidence_log import BranchLog, EvidenceLog
from verifier.search.input_split import InputSplitting
from verifier.search.refining_split import RefineOptions, RefiningSplitting
from verifier.search.relu_split import BranchOptions, ReluSplitting
from verifier.verdict import Result, Verdict


def impossible(rng, network, count=2, gap=0.02, radius=1.0):
    """Random conjunctions over one box, each with its smallest margin at ``gap``: impossible, but by that much only."""
    query = query_of(rng, network, count, radius)
    shifted = []
    for disjunct in query.disjuncts:
        least, _ = minimum_margin(network, disjunct)
        rows = replace(disjunct.constraints, bounds=disjunct.constraints.bounds + least - gap)
        shifted.append(replace(disjunct, constraints=rows))
    return replace(query, spec=replace(query.spec, disjuncts=tuple(shifted)))


def recorded(query: Query, engine: str, path: Path, seconds: float = 20.0) -> Result:
    """Run one ReLU search alone on all disjuncts, which share a box, and write its evidence."""
    first = query.disjuncts[0]
    lower, upper = (torch.from_numpy(side)[None] for side in (first.lower, first.upper))
    nodes = intermediate_bounds(query.network, lower, upper)
    network, kept = without_inactive(query.network, nodes)
    everything = tuple(range(len(query.disjuncts)))
    log = EvidenceLog(query)
    boxes = BranchLog(log, everything, query.network, nodes, network, kept)
    search: ReluSplitting | RefiningSplitting
    if engine == "plain":
        own = replace(query, network=network)
        search = ReluSplitting(own, kept, BranchOptions(largest_batch=4), log=boxes.leaves(everything))
    else:
        better = optimised_bounds(network, kept, Deadline.never(), AlphaOptions(iterations=2), boxes.visit)
        boxes.optimised(network, better)
        fewer, tight = without_inactive(network, better.nodes)
        own = replace(query, network=fewer)
        if engine == "optimised":
            search = ReluSplitting(own, tight, log=boxes.leaves(everything))
        else:
            options = RefineOptions(largest_batch=3)
            search = RefiningSplitting(own, tight, better.slopes, options, log=boxes.regions(everything))
    outcome = search.work(Deadline.after(seconds))
    assert outcome.witness is None
    done = all(bound.level is not None for bound in outcome.bounds)
    result = Result(Verdict.UNSAT if done else Verdict.TIMEOUT, bounds=outcome.bounds)
    return replace(result, recorded=log.save(path, result))


def members(path: Path) -> dict[str, object]:
    """Everything in a file: arrays by their name without ``.npy``, and the header."""
    found: dict[str, object] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                if name.endswith(".npy.gz"):
                    found[name.removesuffix(".npy.gz")] = np.load(io.BytesIO(gzip.decompress(file.read())))
                else:
                    found["header"] = json.load(file)
    return found


def write(path: Path, content: dict[str, object]) -> None:
    """The inverse of ``members``."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            if name == "header":
                archive.writestr("header.json", json.dumps(value))
            else:
                buffer = io.BytesIO()
                np.save(buffer, np.asarray(value))
                archive.writestr(f"{name}.npy.gz", gzip.compress(buffer.getvalue()))


def recorded_boxes(query: Query, path: Path, seconds: float = 20.0) -> Result:
    """The same for input splitting, compiled for chains, batched for other networks."""
    log = EvidenceLog(query)
    search: InputSplitting | BoxSplitting
    if is_dense_chain(query.network):
        search = InputSplitting(query, log=log)
    else:
        first = query.disjuncts[0]
        nodes = interval_bounds(query.network, *(torch.from_numpy(side)[None] for side in (first.lower, first.upper)))
        tree = log.tree(range(len(query.disjuncts)))
        search = BoxSplitting(query, nodes, BoxOptions(largest_batch=4), log=tree)
    outcome = search.work(Deadline.after(seconds))
    assert outcome.witness is None
    done = all(bound.level is not None for bound in outcome.bounds)
    result = Result(Verdict.UNSAT if done else Verdict.TIMEOUT, bounds=outcome.bounds)
    return replace(result, recorded=log.save(path, result))


def without_leaf(content: dict[str, object], table: str, leaf: int) -> dict[str, object]:
    """The content without one row of a table of leaves."""
    columns = {name.rpartition("/")[2]: np.asarray(value) for name, value in content.items() if name.startswith(table)}
    counts = columns["count"]
    ends = np.cumsum(counts)
    ragged = np.arange(ends[leaf] - counts[leaf], ends[leaf])
    shorter = {}
    for name, column in columns.items():
        rows = ragged if name in ("splits", "multipliers", "cut_value") else leaf
        shorter[f"{table}/{name}"] = np.delete(column, rows, axis=0)
    return {**content, **shorter}


def forged(content: dict[str, object], query: Query) -> dict[str, object]:
    """The content, saying that it is about another query."""
    header = dict(content["header"])  # type: ignore[call-overload]
    header |= {"network": network_digest(query.network), "property": property_digest(query)}
    return {**content, "header": header}
