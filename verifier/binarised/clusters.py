"""Bounds for networks whose second layer looks at few first-layer bits at a time, as convolutions do.

A target is a sum over the second layer's gates.  Gates that read the same few bits are put into one *cluster*; a
cluster's
share of the sum is tabulated over all patterns of its bits, and the sum of the clusters' largest shares bounds the
target.
That is the mini-bucket relaxation (Dechter and Rish 2003): a bit that several clusters read may have another value in
each. Three things tighten it.

* Patterns of a cluster that no input reaches are struck out: the pattern with the largest share is given to a linear
  program over the inputs that its gates read, and a conflict, checked in integers, sieves the table (see ``reach``).
* Max-marginal averaging (the dual decomposition of Globerson and Jaakkola 2007): for a bit that several clusters
read, what its being 1 gains is made equal in all of them by moving cost between them, which never raises the bound.
* Branch and bound on the bits on whose value the clusters' best patterns still disagree.

Moved costs are multiples of 2**-10, so all sums are exact in float64 and whatever is moved cancels out.

With real inputs a gate's sum may be off by the rounding of float32, and conflicts allow for it; so what is closed
here is closed for every input of the box, not only on the lattice of integer pixels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.binarised.reach import Reach
from verifier.deadline import Deadline
from verifier.encodings.sat.program import Program, Rows
from verifier.progress import Event, Progress, silent
from verifier.proofs.conflict import Conflict

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


GRAIN = 1024.0
LEAST_GAIN = 0.1
"""A round of averaging that lowers the bound by less is the last."""


@dataclass(frozen=True)
class ClusterOptions:
    """most: bits of a cluster, where its gates do not read more by themselves.  widest: beyond this there is no table.

    programs: linear programs per cluster at most.
    """

    most: int = 14
    widest: int = 18
    programs: int = 2000


@dataclass(eq=False)
class Cluster:
    """bits: first-layer gates, in the order of the pattern's binary digits.

    shares: (2**bits, targets).  alive: (2**bits,), not struck out.  reached: patterns that real levels reach.
    """

    bits: list[int]
    shares: NDArray[np.float32]
    alive: NDArray[np.bool_]
    reach: Reach
    reached: set[int] = field(default_factory=set)

    def try_out(self, number: int) -> bool:
        """Whether a pattern stays; one that no input reaches is struck out, and all that share its conflict."""
        if not self.alive[number]:
            return False
        if number in self.reached:
            return True
        answer = self.reach.ask({place: bool(number >> place & 1) for place in range(len(self.bits))})
        if not isinstance(answer, Conflict):
            self.reached.add(number)
            return True
        mask = sum(1 << int(gate) for gate in answer.gates)
        self.alive &= (np.arange(len(self.alive)) & mask) != number & mask
        return False


def targets_of(program: Program) -> Rows | None:
    """The rows over the second layer of which one has to hold; None for programs of another shape."""
    if len(program.layers) == 2 and len(program.asserted) == 1:
        return program.asserted
    rows = program.asserted
    ones = len(rows) == 1 and rows.thresholds[0] == 1 and np.all(rows.weights.data == 1)
    return program.layers[2] if len(program.layers) == 3 and ones else None


def close_targets(
    program: Program,
    deadline: Deadline,
    rounding: float | None = None,
    options: ClusterOptions | None = None,
    progress: Progress = silent,
) -> NDArray[np.bool_]:
    """Which targets no input reaches, (targets,); nothing is said of the others.

    rounding: by how much a first-layer sum over real inputs may be off; None where the inputs are the levels.
    Raises ValueError for programs of another shape (see ``targets_of``).
    """
    options = options or ClusterOptions()
    targets = targets_of(program)
    if targets is None:
        raise ValueError("no second layer with targets over it")
    closed = np.zeros(len(targets), bool)
    supports = _supports(program.layers[1])
    if max(map(len, supports), default=0) > options.widest:
        return closed
    groups = _grouped(supports, options.most)
    clusters = [_tabulated(bits, gates, program, targets, rounding) for bits, gates in groups]
    needed = targets.thresholds.astype(np.float64)
    for number, cluster in enumerate(clusters):
        if deadline.expired:
            break
        _strike_out(cluster, deadline, options.programs)
        progress(Event("clusters", open=len(clusters) - number, unit="clusters"))
    best = sum(_largest(cluster) for cluster in clusters)
    closed |= np.asarray(best < needed)
    order = np.argsort(best - needed)
    waiting = order[~closed[order]].tolist()
    for left, target in zip(range(len(waiting), 0, -1), waiting, strict=True):
        if deadline.expired:
            break
        closed[target] = _branch(clusters, target, float(needed[target]), deadline.share(min(1.0, 2 / left)))
        progress(Event("clusters", open=int(np.count_nonzero(~closed)), unit="targets"))
    return closed


def _supports(layer: Rows) -> list[frozenset[int]]:
    starts, columns = layer.weights.indptr, layer.weights.indices
    return [frozenset(columns[starts[i] : starts[i + 1]].tolist()) for i in range(len(layer))]


def _grouped(supports: list[frozenset[int]], most: int) -> list[tuple[list[int], list[int]]]:
    """Clusters of gates, (bits, gates): widest gates first, each to the cluster that grows least."""
    bits: list[set[int]] = []
    gates: list[list[int]] = []
    holders: dict[int, set[int]] = defaultdict(set)
    for gate in sorted(range(len(supports)), key=lambda g: -len(supports[g])):
        support = supports[gate]
        growth = {number: len(support - bits[number]) for number in set().union(*(holders[bit] for bit in support))}
        fitting = [n for n, grown in growth.items() if grown == 0 or len(bits[n]) + grown <= most]
        if fitting:
            chosen = min(fitting, key=lambda n: (growth[n], n))
            bits[chosen] |= support
            gates[chosen].append(gate)
        else:
            chosen = len(bits)
            bits.append(set(support))
            gates.append([gate])
        for bit in support:
            holders[bit].add(chosen)
    return [(sorted(own), members) for own, members in zip(bits, gates, strict=True)]


def _patterns(count: int) -> NDArray[np.float32]:
    return ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(np.float32)


def _tabulated(bits: list[int], gates: list[int], program: Program, targets: Rows, rounding: float | None) -> Cluster:
    """Sums of integers below 2**24, exact in float32."""
    first, layer = program.layers[0], program.layers[1]
    rows = sp.csr_array(first.weights[bits])
    columns = np.unique(rows.indices)
    reach = Reach(Rows(sp.csr_array(rows[:, columns]), first.thresholds[bits]), program.counts[columns], rounding)
    weights = layer.weights[gates][:, bits].toarray().astype(np.float32)
    shares = targets.weights[:, gates].toarray().astype(np.float32)
    with np.errstate(invalid="ignore"):  # OpenBLAS's flags on tiny matrices
        fired = (_patterns(len(bits)) @ weights.T >= layer.thresholds[gates]).astype(np.float32)
        return Cluster(bits, fired @ shares.T, np.ones(len(fired), bool), reach)


def _largest(cluster: Cluster) -> Floats:
    return np.asarray(cluster.shares[cluster.alive].max(axis=0), np.float64)


def _strike_out(cluster: Cluster, deadline: Deadline, programs: int) -> None:
    """Strike patterns out until the best of every target is reached, by real levels at least."""
    while cluster.reach.programs < programs and not deadline.expired:
        left = np.flatnonzero(cluster.alive)
        best = set(left[cluster.shares[left].argmax(axis=0)].tolist()) - cluster.reached
        if not best:
            return
        for number in best:
            cluster.try_out(number)


def _branch(clusters: list[Cluster], target: int, needed: float, deadline: Deadline) -> bool:
    """Whether no consistent choice of patterns makes the target's sum reach ``needed``; False when time is over."""
    shares = [np.where(cluster.alive, cluster.shares[:, target], -np.inf) for cluster in clusters]
    numbers = [np.arange(len(cluster.alive)) for cluster in clusters]
    holders: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for c, cluster in enumerate(clusters):
        for place, bit in enumerate(cluster.bits):
            holders[bit].append((c, place))

    def decided(open_shares: list[Floats], total: float, best: list[int]) -> bool:
        if deadline.expired:
            return False
        if total < needed:
            return True
        bit = _disputed(clusters, best)
        if bit is None:
            return False
        for value in (0, 1):
            own, number, sum_ = list(open_shares), list(best), total
            for c, place in holders[bit]:
                kept = np.where((numbers[c] >> place & 1) == value, own[c], -np.inf)
                sum_ += float(kept.max()) - float(own[c].max())
                own[c], number[c] = kept, int(kept.argmax())
            if not decided(own, sum_, number):
                return False
        return True

    theta = [np.asarray(own, np.float64) for own in shares]
    while True:
        total = _average(theta, numbers, holders, needed, deadline)
        if total < needed or deadline.expired or not _strike_best(clusters, theta):
            break
    return decided(theta, total, [int(own.argmax()) for own in theta])


