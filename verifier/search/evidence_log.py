"""What the searches write down for an evidence file; nothing is computed for it unless a log was asked for.

Neurons are named as in the whole network (ReLU node, place in it), however many inactive ones a search has dropped: it
keeps the undecided ones, and their order.  Formats of the tables: docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.bounds.alpha_crown import Optimised, Visit
from verifier.bounds.beta_crown import RegionBounds
from verifier.bounds.level import Bounds
from verifier.bounds.refinement import Refined
from verifier.evidence.file import (
    CROWN,
    INPUT_SPLITTING,
    OPTIMISED,
    REFINING_SPLITTING,
    RELU_SPLITTING,
    Writer,
    network_digest,
    property_digest,
)
from verifier.model.network import Network
from verifier.query import Query
from verifier.verdict import Recorded, Result

Array = NDArray[Any]

CLOSED, OPEN = -1, -2
"""Codes of boxes that were not cut."""


@dataclass(frozen=True, eq=False)
class Numbering:
    """Undecided neurons of a network that may have dropped inactive ones.

    own: per ReLU node their places there; places: in the whole network, in the same order.
    """

    own: Mapping[int, Tensor]
    places: Mapping[int, Tensor]

    def narrowed(self, network: Network, nodes: Sequence[Bounds]) -> Numbering:
        """To what bounds on the same (reduced) network that are not looser leave undecided."""
        still = _undecided(network, nodes)
        return Numbering(still, {k: self.whole(k, own) for k, own in still.items()})

    def whole(self, k: int, own: Tensor) -> Tensor:
        """Places in the whole network of undecided neurons of a ReLU node."""
        return self.places[k][torch.searchsorted(self.own[k], own)]

    def columns(self) -> dict[str, Array]:
        nodes = [torch.full((len(places),), k) for k, places in self.places.items()]
        none = torch.zeros(0, dtype=torch.long)
        return {
            "node": torch.cat([*nodes, none]).numpy().astype(np.int32),
            "place": torch.cat([*self.places.values(), none]).numpy().astype(np.int32),
        }


def _undecided(network: Network, nodes: Sequence[Bounds]) -> dict[int, Tensor]:
    inputs = {k: nodes[network.nodes[k].inputs[0]] for k in network.relus}
    return {k: torch.nonzero(bounds.unstable.flatten()).squeeze(1) for k, bounds in inputs.items()}


@dataclass(frozen=True, eq=False)
class Section:
    """One search, or the bounds that several rest on.  disjuncts: positions in the property of what it is about."""

    number: int
    writer: Writer
    disjuncts: Array
    counts: dict[int, int]

    def add(self, table: str, columns: Mapping[str, Array], leaves: int = 0) -> None:
        """leaves: how many of the rows are closed regions."""
        self.writer.add(f"{self.number}/{table}", columns)
        if leaves:
            self.counts[self.number] = self.counts.get(self.number, 0) + leaves


class EvidenceLog:
    """Everything that one run writes down."""

    def __init__(self, query: Query) -> None:
        self._query, self._writer = query, Writer()
        self._sections: list[dict[str, Any]] = []
        self._leaves: dict[int, int] = {}
        self._trees: list[BoxTree] = []

    def section(self, kind: str, disjuncts: Sequence[int], **facts: Any) -> Section:
        """Begin a section about some disjuncts of the property, by position."""
        number = len(self._sections)
        self._sections.append({"kind": kind, "disjuncts": list(disjuncts), **facts})
        return Section(number, self._writer, np.array(disjuncts, np.int32), self._leaves)

    def tree(self, disjuncts: Sequence[int]) -> BoxTree:
        """Begin the section of a search that splits boxes in any order; it is written when the run is saved."""
        self._trees.append(BoxTree(self.section(INPUT_SPLITTING, disjuncts)))
        return self._trees[-1]

    def save(self, path: Path, result: Result) -> Recorded:
        """Write the file: for every closed disjunct what closed it, for the open ones all there is."""
        for tree in self._trees:
            tree.write()
        if any(bound.closed_by == CROWN for bound in result.bounds):
            self.section(CROWN, [i for i, bound in enumerate(result.bounds) if bound.closed_by == CROWN])
        # The last section of a method about a disjunct is the one that closed it.
        last = {(s["kind"], i): number for number, s in enumerate(self._sections) for i in s["disjuncts"]}
        proofs = [last.get((bound.closed_by, i)) for i, bound in enumerate(result.bounds)]
        left = {i for i, bound in enumerate(result.bounds) if bound.level is None}
        about = [
            [i for i in section["disjuncts"] if proofs[i] == number or i in left]
            for number, section in enumerate(self._sections)
        ]
        # A counterexample needs no more.
        used = {number for number, disjuncts in enumerate(about) if disjuncts and result.witness is None}
        used |= {int(s["root"]) for s in (self._sections[n] for n in used) if s.get("root") is not None}
        witness = result.witness
        header = {
            "network": network_digest(self._query.network),
            "property": property_digest(self._query),
            "verdict": str(result.verdict),
            "disjuncts": [
                {
                    "closed_by": bound.closed_by or None,
                    "section": proofs[i],
                    "claim": bound.lower if np.isfinite(bound.lower) else None,
                }
                for i, bound in enumerate(result.bounds)
            ],
            "sections": [s if n in used else None for n, s in enumerate(self._sections)],
            "witness": None if witness is None else {"x": witness.x.tolist(), "disjunct": witness.disjunct},
        }
        size = self._writer.save(path, header, lambda table: int(table.split("/")[0]) in used)
        leaves: dict[str, int] = {}
        for number in used & set(self._leaves):
            kind = self._sections[number]["kind"]
            leaves[kind] = leaves.get(kind, 0) + self._leaves[number]
        unexplained = sum(bound.level is not None and proofs[i] is None for i, bound in enumerate(result.bounds))
        return Recorded(str(path), size, leaves, unexplained, len(left))


class BranchLog:
    """What the ReLU searches over one box write down; nothing without a log.

    own: the disjuncts that share the box.  network, nodes: the whole one; reduced, kept: without inactive neurons.
    """

    def __init__(
        self,
        log: EvidenceLog | None,
        own: Sequence[int],
        network: Network,
        nodes: Sequence[Bounds],
        reduced: Network,
        kept: Sequence[Bounds],
    ) -> None:
        self._log, self._own = log, own
        if log is not None:
            self._numbering = Numbering(_undecided(reduced, kept), _undecided(network, nodes))
        self._root: Section | None = None
        self._tables: list[int] = []

    @property
    def visit(self) -> Visit | None:
        """For ``optimised_bounds``."""
        return None if self._log is None else self._rows

    def leaves(self, own: Sequence[int]) -> LeafLog | None:
        """For a search that keeps its root's bounds, the latest ones."""
        return None if self._log is None else LeafLog(self._begin(self._log, RELU_SPLITTING, own))

    def regions(self, own: Sequence[int]) -> RegionLog | None:
        """For a search that recomputes bounds."""
        if self._log is None:
            return None
        return RegionLog(self._begin(self._log, REFINING_SPLITTING, own, tables=self._tables))

    def optimised(self, reduced: Network, better: Optimised) -> None:
        """From now on these bounds are the root's."""
        if self._log is None:
            return
        self._numbering = self._numbering.narrowed(reduced, better.nodes)
        self._tables = [k for k, table in better.slopes.items() if table]
        if self._root is not None:
            self._root.add("neurons", self._numbering.columns())

    def _rows(self, k: int, from_below: bool, own: Tensor, slopes: Mapping[int, Tensor]) -> None:
        assert self._log is not None
        if self._root is None:
            self._root = self._log.section(OPTIMISED, self._own)
        joined = torch.cat(list(slopes.values()), 1).numpy()
        count = len(own)
        self._root.add(
            "rows",
            {
                "node": np.full(count, k, np.int32),
                "place": self._numbering.whole(k, own).numpy().astype(np.int32),
                "side": np.full(count, 0 if from_below else 1, np.int8),
                "count": np.full(count, joined.shape[1], np.int32),
                "slopes": joined.reshape(-1),
            },
        )

    def _begin(self, log: EvidenceLog, kind: str, own: Sequence[int], **facts: Any) -> Section:
        section = log.section(kind, own, root=None if self._root is None else self._root.number, **facts)
        section.add("neurons", self._numbering.columns())
        return section


