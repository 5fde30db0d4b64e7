"""One question: around which input, in which norm and within which box another class may win.

The centre is the input as the model takes it: rounded to float32 where that is the model's input type.  Every distance
is from there.  A counterexample is an input inside ``bounds`` at which some other class scores at least as much as the
label (a tie counts), or, with ``target``, at which the target scores at least as much as every other class.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from verifier.bounds.ball import Ball, Norm
from verifier.bounds.beta_crown import Rows
from verifier.errors import OptionError
from verifier.model.read import Model

Array = NDArray[np.float64]
CHANNELS = (1, 3, 4)
"""How many channels pictures have."""
Bounds = tuple[ArrayLike, ArrayLike] | None

FARTHEST = 1e6
"""Without bounds on the inputs, how far from the centre is looked."""


@dataclass(frozen=True, eq=False)
class Question:
    """centre: (n_inputs,).  label: the class that should win.  targets: the classes that may win instead.

    ball: around the centre, as large as the box and ``Ball.radius`` allow.  lower, upper: (n_inputs,), the box.
    joint: the one target has to beat all classes, not only the label.
    limit: how far a search of the whole ball has looked: infinitely far, unless inputs without bounds cut it off.
    """

    model: Model
    centre: Array
    label: int
    targets: tuple[int, ...]
    joint: bool
    ball: Ball
    lower: Array
    upper: Array
    limit: float

    @property
    def rows(self) -> Rows:
        """What a counterexample keeps <= 0, one entry per disjunct: [D, R, n_outputs]."""
        count = self.model.network.n_outputs
        if self.joint:
            (target,) = self.targets
            others = [k for k in range(count) if k != target]
            outputs = torch.zeros(1, len(others), count, dtype=torch.float64)
            for r, other in enumerate(others):
                outputs[0, r, other], outputs[0, r, target] = 1.0, -1.0
        else:
            outputs = torch.zeros(len(self.targets), 1, count, dtype=torch.float64)
            for d, target in enumerate(self.targets):
                outputs[d, 0, self.label], outputs[d, 0, target] = 1.0, -1.0
        return Rows(outputs, None, torch.zeros(outputs.shape[:2], dtype=torch.float64))

    @property
    def counts(self) -> bool:
        """Whether all distances are whole numbers: in l0, with whole weights."""
        weights = self.ball.weights
        return self.ball.norm is Norm.L0 and bool((weights == weights.round()).all())

    @property
    def fingerprint(self) -> str:
        """A digest of all that the answer depends on: the model's bytes, the input, the ball, the box, the classes."""
        ball = self.ball
        digest = hashlib.sha256(f"{self.model.sha256} {self.label} {self.targets} {self.joint} {ball.norm}".encode())
        sides = [side.numpy() for side in (ball.below, ball.above, ball.weights)]
        groups = np.zeros(0) if ball.groups is None else ball.groups.numpy()
        for part in (self.centre, self.lower, self.upper, *sides, groups):
            digest.update(f"|{part.shape}|".encode())
            digest.update(np.ascontiguousarray(part, np.float64).tobytes())
        return digest.hexdigest()

    def margin(self, outputs: Array) -> Array:
        """How far from being a counterexample; <= 0 where it is one.  outputs: [..., n_outputs], result [...]."""
        if self.joint:
            (target,) = self.targets
            rivals = np.delete(outputs, target, axis=-1).max(axis=-1)
            return np.asarray(rivals - outputs[..., target])
        return np.asarray(outputs[..., self.label] - outputs[..., list(self.targets)].max(axis=-1))

    def winner(self, outputs: Array) -> int:
        """The best of the targets; the label may tie with it.  outputs: (n_outputs,)."""
        return self.targets[int(np.argmax(outputs[list(self.targets)]))]

    def distance(self, x: Array) -> float:
        """The distance of x, (n_inputs,), from the centre, rounded up."""
        d, weights = np.abs(x - self.centre), self.ball.weights.numpy()
        # The difference of two float32 is nearly always exact; what follows covers the rest.
        d = np.where(d > 0, np.nextafter(d, np.inf), 0.0) if (x.astype(np.float32) != x).any() else d
        match self.ball.norm:
            case Norm.L0:
                assert self.ball.groups is not None
                changed = np.unique(self.ball.groups.numpy()[d != 0])
                return math.fsum(weights[changed].tolist())
            case Norm.LINF:
                product = weights * d
                found = float(product.max(initial=0.0))
                return found if (weights == 1).all() else found * (1 + 2**-51)
            case Norm.L1:
                return math.fsum((weights * d).tolist()) * (1 + 2**-50)
            case _:
                return math.sqrt(math.fsum(((weights * d) ** 2).tolist())) * (1 + 2**-49)


