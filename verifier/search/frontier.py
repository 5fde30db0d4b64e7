"""Open regions of branch and bound: one type for what is still to be decided, one place that keeps it.

A region is a part of the input box: cut by ReLU signs, a smaller box, or both.  It leaves some disjuncts open; what is
known of one region and one disjunct (a bound, slopes, multipliers) is a *claim*.  ``Regions`` are batches of both as
arrays of columns; a column that a search has no use for is None.

A ``Frontier`` gives out the worst regions first, which moves the least bound of all and finds counterexamples; from a
size on, where that is asked for, those nearest to closing come first, which keeps it small.  Beyond its bytes the
regions nearest to closing wait on disk (``spill``).

The compiled input splitting for dense chains keeps a stack of its own (``input_split``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from verifier.bounds.beta_crown import Splits
from verifier.search.spill import Spill


@dataclass(frozen=True, eq=False)
class Regions:
    """B regions with P >= B claims, those of one region next to each other.

    counts: [B], claims of each region, at least 1.  branch: [B], the neuron or input to split next, -1 for none.
    signs: [B, m]; inputs: [B, 2, m], as in ``beta_crown.Splits``.  box: [B, 2, n_inputs], lower then upper.
    node: [B], its number in the tree that is written down.
    owner: [P], position of the disjunct; lower: [P], bound on its margin.  slopes, multipliers: [P, m].
    """

    counts: Tensor
    branch: Tensor
    owner: Tensor
    lower: Tensor
    signs: Tensor | None = None
    inputs: Tensor | None = None
    box: Tensor | None = None
    node: Tensor | None = None
    slopes: Tensor | None = None
    multipliers: Tensor | None = None

    @staticmethod
    def single(splits: Splits, owner: Tensor, lower: Tensor, branch: Tensor) -> Regions:
        """Regions with one claim each."""
        counts = torch.ones_like(owner)
        return Regions(
            counts,
            branch,
            owner,
            lower,
            signs=splits.signs,
            inputs=splits.inputs,
            slopes=splits.slopes,
            multipliers=splits.multipliers,
        )

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def splits(self) -> Splits:
        """Signs, slopes and multipliers of every claim."""
        assert self.signs is not None
        assert self.slopes is not None
        assert self.multipliers is not None
        region = self.region
        inputs = None if self.inputs is None else self.inputs[region]
        return Splits(self.signs[region], self.slopes, self.multipliers, inputs)

    @property
    def region(self) -> Tensor:
        """[P], the region of every claim."""
        return torch.arange(len(self)).repeat_interleave(self.counts)

    @property
    def worst(self) -> Tensor:
        """[B], the least bound of each region."""
        if len(self.lower) == len(self):
            return self.lower
        least = torch.full((len(self),), torch.inf, dtype=self.lower.dtype)
        return least.scatter_reduce(0, self.region, self.lower, "amin")

    @property
    def lowest(self) -> dict[int, float]:
        """The least bound of each disjunct that is open in some region."""
        return {int(owner): float(self.lower[self.owner == owner].min()) for owner in self.owner.unique()}

    @property
    def bytes(self) -> int:
        columns = (getattr(self, one.name) for one in fields(self))
        return sum(column.numel() * column.element_size() for column in columns if column is not None)

    def pick(self, index: Tensor) -> Regions:
        """Regions by position, [*], in that order."""
        claims = index
        if len(self.lower) != len(self):
            counts = self.counts[index]
            first = (torch.cumsum(self.counts, 0) - self.counts)[index] - (torch.cumsum(counts, 0) - counts)
            claims = first.repeat_interleave(counts) + torch.arange(int(counts.sum()))
        return self._columns(lambda column, per_claim: column[claims if per_claim else index])

    def only(self, claims: Tensor) -> Regions:
        """With these claims, [P] bool; regions without one are dropped."""
        if bool(claims.all()):
            return self
        counts = torch.zeros_like(self.counts).index_add(0, self.region, claims.long())
        kept = counts > 0
        left = self._columns(lambda column, per_claim: column[claims if per_claim else kept])
        return replace(left, counts=counts[kept])

    @staticmethod
    def join(parts: Sequence[Regions]) -> Regions:
        """All regions of the parts, which have the same columns."""
        if len(parts) == 1:
            return parts[0]
        columns: dict[str, Any] = {}
        for one in fields(Regions):
            found = [getattr(part, one.name) for part in parts]
            columns[one.name] = None if found[0] is None else torch.cat(found)
        return Regions(**columns)

    def _columns(self, change: Callable[[Tensor, bool], Tensor]) -> Regions:
        """Every column changed; told whether it is one of the claims."""
        columns: dict[str, Any] = {}
        for one in fields(self):
            column = getattr(self, one.name)
            columns[one.name] = None if column is None else change(column, one.name in CLAIMS)
        return Regions(**columns)


CLAIMS = ("owner", "lower", "slopes", "multipliers")
"""Columns with an entry per claim; the others have one per region."""


MOST_PARTS = 64
"""Batches that are kept apart before they are joined."""


class _Store:
    """Regions in order of arrival.  They stay in the batches they came in, so that taking some does not move all.

    worst: [N], their least bounds.
    """

    def __init__(self) -> None:
        self._parts: list[Regions] = []
        self._part = self._row = torch.zeros(0, dtype=torch.long)
        self.worst = torch.zeros(0, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.worst)

    @property
    def bytes(self) -> int:
        """Of all that is kept, some of which may have been taken already."""
        return sum(part.bytes for part in self._parts)

    def add(self, regions: Regions) -> None:
        count = len(regions)
        self._part = torch.cat([self._part, torch.full((count,), len(self._parts))])
        self._row = torch.cat([self._row, torch.arange(count)])
        self.worst = torch.cat([self.worst, regions.worst])
        self._parts.append(regions)
        if len(self._parts) > MOST_PARTS:
            self.compact()

    def remove(self, chosen: Tensor) -> Regions:
        """Take regions by position, at least one; in that order."""
        taken = self._gather(chosen)
        left = torch.ones(len(self), dtype=torch.bool)
        left[chosen] = False
        self._part, self._row, self.worst = self._part[left], self._row[left], self.worst[left]
        if sum(map(len, self._parts)) > 2 * len(self):
            self.compact()
        return taken

    def change(self, change: Callable[[Regions], Regions]) -> None:
        """Replace all regions at once."""
        if len(self):
            changed = change(self._gather(torch.arange(len(self))))
            self._parts = [changed] if len(changed) else []
            self._part, self._row = torch.zeros(len(changed), dtype=torch.long), torch.arange(len(changed))
            self.worst = changed.worst
        else:
            self._parts = []

    def compact(self) -> None:
        """One batch, without those that were taken."""
        self.change(lambda regions: regions)

    def lowest(self) -> dict[int, float]:
        """The least bound of each disjunct that is open in some region."""
        self.compact()
        return self._parts[0].lowest if self._parts else {}

    def _gather(self, chosen: Tensor) -> Regions:
        part, row = self._part[chosen], self._row[chosen]
        order = torch.argsort(part, stable=True)
        numbers, counts = part[order].unique_consecutive(return_counts=True)
        rows = row[order].split(counts.tolist())
        joined = Regions.join([self._parts[n].pick(own) for n, own in zip(numbers.tolist(), rows, strict=True)])
        return joined if len(numbers) == 1 else joined.pick(torch.argsort(order))


class Frontier:
    """Open regions in order of their bounds; those with equal bounds in order of arrival.

    most_bytes: of the regions kept in memory; the rest wait on disk.  None: all of them.
    crowded: regions in memory from which on those nearest to closing come first.  None: never.
    """

    def __init__(self, most_bytes: int | None = None, crowded: int | None = None) -> None:
        self._most_bytes, self._crowded = most_bytes, crowded
        self._store, self._spill = _Store(), Spill()
        self._forgotten: set[int] = set()
        self.spilled = 0

    def __len__(self) -> int:
        """Regions in memory and on disk."""
        return len(self._store) + len(self._spill)

    @property
    def worst(self) -> float:
        """The least bound of an open region, infinite where none is open."""
        kept = float(self._store.worst.min()) if len(self._store) else torch.inf
        return min([kept, *self._spill.lowest.values()])

    @property
    def lowest(self) -> dict[int, float]:
        """The least bound of each disjunct that is open in some region."""
        found = dict(self._spill.lowest)
        for owner, lower in self._store.lowest().items():
            found[owner] = min(lower, found.get(owner, lower))
        return {owner: lower for owner, lower in found.items() if owner not in self._forgotten}

    @property
    def on_disk(self) -> dict[int, float]:
        """The least bound of each disjunct that is open in a region on disk."""
        return self._spill.lowest

    def add(self, regions: Regions) -> None:
        regions = self._remembered(regions)
        if len(regions):
            self._store.add(regions)

    def take(self, count: int) -> Regions | None:
        """Remove and return up to ``count`` regions, the next ones first; None where no region is left.

        Raises OSError when there is no room on the disk for those that do not fit in memory.
        """
        self._balance()
        if not len(self._store):
            return None
        return self._remove(count, self._crowded is not None and len(self._store) > self._crowded)

    def forget(self, owners: Iterable[int]) -> None:
        """Drop the claims on these disjuncts, now and whenever they turn up."""
        if not self._forgotten.issuperset(owners := set(owners)):
            self._forgotten |= owners
            self._store.change(self._remembered)

    def rewrite(self, change: Callable[[Regions], Regions]) -> None:
        """Replace all regions at once.  Not for frontiers that may have some on disk."""
        assert self._most_bytes is None
        self._store.change(change)

    def _remove(self, count: int, nearest: bool) -> Regions:
        return self._store.remove(torch.argsort(self._store.worst, descending=nearest, stable=True)[:count])

    def _balance(self) -> None:
        """Move what does not fit in memory to disk, those nearest to closing first, and back when there is room."""
        while not len(self._store) and len(self._spill):
            regions = self._remembered(self._spill.pop())
            if len(regions):
                self._store.add(regions)
        if self._most_bytes is None or self._store.bytes <= self._most_bytes:
            return
        self._store.compact()
        count, size = len(self._store), self._store.bytes
        kept = max(1, self._most_bytes * count // max(1, size))
        if count > kept:
            away = self._remove(count - max(1, kept // 2), nearest=True)
            self._store.compact()
            self.spilled += len(away)
            self._spill.push(away, len(away), away.lowest)

    def _remembered(self, regions: Regions) -> Regions:
        if not self._forgotten:
            return regions
        return regions.only(~torch.isin(regions.owner, torch.tensor(sorted(self._forgotten))))