def _strike_best(clusters: list[Cluster], theta: list[Floats]) -> bool:
    """Try every cluster's best pattern until it is reached; whether any was struck out."""
    struck = False
    for cluster, own in zip(clusters, theta, strict=True):
        while np.isfinite(own.max()) and not cluster.try_out(int(own.argmax())):
            own[~cluster.alive] = -np.inf
            struck = True
    return struck


def _average(
    theta: list[Floats],
    numbers: list[Integers],
    holders: dict[int, list[tuple[int, int]]],
    needed: float,
    deadline: Deadline,
) -> float:
    """Move costs between clusters, in place, as long as the bound falls; the bound."""
    shared = [places for places in holders.values() if len(places) > 1]
    ones = [[np.flatnonzero(numbers[c] >> place & 1) for c, place in places] for places in shared]
    zeros = [[np.flatnonzero((numbers[c] >> place & 1) == 0) for c, place in places] for places in shared]
    total = float(sum(own.max() for own in theta))
    while not deadline.expired:
        for places, one, zero in zip(shared, ones, zeros, strict=True):
            gains = np.array(
                [theta[c][on].max() - theta[c][off].max() for (c, _), on, off in zip(places, one, zero, strict=True)]
            )
            if not np.isfinite(gains).all():
                continue
            moves = np.rint((gains.mean() - gains) * GRAIN) / GRAIN
            moves[0] -= moves.sum()
            for (c, _), on, move in zip(places, one, moves, strict=True):
                theta[c][on] += move
        before, total = total, float(sum(own.max() for own in theta))
        if total < needed or before - total < LEAST_GAIN:
            break
    return total


def _disputed(clusters: list[Cluster], best: list[int]) -> int | None:
    """The bit on whose value most clusters' best patterns disagree; None where they all agree."""
    votes: dict[bool, Counter[int]] = {False: Counter(), True: Counter()}
    for cluster, number in zip(clusters, best, strict=True):
        for place, bit in enumerate(cluster.bits):
            votes[bool(number >> place & 1)][bit] += 1
    disputes = {bit: min(count, votes[False][bit]) for bit, count in votes[True].items() if votes[False][bit]}
    return max(disputes, key=lambda bit: (disputes[bit], -bit)) if disputes else None
