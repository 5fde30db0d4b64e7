"""The independent checker of evidence files: does what the file holds prove what it says about a query?

Model and property are read from the user's files; the evidence file says only which bounds to compute with which slopes
and multipliers.  Every bound is computed here (``linear``), with code that shares nothing with the searches, and none
is taken from the file: what the file claims may only be too modest.  docs/evidence.md describes the format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.deadline import Deadline
from verifier.errors import ProofError
from verifier.evidence.affine import matrices_of
from verifier.evidence.boxes import LEAF, Boxes, Tree
from verifier.evidence.cover import gaps
from verifier.evidence.file import (
    CROWN,
    INPUT_SPLITTING,
    OPTIMISED,
    REFINING_SPLITTING,
    RELU_SPLITTING,
    Columns,
    Reader,
    network_digest,
    property_digest,
)
from verifier.evidence.leaves import Neurons, Rows, agree, check_leaves, subtract
from verifier.evidence.linear import Backward, Box, crown, lines
from verifier.evidence.regions import Regions
from verifier.evidence.root import Root, optimised
from verifier.progress import Event, Progress, silent
from verifier.query import Query
from verifier.vnnlib.spec import Disjunct

Array = NDArray[np.float64]
LeafSet = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Splits per leaf, and the codes of the splits of all of them."""
SHOWN_SPLITS = 6


@dataclass(frozen=True)
class Replayed:
    """What held.

    verdict: that of the file.  closed: by what, and how many disjuncts.  leaves: replayed, by search.
    unexplained: disjuncts (positions) closed by what no file can replay, with its name.  open: disjuncts left open,
    with the number of regions that no leaf covers, None where nothing was recorded.
    """

    verdict: str
    closed: dict[str, int] = field(default_factory=dict)
    leaves: dict[str, int] = field(default_factory=dict)
    unexplained: dict[int, str] = field(default_factory=dict)
    open: dict[int, int | None] = field(default_factory=dict)


def check_evidence(query: Query, path: Path, deadline: Deadline, progress: Progress = silent) -> Replayed:
    """Replay a file.  Raises ProofError where it is not about the query or does not prove what it says."""
    with Reader(path) as reader:
        header = reader.header
        try:
            for name, own in (("network", network_digest(query.network)), ("property", property_digest(query))):
                if header[name] != own:
                    raise ProofError(f"{path} is about another {name}; give the files that it was written for")
            return _Check(query, reader, deadline, progress).run()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ProofError(f"{path} is damaged ({type(error).__name__}: {error}); write it anew") from None


