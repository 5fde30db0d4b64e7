"""The boolean tree of a property: conjunctions of constraints and choices, choices of conjunctions.

``and`` inside ``and`` and ``or`` inside ``or`` never appear, and neither does ``not``: the parser pushes it
inward.  So conjunctions and choices alternate, and a flat file of bounds is one conjunction and nothing else.

A conjunction keeps what it says about single inputs apart, as two dictionaries of closed bounds: they become
the box.  A bound is a float where float64 holds it exactly and a Fraction otherwise; Python compares the two
exactly, so contradictions are found exactly.  Strict bounds appear in the closed dictionaries too, and again
in ``above`` and ``below``, which stay empty in nearly all files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from verifier.vnnlib.rational import Rational, exact_float, nearest_multiple

Bound = float | Fraction
Terms = tuple[tuple[int, float], ...]


class Row(NamedTuple):
    """``inputs @ x + outputs @ y <= bound``, ``<`` if strict; terms are (variable, coefficient)."""

    inputs: Terms
    outputs: Terms
    bound: float
    strict: bool


class Linear:
    """``inputs @ x + outputs @ y + constant``, exactly: coefficients by variable."""

    __slots__ = ("constant", "inputs", "outputs")

    def __init__(self, constant: Rational = 0) -> None:
        self.inputs: dict[int, Rational] = {}
        self.outputs: dict[int, Rational] = {}
        self.constant = constant

    def add(self, other: Linear, factor: Rational) -> None:
        """Adds ``factor * other`` in place."""
        if other.constant:
            self.constant += factor * other.constant
        for index, coefficient in other.inputs.items():
            self.inputs[index] = self.inputs.get(index, 0) + factor * coefficient
        for index, coefficient in other.outputs.items():
            self.outputs[index] = self.outputs.get(index, 0) + factor * coefficient

    def times(self, factor: Rational) -> Linear:
        """``factor * self``."""
        product = Linear()
        product.add(self, factor)
        return product

    def drop_zeros(self) -> None:
        """Forgets variables that cancelled out."""
        if not all(self.inputs.values()):
            self.inputs = {index: value for index, value in self.inputs.items() if value}
        if not all(self.outputs.values()):
            self.outputs = {index: value for index, value in self.outputs.items() if value}

    @property
    def is_constant(self) -> bool:
        """Whether no variable is left; meaningful after ``drop_zeros``."""
        return not self.inputs and not self.outputs


class Choice:
    """At least one of the options holds."""

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options: list[Conjunction] = []


@dataclass(slots=True, eq=False)
class Conjunction:
    """Everything in it holds.

    lower, upper: closed bounds on single inputs, by input.
    above, below: the strict ones among them (the tightest of each input).
    rounded: whether a bound that float64 does not hold is among them.
    rows: the other linear constraints.
    choices: what else has to hold.
    impossible: whether a constraint between constants failed (``1 <= 0``), or ``false`` was asserted.
    """

    lower: dict[int, Bound] = field(default_factory=dict)
    upper: dict[int, Bound] = field(default_factory=dict)
    above: dict[int, Bound] = field(default_factory=dict)
    below: dict[int, Bound] = field(default_factory=dict)
    rounded: bool = False
    rows: list[Row] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    impossible: bool = False

    @property
    def bounded(self) -> bool:
        """Whether it says anything about the box."""
        return bool(self.lower or self.upper)

    @property
    def has_extra(self) -> bool:
        """Whether some of its bounds say more than a closed float64 box can."""
        return bool(self.above or self.below or self.rounded)

    @property
    def contradicts_itself(self) -> bool:
        """Whether no box is left, or a constraint between constants failed."""
        return self.impossible or _cross(self, self)

    def excludes(self, other: Conjunction) -> bool:
        """Whether the bounds of the two leave no box."""
        return _cross(self, other) or _cross(other, self)

    def require(self, difference: Linear, strict: bool) -> None:
        """Adds ``difference <= 0``, ``< 0`` if strict.  Raises OverflowError outside float64's range."""
        difference.drop_zeros()
        if difference.is_constant:
            self.impossible |= difference.constant >= 0 if strict else difference.constant > 0
        elif len(difference.inputs) == 1 and not difference.outputs:
            ((index, coefficient),) = difference.inputs.items()
            value = Fraction(-difference.constant) / coefficient if coefficient != 1 else -difference.constant
            float(value)  # raises OverflowError
            exact = exact_float(value)
            self.bound(index, Fraction(value) if exact is None else exact, coefficient > 0, strict)
        else:
            inputs, outputs = sorted(difference.inputs.items()), sorted(difference.outputs.items())
            *coefficients, bound = nearest_multiple(
                [*(value for _, value in inputs), *(value for _, value in outputs), -difference.constant]
            )
            terms = list(zip((index for index, _ in (*inputs, *outputs)), coefficients, strict=True))
            self.rows.append(Row(tuple(terms[: len(inputs)]), tuple(terms[len(inputs) :]), bound, strict))

    def bound(self, index: int, value: Bound, is_upper: bool, strict: bool) -> None:
        """Adds ``X_index <= value``, or ``>=``, strict or not; a Fraction only where float64 does not do."""
        self.rounded |= isinstance(value, Fraction)
        _tighten(self.upper if is_upper else self.lower, index, value, is_upper)
        if strict:
            _tighten(self.below if is_upper else self.above, index, value, is_upper)

    def absorb(self, other: Conjunction) -> None:
        """Adds all that ``other`` says, choices excepted; ``other`` is used up.

        The smaller is poured into the larger, so that a chain of n nested conjunctions costs n log n.
        """
        self.lower = _merged(self.lower, other.lower, False)
        self.upper = _merged(self.upper, other.upper, True)
        self.above = _merged(self.above, other.above, False)
        self.below = _merged(self.below, other.below, True)
        self.rounded |= other.rounded
        self.impossible |= other.impossible
        if len(other.rows) > len(self.rows):
            self.rows, other.rows = other.rows, self.rows
        self.rows.extend(other.rows)