def question(
    model: Model,
    x: ArrayLike,
    label: int | None = None,
    target: int | None = None,
    norm: str = "linf",
    bounds: Bounds = (0.0, 1.0),
    weights: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    group: str | ArrayLike | None = None,
) -> Question:
    """Check everything and put it together; arguments as for ``certified_radius``.  Raises OptionError."""
    network = model.network
    if network.n_outputs < 2:
        raise OptionError("the model has one output, so there are no classes to tell apart; use output_range")
    kind = parse_norm(norm)
    given = _numbers(x, "the input")
    if given.size != network.n_inputs:
        raise OptionError(
            f"the input has {given.size} values but the model takes {network.n_inputs} {network.input_shape}"
        )
    shape, count = given.shape, network.n_outputs
    lower, upper = _box(bounds, shape)
    asked = given.ravel()
    outside = (asked < lower) | (asked > upper)
    if outside.any():
        place = int(np.flatnonzero(outside)[0])
        raise OptionError(
            f"value {place} of the input, {asked[place]:g}, lies outside the bounds [{lower[place]:g}, "
            f"{upper[place]:g}]; scale the input like the bounds, or give other bounds"
        )
    centre = model.replay.representable(asked, lower, upper)
    # A side such as 0.3 may have no float32 next to it that is inside; what the model gets then is the nearest one.
    lower, upper = np.minimum(lower, centre), np.maximum(upper, centre)
    if label is None:
        label = int(np.argmax(model.replay.run(centre)))
    _check_class(label, count, "label")
    targets = tuple(k for k in range(count) if k != label)
    if target is not None:
        _check_class(target, count, "target")
        if target == label:
            raise OptionError(f"the target is the label itself, {label}; name another class")
        targets = (int(target),)
    ball = _ball(kind, centre, lower, upper, weights, fixed, group, network.input_shape)
    moving = (ball.below > 0) | (ball.above > 0)
    cut_off = bool(
        (~np.isfinite(np.where(moving.numpy(), lower, 0)) | ~np.isfinite(np.where(moving.numpy(), upper, 0))).any()
    )
    if kind is not Norm.L0:
        cut_off |= bool((torch.maximum(ball.below, ball.above) * ball.weights >= FARTHEST).any())
    limit = FARTHEST if cut_off else math.inf
    return Question(model, centre, int(label), targets, target is not None, ball, lower, upper, limit)


def parse_norm(norm: str) -> Norm:
    """Raises OptionError for a norm that is not there."""
    try:
        return Norm(str(norm).lower())
    except ValueError:
        raise OptionError(f"unknown norm {norm!r}; use linf, l1, l2 or l0") from None