@dataclass(frozen=True, eq=False)
class LeafLog:
    """Closed regions of a search that keeps the bounds of its root."""

    section: Section

    def closed(self, result: RegionBounds, owner: Tensor) -> None:
        """The regions of a batch whose bound is positive."""
        at = torch.nonzero(result.lower > 0).squeeze(1)
        if len(at):
            signs = result.splits.signs[at]
            columns = _closing(self.section, result, owner, at, signs)
            self.section.add("leaves", columns, len(at))


class RegionLog:
    """All regions of a search that recomputes bounds, and what closed them."""

    def __init__(self, section: Section) -> None:
        self._section, self._first, self._regions = section, 0, 0

    def regions(self, refined: Refined, last: Sequence[int], first: int) -> None:
        """A batch of regions.  last: the neuron split last in each, -1 for none; first: as for ``refine``."""
        signs = refined.splits.signs
        count, codes = _codes(signs)
        # The splits of a region in the order of its halfspaces.
        order = torch.argsort((signs != 0).to(torch.int8), dim=1, descending=True, stable=True)
        parts = [torch.zeros(5, 0, dtype=torch.float64)]
        for layer in refined.passes:
            if layer.multipliers is not None:
                region, row, cut = torch.nonzero(layer.multipliers, as_tuple=True)
                side = (~layer.lower[region, row]).long()
                named = (region, layer.neuron[region, row], side, order[region, cut])
                parts.append(torch.stack([*(part.double() for part in named), layer.multipliers[region, row, cut]]))
        entries = torch.cat(parts, 1)
        joined = entries[:, torch.argsort(entries[0], stable=True)].numpy()
        columns = {
            "last": np.array(last, np.int32),
            "first": np.full(len(last), first, np.int32),
            "empty": ~refined.feasible.numpy(),
            "count": count,
            "splits": codes,
            "cuts": np.bincount(joined[0].astype(np.int64), minlength=len(last)).astype(np.int32),
            "cut_neuron": joined[1].astype(np.int32),
            "cut_side": joined[2].astype(np.int8),
            "cut_split": joined[3].astype(np.int32),
            "cut_value": joined[4],
        }
        self._section.add("regions", columns)
        self._first, self._regions = self._regions, self._regions + len(last)

    def closed(self, result: RegionBounds, pair: Tensor, owner: Tensor, weights: Tensor) -> None:
        """Pairs of a region of the latest batch and a disjunct whose bound is positive; weights: of the halfspaces."""
        at = torch.nonzero(result.lower > 0).squeeze(1)
        if len(at):
            signs = result.splits.signs[at]
            columns = _closing(self._section, result, owner, at, signs)
            chosen = weights[at, result.row[at]]
            used = torch.arange(chosen.shape[1])[None] < (signs != 0).sum(1)[:, None]
            region = (self._first + pair[at]).numpy().astype(np.int32)
            self._section.add("leaves", {"region": region, "cut_value": chosen[used].numpy(), **columns}, len(at))


