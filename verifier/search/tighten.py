"""Progressive bound tightening: the signs of pre-activations, neuron by neuron, by LP and then by MILP.

Tjeng, Xiao and Tedrake (2019), section 4.3: cheap procedures first, dearer ones only where a ReLU is still
undecided.  The caller brings interval and CROWN bounds; here, ReLU layer by ReLU layer,

    LP     the triangle relaxation of everything before the neuron, minimised and maximised; the certified
           value (``lp_certificate``) is the bound, so bounds that were rigorous stay rigorous
    MILP   the big-M program of everything before the neuron, stopped as soon as the sign is certain or a
           point shows that it is not; the dual bound less a margin is the bound, level TRUSTED

Points keep the number of programs small (Gleixner et al., "Three enhancements for optimization-based bound
tightening", 2017, call it filtering): where a point of the relaxation has a neuron below zero, no LP can prove
it active, and where a run of the network has it below zero, nothing can.  What may decide a ReLU comes first.

Invariant: bounds only get tighter, and hold wherever the given ones do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.bounds.level import Bounds, Level
from verifier.deadline import Deadline
from verifier.encodings.milp.big_m import Encoding, ancestors, encodable, encode
from verifier.errors import SolverError
from verifier.model.network import Network
from verifier.progress import Event, Progress, silent
from verifier.solve.highs import NO_HEURISTICS, minimise
from verifier.solve.highs_run import Options
from verifier.solve.lp import LinearPrograms
from verifier.solve.process import HighsProcess

Array = NDArray[np.float64]
Rebound = Callable[[Sequence[Bounds]], Sequence[Bounds]]

STAGE = "tighten"
CONFIDENCE = 1e-5
"""A MILP's dual bound is taken lower by this, relative to 1 + the neuron's range: see ``search.mip``."""
SEED = 0
VALUES_AT_ONCE = 2**23
"""How many values of nodes, over all samples, are held in memory at once."""
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class TightenOptions:
    """lp_share, milp_share: of the time left at the start.  0 leaves the step out.

    milp_seconds: the longest that one MILP may take.
    only_signs: no LP whose bound cannot decide a ReLU.  Otherwise, after those that may, both bounds of the
        other unstable neurons, largest triangle first: they make the programs behind them tighter.
    samples: points of the box that the network is run on first.
    threads, highs: for HiGHS.  most_bytes: that it may hold.
    """

    lp_share: float = 0.15
    milp_share: float = 0.15
    milp_seconds: float = 1.0
    only_signs: bool = False
    samples: int = 256
    threads: int = 1
    most_bytes: int | None = None
    highs: Options = field(default_factory=dict)


def tighten(
    network: Network,
    lower: Array,
    upper: Array,
    bounds: Sequence[Bounds],
    deadline: Deadline,
    options: TightenOptions | None = None,
    progress: Progress = silent,
    rebound: Rebound | None = None,
) -> tuple[tuple[Bounds, ...], dict[str, float]]:
    """Tighter bounds on what enters each ReLU, and how much work that took.

    lower, upper: (n_inputs,), the box.
    bounds: one entry per node of the network over that box, tensors [1, *shape].
    rebound: gives bounds on all nodes from bounds on all nodes; asked after every layer that changed, for the
        layers behind it.  What it returns is intersected with what is known.
    Raises SolverError when HiGHS contradicts itself or what is known.
    """
    options = options or TightenOptions()
    network = network.to(torch.float64)
    found = [Bounds(b.lower.cpu().double(), b.upper.cpu().double(), b.level) for b in bounds]
    counts = dict.fromkeys(("tighten_lps", "tighten_lp_fixed", "tighten_milps", "tighten_milp_fixed"), 0.0)
    sources = [source for source in _sources(network) if bool(found[source].unstable.any())]
    if not sources or not encodable(network, found):
        return tuple(found), counts
    seen = _Seen(network, lower, upper, options.samples)
    lp_time = _Allowance(deadline.remaining * options.lp_share if options.lp_share else 0.0)
    milp_time = _Allowance(deadline.remaining * options.milp_share if options.milp_share else 0.0)
    with HighsProcess(options.most_bytes) as process:
        for number, source in enumerate(sources):
            left = len(sources) - number
            if deadline.expired or (lp_time.spent and milp_time.spent):
                break
            if not bool(found[source].unstable.any()):
                continue
            encoding = encode(network, lower, upper, found, until=source)
            layer = _Layer(network, encoding, found[source], seen, options, counts)
            with lp_time.part(left, deadline) as until:
                layer.by_lp(until)
            with milp_time.part(left, deadline) as until:
                layer.by_milp(until, process)
            if layer.level is not None:
                _store(network, found, source, layer)
                if rebound is not None and not deadline.expired:
                    for index, bound in enumerate(rebound(tuple(found))):
                        found[index] = found[index].intersect(bound)
            still = sum(int(found[index].unstable.sum()) for index in sources)
            progress(Event(STAGE, open=still, unit="neurons"))
    return tuple(found), counts


def _sources(network: Network) -> list[int]:
    """The nodes that enter ReLUs and depend on other ReLUs; over a box, the others' intervals are exact."""
    relus = set(network.relus)
    sources = dict.fromkeys(network.nodes[index].inputs[0] for index in network.relus)
    return [source for source in sources if relus & ancestors(network, source)]


