"""The range of an output over a box of inputs, both ends from both sides (DeepGO's reachability query).

Ruan, Huang and Kwiatkowska, "Reachability analysis of deep neural networks with provable guarantees" (IJCAI 2018), ask
for the least and the greatest value of an output and find them by Lipschitz optimisation.  Here, per end:

    attain     random points and projected gradient descent; what onnxruntime computes at the best point is attained
    exclude    where few inputs vary: branch and bound on the input box (``input_split``) decides whether the output can
    be
               better than that by the tolerance; a point that is becomes the new best, and the question is asked again
               elsewhere: best-first branch and bound on ReLU phases

Both proofs are rigorous, so the outer bounds hold for the real-valued function that the stored weights define.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from verifier.bounds.ball import Ball, Norm
from verifier.bounds.ball_bounds import ball_bounds
from verifier.bounds.ball_objective import Lowest
from verifier.bounds.beta_crown import Rows
from verifier.deadline import Deadline
from verifier.errors import OptionError
from verifier.model.network import Network
from verifier.model.read import Model
from verifier.options import positive_seconds
from verifier.query import Query
from verifier.search.input_split import InputSplitting, SplitOptions, applicable
from verifier.search.regions import RegionSearch, sharper
from verifier.verdict import EvidenceLevel
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec

Array = NDArray[np.float64]

SAMPLES, DESCENTS, STEPS = 4096, 48, 60
USED = 0.9
"""Of the tolerance, for the distance between the best point and what is excluded; the rest is rounding's."""
FIRST_TURN = 0.5


@dataclass(frozen=True, eq=False)
class Range:
    """lower <= output <= upper everywhere in the box; the attained values are what onnxruntime computes at the points.

    lower, upper: certified outer bounds, rigorous; infinite where nothing is known.
    attained_lower, attained_upper: lower <= attained_lower <= attained_upper <= upper, up to float32 rounding of them.
    lowest_point, highest_point: in the shape of the box.
    reason: why some end is further apart than the tolerance, "" where none is.
    """

    lower: float
    upper: float
    attained_lower: float
    attained_upper: float
    lowest_point: Array
    highest_point: Array
    level: EvidenceLevel
    reason: str

    @property
    def gap(self) -> float:
        """The larger distance of an outer bound from the attained value."""
        return max(self.attained_lower - self.lower, self.upper - self.attained_upper)


def output_range(
    network: Model,
    box: tuple[ArrayLike, ArrayLike],
    output_row: int | ArrayLike = 0,
    tolerance: float = 0.01,
    timeout: float = 60.0,
    seed: int = 0,
) -> Range:
    """The least and the greatest value of an output over all inputs of a box.

    network: from ``load``.
    box: (lowest, highest) input, each a number for all inputs or one per input, finite.
    output_row: which output, or a linear combination of them: one coefficient per output.
    tolerance: in the units of the output; each outer bound ends at most this far from the attained value.
    timeout: seconds for both ends together; Ctrl-C too ends with what is known.
    Raises OptionError for a box, row or tolerance that makes no sense.
    """
    deadline = Deadline.after(positive_seconds(timeout))
    if not tolerance > 0:
        raise OptionError(f"the tolerance is {tolerance:g}; give a positive number")
    lower, upper, shape = _sides(box, network.network.n_inputs)
    row = _row(output_row, network.network.n_outputs)
    ends, interrupted = [], False
    for sign, share in ((1.0, 0.5), (-1.0, 1.0)):
        end = _End(network, lower, upper, sign * row, tolerance)
        ends.append(end)
        try:
            if not interrupted:
                end.run(deadline.share(share), seed)
        except KeyboardInterrupt:
            interrupted = True
    low, high = ends
    worst = max(end.value - end.bound for end in ends)
    reason = ""
    if worst > tolerance:
        why = "interrupted" if interrupted else "the time ran out" if deadline.expired else "no engine gets further"
        reason = f"{why}; the gap is {worst:.3g}"
    return Range(
        low.bound,
        -high.bound,
        low.value,
        -high.value,
        low.point.reshape(shape),
        high.point.reshape(shape),
        EvidenceLevel.RIGOROUS,
        reason,
    )