def _tighten(bounds: dict[int, Bound], index: int, value: Bound, is_upper: bool) -> None:
    old = bounds.get(index, math.inf if is_upper else -math.inf)
    if value < old if is_upper else value > old:
        bounds[index] = value


def _merged(first: dict[int, Bound], second: dict[int, Bound], is_upper: bool) -> dict[int, Bound]:
    small, large = (first, second) if len(first) < len(second) else (second, first)
    for index, value in small.items():
        _tighten(large, index, value, is_upper)
    return large


def _cross(one: Conjunction, two: Conjunction) -> bool:
    """Whether a lower bound of ``one`` lies beyond an upper bound of ``two``.

    An interval is empty exactly when one of its lower bounds lies beyond one of its upper bounds, so looking
    at pairs of conjunctions is enough however many there are.
    """
    return (
        _beyond(one.lower, two.upper, False)
        or _beyond(one.above, two.upper, True)
        or _beyond(one.lower, two.below, True)
    )


def _beyond(lower: dict[int, Bound], upper: dict[int, Bound], or_equal: bool) -> bool:
    if len(lower) <= len(upper):
        for index, low in lower.items():
            high = upper.get(index)
            if high is not None and (low > high or (or_equal and low == high)):
                return True
    else:
        for index, high in upper.items():
            low_or_none = lower.get(index)
            if low_or_none is not None and (low_or_none > high or (or_equal and low_or_none == high)):
                return True
    return False


@dataclass(frozen=True, eq=False)
class Formula:
    """What a file says.

    conjunctions: all of them, every one before those inside it; the first is the whole property.
    declared: for each input, the word that declares it, for messages.
    """

    n_inputs: int
    n_outputs: int
    conjunctions: list[Conjunction]
    declared: list[int]
