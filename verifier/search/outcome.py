"""What a search over the disjuncts of a query has found when it stops, for good or for now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from verifier.search.frontier import Frontier
from verifier.verdict import DisjunctBounds, EvidenceLevel, Witness


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """witness: a confirmed counterexample, or None.

    bounds: one entry per disjunct of the query.  regions: visited so far.  open: left.
    """

    witness: Witness | None
    bounds: tuple[DisjunctBounds, ...]
    regions: int
    open: int


def bounds_of(count: int, frontier: Frontier, abandoned: Collection[int], method: str) -> tuple[DisjunctBounds, ...]:
    """What a frontier that only ever lost closed regions says of the disjuncts 0 .. count - 1.

    abandoned: disjuncts that were open in regions given up.
    """
    lowest = frontier.lowest
    found = []
    for position in range(count):
        if position in abandoned:
            found.append(DisjunctBounds())
        elif position in lowest:
            found.append(DisjunctBounds(lower=lowest[position]))
        else:
            found.append(DisjunctBounds(lower=0.0, closed_by=method, level=EvidenceLevel.RIGOROUS))
    return tuple(found)
