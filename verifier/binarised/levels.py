"""The input levels of a box: which integers the quantiser gives there, and a float32 input for each of them.

Within the box, input i takes the levels ``base[i] + gain[i] * k`` with ``0 <= k <= count[i]``; all engines work on k.
The places where the quantiser jumps are float32 numbers found by bisection on the model's own first nodes, so a pixel
at a level's boundary has the level that onnxruntime gives it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.binarised.network import Quantising
from verifier.binarised.steps import MOST_STEPS, TooManyStepsError, floats, ordinals, steps
from verifier.errors import SpecError
from verifier.model.replay import nearest_inside

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Levels:
    """base, gain, count: (n_inputs,) integers.

    starts: per k = 0, 1, ... the ordinals (n_inputs,) of the smallest float32 in the box with that level; beyond
    ``count`` the ordinal after the box.  Where the quantiser falls, k grows with the input as well and gain is
    negative.
    """

    base: Integers
    gain: Integers
    count: Integers
    starts: tuple[Integers, ...]
    centre: Floats

    @property
    def free(self) -> Integers:
        """The inputs that have more than one level."""
        return np.flatnonzero(self.count)

    def values(self, k: Integers) -> Integers:
        """Levels (..., n_inputs)."""
        return self.base + self.gain * k

    def point(self, k: Integers) -> Floats:
        """The float32 input (n_inputs,) nearest to the box's centre that has the levels k (n_inputs,)."""
        table = np.stack(self.starts)
        columns = np.arange(len(k))
        low, high = floats(table[k, columns]), floats(table[k + 1, columns] - 1)
        return (
            np.clip(self.centre, low.astype(np.float64), high.astype(np.float64)).astype(np.float32).astype(np.float64)
        )


@dataclass(frozen=True, eq=False)
class Lattice:
    """The integer points of a box whose inputs no quantiser reads: levels are the inputs themselves.

    A network's answer at a lattice point is exact; a box has other points too, so only counterexamples count.
    """

    base: Integers
    count: Integers
    ragged: bool
    """Whether the box goes beyond its outermost lattice points, by less than 1."""
    rounding: float
    """By how much onnxruntime's sums of the first layer may differ from the real ones."""
    gap: float
    """By how much an integer threshold may be above the real one: between them only points off the lattice differ."""

    @property
    def gain(self) -> Integers:
        """1 everywhere."""
        return np.ones_like(self.base)

    @property
    def free(self) -> Integers:
        """The inputs that have more than one level."""
        return np.flatnonzero(self.count)

    def values(self, k: Integers) -> Integers:
        """Levels (..., n_inputs)."""
        return self.base + k

    def point(self, k: Integers) -> Floats:
        """The input (n_inputs,)."""
        return self.values(k).astype(np.float64)


def lattice(lower: Floats, upper: Floats, rounding: float, gap: float, source: str = "") -> Lattice:
    """The integer points of the box.  Raises SpecError where an input has no integer in the box."""
    base, last = np.ceil(lower).astype(np.int64), np.floor(upper).astype(np.int64)
    if np.any(last < base):
        raise SpecError(
            "the network reads real inputs without a quantiser, and the box leaves some input no integer value; "
            "only boxes around integer pixels are searched",
            source or None,
        )
    return Lattice(base, last - base, bool(np.any(base != lower) or np.any(last != upper)), rounding, gap)


class LevelFinder:
    """The quantiser's jumps; those of a uniform one are kept for the next box."""

    def __init__(self, quantiser: Quantising) -> None:
        self._quantiser = quantiser
        self._known: tuple[int, int, Integers, Floats] | None = None

    def __call__(self, lower: Floats, upper: Floats, source: str = "") -> Levels:
        """The levels of the box (n_inputs,).  Raises SpecError where they are no arithmetic progression."""
        low = ordinals(nearest_inside(lower, lower, upper).astype(np.float32))
        high = ordinals(nearest_inside(upper, lower, upper).astype(np.float32))
        try:
            first, places, values = self._uniform(low, high) if self._quantiser.uniform else self._steps(low, high)
        except TooManyStepsError:
            raise SpecError(
                f"an input has more than {MOST_STEPS} levels of the network's quantiser in this box; use a smaller box",
                source or None,
            ) from None
        return _progression(first, places, values, low, high, (lower + upper) / 2, source)

    def agrees(self, other: LevelFinder, lower: Floats, upper: Floats) -> bool:
        """Whether both quantisers have the same levels everywhere in the box."""
        if self._quantiser.uniform and other._quantiser.uniform:
            low, high = ordinals(np.array([lower.min(), upper.max()], np.float32)).tolist()
            mine, theirs = self._jumps(low, high), other._jumps(low, high)
            return all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
        here, there = self(lower, upper), other(lower, upper)
        pairs = zip((here.base, here.gain, *here.starts), (there.base, there.gain, *there.starts), strict=False)
        return len(here.starts) == len(there.starts) and all(np.array_equal(a, b) for a, b in pairs)

    def _steps(self, low: Integers, high: Integers) -> tuple[Floats, list[Integers], list[Floats]]:
        return steps(lambda at: self._quantiser(floats(at).astype(np.float64)), low, high)

    def _uniform(self, low: Integers, high: Integers) -> tuple[Floats, list[Integers], list[Floats]]:
        jumps, levels = self._jumps(int(low.min()), int(high.max()))
        start = np.searchsorted(jumps, low, side="right")
        count = np.searchsorted(jumps, high, side="right") - start
        places, values = [], []
        padded = np.append(jumps, np.iinfo(np.int64).max // 2)
        for k in range(int(count.max(initial=0))):
            there = k < count
            places.append(np.where(there, padded[np.minimum(start + k, len(jumps))], high + 1))
            values.append(levels[start + np.minimum(k + 1, count)])
        return levels[start], places, values

    def _jumps(self, low: int, high: int) -> tuple[Integers, Floats]:
        """All jumps of the one function between two ordinals, and the levels before and after each."""
        if self._known is None or not (self._known[0] <= low and high <= self._known[1]):
            one = np.zeros(1, np.int64)
            first, places, values = steps(self._single, one + low, one + high)
            self._known = (
                low,
                high,
                np.array([p[0] for p in places], np.int64),
                np.array([first[0], *(v[0] for v in values)]),
            )
        return self._known[2], self._known[3]

    def _single(self, at: Integers) -> Floats:
        return self._quantiser(np.full(self._quantiser.size, float(floats(at)[0])))[:1]


def _progression(
    first: Floats,
    places: list[Integers],
    values: list[Floats],
    low: Integers,
    high: Integers,
    centre: Floats,
    source: str,
) -> Levels:
    count = np.zeros(len(low), np.int64)
    gain = np.ones(len(low), np.int64)
    before = first
    for k, (place, value) in enumerate(zip(places, values, strict=True)):
        there = place <= high
        change = (value - before).astype(np.int64)
        if k == 0:
            gain = np.where(there, change, 1)
        elif np.any(there & (change != gain)):
            raise SpecError(
                "the levels of an input in this box are not equally spaced; split the box there", source or None
            )
        count += there
        before = value
    starts = (low, *(np.where(place <= high, place, high + 1) for place in places), high + 1)
    return Levels(first.astype(np.int64), gain, count, starts, centre)