def _ball(
    norm: Norm,
    centre: Array,
    lower: Array,
    upper: Array,
    weights: ArrayLike | None,
    fixed: ArrayLike | None,
    group: str | ArrayLike | None,
    input_shape: tuple[int, ...],
) -> Ball:
    n = len(centre)
    # Rounded up where float64 does not hold the difference.
    below, above = np.nextafter(centre - lower, np.inf), np.nextafter(upper - centre, np.inf)
    below, above = np.where(centre > lower, below, 0.0), np.where(centre < upper, above, 0.0)
    if fixed is not None:
        mask = np.asarray(fixed)
        if mask.dtype != bool or mask.size != n:
            raise OptionError(f"fixed must say true or false for each of the {n} inputs")
        below, above = np.where(mask.ravel(), 0.0, below), np.where(mask.ravel(), 0.0, above)
    if norm is not Norm.L0:
        if group is not None:
            raise OptionError(f"groups count only for the norm l0, not for {norm}; leave group out")
        scale = np.ones(n) if weights is None else _weights(weights, n, "input")
        farthest = np.nextafter(FARTHEST / scale, np.inf)
        below, above = np.minimum(below, farthest), np.minimum(above, farthest)
        radius, groups = FARTHEST, None
    else:
        if not (np.isfinite(below).all() and np.isfinite(above).all()):
            raise OptionError("the norm l0 needs bounds on all inputs; without them one changed input decides all")
        groups = torch.from_numpy(_groups(group, n, input_shape))
        count = int(groups.max()) + 1
        scale = np.ones(count) if weights is None else _weights(weights, count, "group")
        radius = float(scale.sum())
    at, down, up, costs = (torch.from_numpy(np.ascontiguousarray(a)) for a in (centre, below, above, scale))
    return Ball(norm, at, down, up, costs, radius, groups)


def _groups(group: str | ArrayLike | None, n: int, input_shape: tuple[int, ...]) -> NDArray[np.int64]:
    if group is None or (isinstance(group, str) and group == "input"):
        return np.arange(n, dtype=np.int64)
    if isinstance(group, str):
        if group != "pixel":
            raise OptionError(f"unknown group {group!r}; use input, pixel, or one group number per input")
        if len(input_shape) < 3:
            raise OptionError(
                f"the model's input of shape {input_shape} has no channels, so a pixel is an input; leave group out, "
                "or give one group number per input"
            )
        return _pixels(input_shape)
    numbers = np.asarray(group)
    if numbers.size != n or not np.issubdtype(numbers.dtype, np.integer):
        raise OptionError(f"group must hold one whole number for each of the {n} inputs")
    return np.unique(numbers.ravel(), return_inverse=True)[1].astype(np.int64)


def _pixels(input_shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The pixel of every input; channels lie first, as ONNX has it, unless only the last axis can be theirs."""
    *_, first, middle, last = input_shape
    if first in CHANNELS and last in CHANNELS and first > 1 < last:
        raise OptionError(
            f"an input of shape {input_shape} may have its channels first or last; give one group number per input"
        )
    channels_last = last in CHANNELS and first not in CHANNELS
    numbers = np.arange(math.prod(input_shape), dtype=np.int64)
    return numbers // last if channels_last else numbers % (middle * last)


def _weights(weights: ArrayLike, count: int, what: str) -> Array:
    values = _numbers(weights, "the weights").ravel()
    if values.size != count:
        raise OptionError(f"there are {values.size} weights; give one for each of the {count} {what}s")
    if not (values > 0).all():
        raise OptionError("a weight is not positive; to leave an input free of cost is no norm, to fix one use fixed")
    return values


def _box(bounds: Bounds, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    if bounds is None:
        return np.full(size, -np.inf), np.full(size, np.inf)
    try:
        low, high = bounds
        sides = [np.asarray(side, np.float64) for side in (low, high)]
    except (TypeError, ValueError):
        raise OptionError("bounds must be a pair (lowest, highest) of numbers or arrays, or None") from None
    for side in sides:
        if side.size not in (1, size) or np.isnan(side).any():
            raise OptionError(f"the bounds must be numbers or have as many values as the input, {size}")
    lower, upper = (np.broadcast_to(side.ravel(), (size,)).copy() for side in sides)
    if (lower > upper).any():
        raise OptionError("a lower bound is above its upper bound; give (lowest, highest)")
    return lower, upper


def _numbers(values: ArrayLike, name: str) -> Array:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"{name} must be numbers") from None
    if not array.size or not np.isfinite(array).all():
        raise OptionError(f"{name} must consist of finite numbers, at least one")
    return array


def _check_class(number: int, count: int, name: str) -> None:
    if not 0 <= number < count:
        raise OptionError(f"the {name} is {number}; the model's classes are 0 to {count - 1}")
