"""From exact numbers back to float64: when that loses nothing, and in which direction it loses.

Arithmetic inside a property (``(/ 1 3)``, ``(+ (* 3 X_0) 0.1)``) is carried out exactly on rationals,
because a constraint that is off by one rounding error is another constraint.  Rows of the normal form are
float64, and a row may be multiplied by any positive number, so most rows have an exact float64 form even
where their first form has none: ``x <= 1/3`` is ``3 x <= 1``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

Rational = Fraction | int


def exact_float(value: Rational) -> float | None:
    """``value`` as float64, or None where float64 does not contain it."""
    try:
        nearest = float(value)
    except OverflowError:
        return None
    return nearest if nearest == value else None


def round_down(value: Rational) -> float:
    """The largest float64 that is not above ``value``.  Raises OverflowError outside float64's range."""
    nearest = float(value)
    return nearest if nearest <= value else math.nextafter(nearest, -math.inf)


def round_up(value: Rational) -> float:
    """The smallest float64 that is not below ``value``.  Raises OverflowError outside float64's range."""
    return -round_down(-value)


def nearest_multiple(values: Sequence[Rational]) -> list[float]:
    """A positive multiple of ``values`` that float64 contains, ``values`` themselves if possible.

    Where there is none, the float64 numbers nearest to the entries.
    Raises OverflowError when the entries are too far apart in size for float64.
    """
    for candidate in (values, _primitive(values)):
        exact = [number for value in candidate if (number := exact_float(value)) is not None]
        if len(exact) == len(candidate):
            return exact
    for candidate in (values, _scaled_to_one(values)):
        try:
            nearest = [float(value) for value in candidate]
        except OverflowError:
            continue
        if all(rounded or not value for rounded, value in zip(nearest, candidate, strict=True)):
            return nearest
    raise OverflowError("the numbers are too far apart in size for float64")


def _primitive(values: Sequence[Rational]) -> list[Rational]:
    """The multiple with the smallest integers, moved by a power of two into the range of float64."""
    denominator = math.lcm(*(value.denominator for value in values))
    integers = [int(value * denominator) for value in values]
    divisor = math.gcd(*integers) or 1
    integers = [value // divisor for value in integers]
    excess = max(abs(value).bit_length() for value in integers) - 1000
    return [Fraction(value, 2**excess) for value in integers] if excess > 0 else list(integers)


def _scaled_to_one(values: Sequence[Rational]) -> list[Rational]:
    """The multiple by a power of two whose largest entry is near 1."""
    largest = max((abs(Fraction(value)) for value in values), default=Fraction(0))
    if not largest:
        return list(values)
    exponent = largest.numerator.bit_length() - largest.denominator.bit_length()
    return [Fraction(value) / Fraction(2) ** exponent for value in values]