class BoxTree:
    """A tree of boxes that grows in any order and is written depth first.  Node 0 is the whole box."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._code, self._position, self._lower_half = [OPEN], [0.0], [-1]

    def split(self, node: Tensor, dimension: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [B] are cut in two; the numbers of their lower and of their upper halves."""
        first = len(self._code)
        for i, one in enumerate(node.tolist()):
            self._code[one], self._position[one] = int(dimension[i]), float(position[i])
            self._lower_half[one] = first + 2 * i
        for column, start in ((self._code, OPEN), (self._position, 0.0), (self._lower_half, -1)):
            column.extend([start] * (2 * len(node)))  # type: ignore[list-item]
        lower = first + 2 * torch.arange(len(node))
        return lower, lower + 1

    def closed(self, node: Tensor) -> None:
        """No disjunct is open in these boxes."""
        for one in node.tolist():
            self._code[one] = CLOSED

    def write(self) -> None:
        """Write it down; what is neither cut nor closed is open."""
        order, waiting = [], [0]
        while waiting:
            node = waiting.pop()
            order.append(node)
            if self._code[node] >= 0:
                waiting += [self._lower_half[node] + 1, self._lower_half[node]]
        code = np.array(self._code, np.int16)[order]
        position = np.array(self._position)[order]
        self._section.add("nodes", {"code": code, "position": position[code >= 0]}, int((code == CLOSED).sum()))


def _codes(signs: Tensor) -> tuple[Array, Array]:
    """Splits of regions [B, m] as numbers: how many each has, and +-(neuron + 1), neurons ascending."""
    count = (signs != 0).sum(1).numpy().astype(np.int32)
    region, neuron = torch.nonzero(signs, as_tuple=True)
    return count, (signs[region, neuron].long() * (neuron + 1)).numpy().astype(np.int32)


def _closing(section: Section, result: RegionBounds, owner: Tensor, at: Tensor, signs: Tensor) -> dict[str, Array]:
    split = signs != 0
    count, codes = _codes(signs)
    return {
        "owner": section.disjuncts[owner[at].numpy()],
        "row": result.row[at].numpy().astype(np.int32),
        "claim": result.lower[at].numpy(),
        "count": count,
        "splits": codes,
        "multipliers": result.splits.multipliers[at][split].numpy(),
        "slopes": result.splits.slopes[at].masked_fill(split, 0).numpy(),
    }