class _End:
    """The least value of ``row . y``: what is attained and what bounds it."""

    def __init__(self, model: Model, lower: Array, upper: Array, row: Array, tolerance: float) -> None:
        self._model, self._lower, self._upper, self._row = model, lower, upper, row
        self._tolerance = tolerance
        self.point = model.replay.representable((lower + upper) / 2, lower, upper)
        self.value = self._exact(self.point)
        self.bound = -math.inf

    def run(self, deadline: Deadline, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._offer(_descend(self._model.network, self._lower, self._upper, self._row, generator, deadline))
        split = SplitOptions()
        if applicable(self._query(0.0), split):
            self._exclude(deadline, split)
        else:
            self._branch(deadline)

    def _exclude(self, deadline: Deadline, options: SplitOptions) -> None:
        """Ask whether there is anything better by the tolerance, until there is not."""
        while not deadline.expired:
            threshold = self.value - USED * self._tolerance
            outcome = InputSplitting(self._query(threshold), options).work(deadline)
            if outcome.witness is not None:
                self._offer(_polished(self._model.network, self._lower, self._upper, self._row, outcome.witness.x))
                continue
            if outcome.bounds[0].level is EvidenceLevel.RIGOROUS:
                self.bound = max(self.bound, _below(threshold))
            else:
                # The margin is row . y - threshold.
                self.bound = max(self.bound, _below(threshold + outcome.bounds[0].lower))
            return

    def _branch(self, deadline: Deadline) -> None:
        ball = _box_ball(self._lower, self._upper)
        network = self._model.network
        nodes = ball_bounds(network, ball, deadline)
        outputs = torch.from_numpy(self._row)[None, None]
        rows = Rows(outputs, None, torch.zeros(1, 1, dtype=torch.float64))
        search = RegionSearch(network, nodes, rows, Lowest(ball, self.value - USED * self._tolerance))

        def attempt(points: Tensor, owner: Tensor) -> float:
            self._offer(points.numpy())
            self.bound = max(self.bound, search.lower)
            return self.value - USED * self._tolerance

        turn = FIRST_TURN
        while True:
            search.work(deadline.within(turn), attempt)
            self.bound = max(self.bound, search.lower)
            if search.exhausted or deadline.expired or self.value - self.bound <= self._tolerance:
                return
            if turn == FIRST_TURN:
                objective = Lowest(ball, self.value - USED * self._tolerance)
                search.focus(sharper(network, nodes, objective, deadline.share(0.25)), objective)
            turn *= 2

    def _offer(self, points: Array) -> None:
        """Replay points (K, n_inputs), and keep the best."""
        for point in points[:8]:
            x = self._model.replay.representable(point, self._lower, self._upper)
            value = self._exact(x)
            if value < self.value:
                self.value, self.point = value, x

    def _exact(self, x: Array) -> float:
        return float(self._row @ self._model.replay.run(x))

    def _query(self, threshold: float) -> Query:
        """Is ``row . y <= threshold`` anywhere?"""
        n = len(self._lower)
        none, strict = np.broadcast_to(0.0, (1, n)), np.zeros(1, np.bool_)
        constraints = LinearConstraints(none, self._row[None], np.array([threshold]), strict)
        spec = Spec(n, len(self._row), (Disjunct(self._lower, self._upper, constraints),))
        return Query.of(self._model.network, spec, self._model.replay)


def _descend(
    network: Network, lower: Array, upper: Array, row: Array, generator: torch.Generator, deadline: Deadline
) -> Array:
    """The best points of random ones after projected gradient descent, the best first: (8, n_inputs)."""
    low, high = torch.from_numpy(lower), torch.from_numpy(upper)
    coefficients = torch.from_numpy(row)
    count = max(DESCENTS, min(SAMPLES, 2**24 // sum(node.size for node in network.nodes)))
    points = low + torch.rand(count, len(lower), generator=generator, dtype=torch.float64) * (high - low)
    corners = low + (torch.rand(count // 8, len(lower), generator=generator) < 0.5) * (high - low)
    points = torch.cat([points, corners])
    with torch.no_grad():
        values = network.forward(points) @ coefficients
    x = points[values.argsort()[:DESCENTS]]
    return _down(network, low, high, coefficients, x, 0.1, deadline)[:8]


def _polished(network: Network, lower: Array, upper: Array, row: Array, x: Array) -> Array:
    """One point and where descent from it ends: (K, n_inputs)."""
    low, high = torch.from_numpy(lower), torch.from_numpy(upper)
    start = torch.from_numpy(x)[None]
    found = _down(network, low, high, torch.from_numpy(row), start, 1e-3, Deadline.never())
    return np.concatenate([x[None], found])


def _down(
    network: Network, low: Tensor, high: Tensor, row: Tensor, x: Tensor, step: float, deadline: Deadline
) -> Array:
    """Descent with steps in units of the box's sides, longer after a success, shorter after a failure; sorted."""
    width = high - low
    sizes = torch.full((len(x), 1), step, dtype=torch.float64)
    with torch.no_grad():
        values = network.forward(x) @ row
    for turn in range(STEPS):
        if deadline.expired:
            break
        point = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad((network.forward(point) @ row).sum(), point)
        scaled = gradient * width
        # Alternate the steepest direction with its signs, which follow an edge to its corner.
        direction = scaled.sign() if turn % 2 else scaled / (scaled.norm(dim=1, keepdim=True) + 1e-300)
        moved = torch.minimum(torch.maximum(x - sizes * width * direction, low), high)
        with torch.no_grad():
            reached = network.forward(moved) @ row
        better = reached < values
        x = torch.where(better[:, None], moved, x)
        values = torch.where(better, reached, values)
        sizes = torch.where(better[:, None], 1.5 * sizes, 0.6 * sizes)
    found: Array = x[values.argsort()].numpy()
    return found


def _box_ball(lower: Array, upper: Array) -> Ball:
    centre = (lower + upper) / 2
    below, above = np.nextafter(centre - lower, np.inf), np.nextafter(upper - centre, np.inf)
    below, above = np.where(centre > lower, below, 0.0), np.where(centre < upper, above, 0.0)
    at, down, up, weights = (torch.from_numpy(side) for side in (centre, below, above, np.ones_like(centre)))
    return Ball(Norm.LINF, at, down, up, weights, float(max(below.max(), above.max())))


def _below(value: float) -> float:
    return float(np.nextafter(value, -np.inf))


def _sides(box: tuple[ArrayLike, ArrayLike], n: int) -> tuple[Array, Array, tuple[int, ...]]:
    try:
        low, high = (np.asarray(side, np.float64) for side in box)
    except (TypeError, ValueError):
        raise OptionError("the box must be a pair (lowest, highest) of numbers or arrays") from None
    shape = low.shape if low.size == n and low.ndim else high.shape if high.ndim else (n,)
    for side in (low, high):
        if side.size not in (1, n):
            raise OptionError(f"a side of the box has {side.size} values but the model takes {n}")
        if not np.isfinite(side).all():
            raise OptionError("the sides of the box must be finite numbers")
    lower, upper = (np.broadcast_to(side.ravel(), (n,)).copy() for side in (low, high))
    if (lower > upper).any():
        raise OptionError("a lower side of the box is above its upper side; give (lowest, highest)")
    return lower, upper, shape if math.prod(shape) == n else (n,)


def _row(output_row: int | ArrayLike, count: int) -> Array:
    if isinstance(output_row, int | np.integer):
        if not 0 <= output_row < count:
            raise OptionError(f"there is no output {output_row}; the model's outputs are 0 to {count - 1}")
        return np.eye(count)[int(output_row)]
    row = np.asarray(output_row, np.float64).ravel()
    if row.size != count or not np.isfinite(row).all():
        raise OptionError(f"output_row must be an index or {count} finite coefficients, one per output")
    return row