class _Allowance:
    """Seconds for one kind of work, spread over what is left to do."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @property
    def spent(self) -> bool:
        return self._seconds <= 0

    @contextlib.contextmanager
    def part(self, parts: int, deadline: Deadline) -> Iterator[Deadline]:
        """An equal part of what is left, not beyond the deadline; what is not used stays."""
        begun = time.monotonic()
        yield deadline.within(self._seconds / parts)
        self._seconds = max(0.0, self._seconds - (time.monotonic() - begun))


@dataclass(frozen=True, eq=False)
class _Extremes:
    """The least and greatest values that some points gave a node, (size,) each; ``add`` changes them in place."""

    least: Array
    greatest: Array

    def add(self, values: Array) -> None:
        """values: (size,), of one more point."""
        np.minimum(self.least, values, out=self.least)
        np.maximum(self.greatest, values, out=self.greatest)

    def refutes(self, neuron: int, sign: int) -> bool:
        """Whether a point shows that the neuron is not stable on that side (1: active, -1: inactive)."""
        return bool(self.least[neuron] < 0 if sign > 0 else self.greatest[neuron] > 0)


class _Seen:
    """What runs of the network gave: the extremes of every node."""

    def __init__(self, network: Network, lower: Array, upper: Array, count: int) -> None:
        self._network = network
        rng = np.random.default_rng(SEED)
        # Corners show signs that points inside do not.
        inside = rng.uniform(lower, upper, (count - count // 2, len(lower)))
        corners = np.where(rng.random((count // 2, len(lower))) < 0.5, lower, upper)
        points = np.concatenate([((lower + upper) / 2)[None], inside, corners])
        self.nodes = [_Extremes(value[0].copy(), value[0].copy()) for value in self._values(points[:1])]
        at_once = max(1, VALUES_AT_ONCE // sum(node.size for node in network.nodes))
        for begin in range(1, len(points), at_once):
            for extremes, value in zip(self.nodes, self._values(points[begin : begin + at_once]), strict=True):
                extremes.add(value.min(axis=0))
                extremes.add(value.max(axis=0))

    def add(self, x: Array) -> None:
        """One more run, at x: (n_inputs,)."""
        for node, value in zip(self.nodes, self._values(x[None]), strict=True):
            node.add(value[0])

    def _values(self, points: Array) -> list[Array]:
        return [value.flatten(1).numpy() for value in self._network.values(torch.from_numpy(points))]


class _Layer:
    """The bounds of one node that enters a ReLU, while they are tightened.

    low, high: (size,).  level: of the bounds now, None while nothing has changed.
    """

    def __init__(
        self,
        network: Network,
        encoding: Encoding,
        bounds: Bounds,
        seen: _Seen,
        options: TightenOptions,
        counts: dict[str, float],
    ) -> None:
        self._inputs, self._encoding, self._seen = network.n_inputs, encoding, seen
        self._runs = seen.nodes[encoding.node]
        self._options, self._counts = options, counts
        self._given = min(bounds.level, encoding.level)
        self.low = bounds.lower.reshape(-1).numpy().copy()
        self.high = bounds.upper.reshape(-1).numpy().copy()
        self.level: Level | None = None
        self._done: set[tuple[int, int]] = set()

    def by_lp(self, deadline: Deadline) -> None:
        """Certified bounds from the triangle relaxation."""
        # Points of the network are points of its relaxation.
        relaxed = _Extremes(self._runs.least.copy(), self._runs.greatest.copy())
        programs: LinearPrograms | None = None
        for neuron, sign, for_sign in self._lp_tasks():
            if not self._undecided(neuron) or (for_sign and relaxed.refutes(neuron, sign)):
                continue
            if deadline.expired:
                return
            programs = programs or LinearPrograms(self._encoding.model)
            self._counts["tighten_lps"] += 1
            bound = programs.minimum(*self._cost(neuron, sign), deadline, float(self._encoding.value.error[neuron]))
            if bound.point is not None:
                relaxed.add(self._encoding.value.at(bound.point))
            self._done.add((neuron, sign))
            if self._improve(neuron, sign, bound.lower, self._given):
                self._counts["tighten_lp_fixed"] += 1

    def _lp_tasks(self) -> Iterator[tuple[int, int, bool]]:
        """Neuron, side, and whether only the sign matters: first what may decide a ReLU, then the rest."""
        for neuron in self._unstable():
            for sign in self._sides(neuron):
                yield neuron, sign, True
        if self._options.only_signs:
            return
        low, high = self.low, self.high
        areas = -low * high / np.maximum(high - low, TINY)
        for neuron in sorted(self._unstable(), key=lambda k: -areas[k]):
            for sign in self._sides(neuron):
                if (neuron, sign) not in self._done:
                    yield neuron, sign, False

    def by_milp(self, deadline: Deadline, process: HighsProcess) -> None:
        """Signs from the big-M program; bounds that decide nothing are not worth a lower level."""
        for neuron in self._unstable():
            for sign in self._sides(neuron):
                if self._runs.refutes(neuron, sign) or not self._undecided(neuron):
                    continue
                if deadline.expired:
                    return
                model = self._encoding.model.costing(*self._cost(neuron, sign))
                margin = CONFIDENCE * (1.0 + self.high[neuron] - self.low[neuron])

                def accept(point: Array, neuron: int = neuron, sign: int = sign) -> bool:
                    self._seen.add(point[: self._inputs])
                    return self._runs.refutes(neuron, sign)

                outcome = minimise(
                    model,
                    deadline.within(self._options.milp_seconds),
                    process=process,
                    threads=self._options.threads,
                    stop_above=margin,
                    accept=accept,
                    options={**NO_HEURISTICS, **self._options.highs},
                )
                self._counts["tighten_milps"] += 1
                if outcome.dual_bound > margin and self._improve(
                    neuron, sign, outcome.dual_bound - margin, min(self._given, Level.TRUSTED)
                ):
                    self._counts["tighten_milp_fixed"] += 1

    def _cost(self, neuron: int, sign: int) -> tuple[Array, float]:
        """``sign * value`` of a neuron, to be minimised: a row (n,) and an offset."""
        value = self._encoding.value
        return sign * value.matrix[[neuron]].toarray()[0], sign * float(value.constant[neuron])

    def _undecided(self, neuron: int) -> bool:
        return bool(self.low[neuron] < 0 < self.high[neuron])

    def _unstable(self) -> list[int]:
        """Undecided neurons, those first whose bounds are closest to a decision."""
        neurons = np.flatnonzero((self.low < 0) & (self.high > 0))
        share = np.minimum(-self.low[neurons], self.high[neurons]) / (self.high[neurons] - self.low[neurons])
        return [int(neuron) for neuron in neurons[np.argsort(share, kind="stable")]]

    def _sides(self, neuron: int) -> tuple[int, int]:
        """1: raise the lower bound, -1: bring the upper bound down; the likelier one first."""
        return (1, -1) if -self.low[neuron] <= self.high[neuron] else (-1, 1)

    def _improve(self, neuron: int, sign: int, bound: float, level: Level) -> bool:
        """Take a lower bound on ``sign * value``; True if that decides the ReLU."""
        if bound <= (self.low[neuron] if sign > 0 else -self.high[neuron]):
            return False
        if sign > 0:
            self.low[neuron] = bound
        else:
            self.high[neuron] = -bound
        if self.low[neuron] > self.high[neuron]:
            raise SolverError(
                f"node {self._encoding.node}, neuron {neuron}: a lower bound of {self.low[neuron]:.17g} "
                f"contradicts an upper bound of {self.high[neuron]:.17g}"
            )
        self.level = level if self.level is None else min(self.level, level)
        return not self._undecided(neuron)


def _store(network: Network, found: list[Bounds], source: int, layer: _Layer) -> None:
    """The layer's bounds, for the node itself and for the ReLUs that read it."""
    assert layer.level is not None
    shape = found[source].lower.shape
    low, high = torch.from_numpy(layer.low).reshape(shape), torch.from_numpy(layer.high).reshape(shape)
    found[source] = Bounds(low, high, layer.level)
    for index in network.relus:
        if network.nodes[index].inputs[0] == source:
            found[index] = found[index].intersect(Bounds(low.clamp(min=0), high.clamp(min=0), layer.level))