class _Check:
    """One file.  The bounds of the box looked at last are kept."""

    def __init__(self, query: Query, reader: Reader, deadline: Deadline, progress: Progress) -> None:
        self._query, self._reader, self._deadline, self._progress = query, reader, deadline, progress
        self._nodes = matrices_of(query.network)
        self._sections: list[dict[str, Any] | None] = reader.header["sections"]
        self._facts: list[dict[str, Any]] = reader.header["disjuncts"]
        self._box: tuple[bytes, list[Box]] | None = None
        self._leaves: dict[str, int] = {}
        self._sets: dict[int, dict[int, LeafSet]] = {}
        self._trees: dict[int, dict[int, tuple[int, str]]] = {}

    def run(self) -> Replayed:
        header = self._reader.header
        if len(self._facts) != len(self._query.disjuncts):
            raise ProofError("the file speaks of another number of disjuncts than the property has")
        if header["verdict"] == "sat":
            self._witness(header["witness"])
            return Replayed("sat")
        closed: dict[str, int] = {}
        unexplained: dict[int, str] = {}
        by_section: dict[int, list[int]] = {}
        for position, fact in enumerate(self._facts):
            if fact["closed_by"] is None:
                continue
            if fact["section"] is None:
                unexplained[position] = str(fact["closed_by"])
            else:
                by_section.setdefault(int(fact["section"]), []).append(position)
        for number, disjuncts in by_section.items():
            section = self._section(number)
            for position, (left, words) in self._gaps(number, section, disjuncts).items():
                if left:
                    others = f", nor {left - 1:,} others" if left > 1 else ""
                    raise ProofError(f"disjunct {position + 1}: no leaf closes the region {words}{others}")
            closed[section["kind"]] = closed.get(section["kind"], 0) + len(disjuncts)
        still = [position for position, fact in enumerate(self._facts) if fact["closed_by"] is None]
        if header["verdict"] == "unsat" and still:
            raise ProofError(f"the file says unsat but nothing in it closes disjunct {still[0] + 1}")
        return Replayed(header["verdict"], closed, self._leaves, unexplained, self._open(still))

    def _section(self, number: int) -> dict[str, Any]:
        section = self._sections[number] if number >= 0 else None
        if section is None:
            raise ProofError(f"section {number} is missing from the file")
        return section

    def _witness(self, witness: dict[str, Any]) -> None:
        x = np.array(witness["x"], np.float64)
        disjunct = self._query.disjuncts[witness["disjunct"]]
        nearest = self._query.replay.representable(x, disjunct.lower, disjunct.upper)
        if x.shape != nearest.shape or not np.array_equal(x, nearest):
            raise ProofError("the counterexample in the file is no input that the model can be given in the region")
        if not disjunct.holds_exactly(x, self._query.replay.run(x)):
            raise ProofError("onnxruntime does not confirm the counterexample in the file")

    def _open(self, still: list[int]) -> dict[int, int | None]:
        """What was recorded of disjuncts that remained open has to be true as well."""
        found: dict[int, int | None] = dict.fromkeys(still)
        for number, section in enumerate(self._sections):
            mine = [] if section is None else [i for i in still if i in section["disjuncts"]]
            if section is None or not mine or section["kind"] in (CROWN, OPTIMISED):
                continue
            for position, (left, _) in self._gaps(number, section, mine).items():
                known = found[position]
                found[position] = left if known is None else min(known, left)
        return found

    def _gaps(self, number: int, section: dict[str, Any], disjuncts: list[int]) -> dict[int, tuple[int, str]]:
        """Replay a section; per disjunct how many regions it leaves open, and the first of them in words."""
        kind = section["kind"]
        if not set(disjuncts) <= set(section["disjuncts"]):
            raise ProofError(f"section {number} is not about disjunct {disjuncts[0] + 1}, which it should close")
        if kind == CROWN:
            self._crown(disjuncts)
            return {}
        if kind == INPUT_SPLITTING:
            found = self._tree(number, section)
            return {position: found[position] for position in disjuncts}
        if kind not in (RELU_SPLITTING, REFINING_SPLITTING):
            raise ProofError(f"section {number} is of an unknown kind, {kind!r}; use the version that wrote it")
        if number not in self._sets:
            root, neurons = self._root(number, section)
            replay = self._leaf_sets if kind == RELU_SPLITTING else self._region_sets
            self._sets[number] = replay(number, section, root, neurons)
        sets = {}
        for position in disjuncts:
            left = list(gaps(*self._sets[number][position]))
            sets[position] = len(left), self._words(number, left[0]) if left else ""
        return sets

    def _tree(self, number: int, section: dict[str, Any]) -> dict[int, tuple[int, str]]:
        if number not in self._trees:
            # A search that had no time yet leaves no table.
            nothing: Columns = {"code": np.zeros(0, np.int16), "position": np.zeros(0)}
            table = self._reader.table(f"{number}/nodes") or nothing
            tree = Tree.read(table["code"], table["position"], self._query.network.n_inputs)
            own = self._one_box(number, section)
            replay = Boxes(self._nodes, self._boxes(section["disjuncts"][0]), own, tree)
            for left in replay.run():
                self._look(INPUT_SPLITTING, left, "boxes")
            self._count(section, int(np.sum(tree.codes == LEAF)))
            counts = zip(section["disjuncts"], replay.open.tolist(), strict=True)
            self._trees[number] = {position: (left, "of some boxes of the tree") for position, left in counts}
        return self._trees[number]

    def _crown(self, disjuncts: list[int]) -> None:
        for done, position in enumerate(disjuncts):
            self._look(CROWN, len(disjuncts) - done, "disjuncts")
            boxes, rows = self._boxes(position), Rows.of(self._query.disjuncts[position])
            relus = {
                k: lines(boxes[n.sources[0]].low[None], boxes[n.sources[0]].high[None])
                for k, n in enumerate(self._nodes)
                if n.relu
            }
            bound = Backward(self._nodes, boxes).run(len(self._nodes) - 1, rows.outputs, relus, rows.inputs)
            least = subtract(bound.least(boxes[0].low, boxes[0].high), rows.bounds).max(initial=-np.inf)
            agree(np.array([least]), np.array([self._facts[position]["claim"]]), f"disjunct {position + 1}", 1)

    def _root(self, number: int, section: dict[str, Any]) -> tuple[Root, Neurons]:
        self._one_box(number, section)
        boxes = self._boxes(section["disjuncts"][0])
        neurons = Neurons.read(self._reader.table(f"{number}/neurons"), self._nodes)
        if section["root"] is None:
            return Root(boxes, {}), neurons
        base = self._section(section["root"])
        if base["kind"] != OPTIMISED or not set(section["disjuncts"]) <= set(base["disjuncts"]):
            raise ProofError(f"section {number} rests on bounds over another box")
        named = Neurons.read(self._reader.table(f"{section['root']}/neurons"), self._nodes)
        return optimised(self._nodes, boxes, named, self._reader.table(f"{section['root']}/rows")), neurons

    def _one_box(self, number: int, section: dict[str, Any]) -> list[Disjunct]:
        """The disjuncts of a section; raises ProofError unless they share one box."""
        own = [self._query.disjuncts[i] for i in section["disjuncts"]]
        if any(not np.array_equal(getattr(d, s), getattr(own[0], s)) for d in own for s in ("lower", "upper")):
            raise ProofError(f"the disjuncts of section {number} do not share one box")
        return own

    def _leaf_sets(self, number: int, section: dict[str, Any], root: Root, neurons: Neurons) -> dict[int, LeafSet]:
        kept: list[Columns] = []
        for chunk in self._reader.chunks(f"{number}/leaves"):
            self._look(RELU_SPLITTING, None, "")
            check_leaves(self._nodes, root.boxes, neurons, self._query.disjuncts, chunk)
            self._count(section, len(chunk["owner"]))
            kept.append({name: chunk[name] for name in ("owner", "count", "splits")})
        return {position: _splits_of(kept, position) for position in section["disjuncts"]}

    def _region_sets(self, number: int, section: dict[str, Any], root: Root, neurons: Neurons) -> dict[int, LeafSet]:
        leaves = self._reader.table(f"{number}/leaves")
        total = sum(len(chunk["last"]) for chunk in self._reader.chunks(f"{number}/regions"))
        parents = {
            tuple(sorted(code for code in codes.tolist() if abs(code) != int(chunk["last"][at]) + 1))
            for chunk, at, codes, _ in self._regions(number)
            if len(codes)
        }
        tables = [int(k) for k in section["tables"]]
        replay = Regions(self._nodes, root, neurons, tables, self._query.disjuncts, leaves, parents)
        for chunk, at, codes, cuts in self._regions(number):
            self._look(REFINING_SPLITTING, total - replay.count, "regions")
            if np.any(np.diff(np.abs(codes), prepend=0) <= 0) or np.any(np.abs(codes) > len(neurons)):
                raise ProofError("a region is split where its section has no neuron, or out of order; write it anew")
            replay.check(chunk, at, codes, cuts)
        self._count(section, len(leaves.get("owner", ())))
        empty = replay.empty
        sets = {}
        for position in section["disjuncts"]:
            counts, codes = _splits_of([leaves] if leaves else [], position)
            more = np.array([len(one) for one in empty], np.int32)
            sets[position] = np.concatenate([counts, more]), np.concatenate([codes, *empty])
        return sets

    def _regions(self, number: int) -> Iterator[tuple[Columns, int, NDArray[np.int32], slice]]:
        """Regions of a section in order: their chunk, row, splits and where their weights stand."""
        for chunk in self._reader.chunks(f"{number}/regions"):
            ends, cuts = np.cumsum(chunk["count"]), np.cumsum(chunk["cuts"])
            for at in range(len(ends)):
                splits = chunk["splits"][ends[at] - chunk["count"][at] : ends[at]]
                yield chunk, at, splits, slice(int(cuts[at] - chunk["cuts"][at]), int(cuts[at]))

    def _boxes(self, position: int) -> list[Box]:
        """Plain CROWN's bounds over the box of a disjunct."""
        disjunct = self._query.disjuncts[position]
        key = disjunct.lower.tobytes() + disjunct.upper.tobytes()
        if self._box is None or self._box[0] != key:
            self._box = key, crown(self._nodes, disjunct.lower, disjunct.upper)
        return self._box[1]

    def _words(self, number: int, codes: list[int]) -> str:
        neurons: Any = self._reader.table(f"{number}/neurons")
        parts = [
            f"{neurons['place'][abs(code) - 1]} of node {neurons['node'][abs(code) - 1]} "
            + ("active" if code > 0 else "inactive")
            for code in codes[:SHOWN_SPLITS]
        ]
        more = [f"{len(codes) - SHOWN_SPLITS} more"] if len(codes) > SHOWN_SPLITS else []
        return "with neuron " + ", neuron ".join(parts + more) if parts else "that is the whole box"

    def _count(self, section: dict[str, Any], leaves: int) -> None:
        self._leaves[section["kind"]] = self._leaves.get(section["kind"], 0) + leaves

    def _look(self, kind: str, left: int | None, unit: str) -> None:
        self._progress(Event(f"replaying {kind}", open=left, unit=unit))
        if self._deadline.expired:
            raise ProofError("the time is over before all of the file was replayed; give more with --timeout")


def _splits_of(chunks: list[Columns], owner: int) -> LeafSet:
    """Of the leaves of one disjunct."""
    none = np.zeros(0, np.int32)
    mine = [chunk["owner"] == owner for chunk in chunks]
    counts = [chunk["count"][own] for chunk, own in zip(chunks, mine, strict=True)]
    codes = [chunk["splits"][np.repeat(own, chunk["count"])] for chunk, own in zip(chunks, mine, strict=True)]
    return np.concatenate([none, *counts]), np.concatenate([none, *codes])
