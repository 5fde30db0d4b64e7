"""What single constraints become: bounds of the box, bounds for points, or rows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from support.specs import box_covers, holds, only, read_asserts, rows


@pytest.mark.parametrize(
    ("formula", "lower", "upper"),
    [
        ("(<= X_0 0.5)", -10, 0.5),
        ("(>= X_0 0.5)", 0.5, 10),
        ("(<= 0.5 X_0)", 0.5, 10),
        ("(>= 0.5 X_0)", -10, 0.5),
        ("(= X_0 0.5)", 0.5, 0.5),
        ("(= 0.5 X_0)", 0.5, 0.5),
        ("(<= 1e-3 X_0)", 1e-3, 10),
        ("(<= +1.5E+0 X_0)", 1.5, 10),
        ("(<= .5 X_0 1.)", 0.5, 1.0),
        ("(<= X_0 (- 5))", -10, -5),
        ("(<= X_0 -5)", -10, -5),
        ("(<= (- X_0) 5)", -5, 10),
        ("(>= (* -2 X_0) 1)", -10, -0.5),
        ("(>= (* X_0 -2) 1)", -10, -0.5),
        ("(<= (+ X_0 1) 2)", -10, 1),
        ("(<= (+ 1 X_0 1) (- 4 1))", -10, 1),
        ("(<= (/ X_0 2) 1)", -10, 2),
        ("(<= (/ X_0 -2 2) 1)", -4, 10),
        ("(<= (* 2 (+ X_0 (* 3 (- X_0 1)))) 4)", -10, 1.25),
        ("(<= (- 1 X_0 2) 4)", -5, 10),
        ("(<= (+ X_0 X_1) (+ X_1 3))", -10, 3),
        ("(<= (* 0 X_1) X_0)", 0, 10),
        ("(and (<= X_0 3) (<= X_0 2) (>= X_0 -1) (>= X_0 -3))", -1, 2),
        ("(not (> X_0 2))", -10, 2),
    ],
)
def test_bound_on_one_input_moves_into_the_box(formula: str, lower: float, upper: float) -> None:
    disjunct = only(read_asserts(formula))
    assert (disjunct.lower[0], disjunct.upper[0]) == (lower, upper)
    assert (disjunct.lower[1], disjunct.upper[1]) == (-10, 10)
    assert len(disjunct.constraints) == 0
    assert disjunct.point_lower is None
    assert disjunct.point_upper is None


@pytest.mark.parametrize(
    "formula", ["(< X_0 1)", "(> 1 X_0)", "(< (* 2 X_0) 2)", "(not (>= X_0 1))", "(not (<= 1 X_0))"]
)
def test_strict_bound_closes_the_box_and_keeps_points_out(formula: str) -> None:
    spec = read_asserts(formula)
    disjunct = only(spec)
    assert disjunct.upper[0] == 1.0
    assert disjunct.point_lower is None
    assert disjunct.point_upper is not None
    assert disjunct.point_upper.tolist() == [math.nextafter(1, 0), 10]
    assert not holds(spec, [1, 0], [0, 0])
    assert holds(spec, [math.nextafter(1, 0), 0], [0, 0])


@pytest.mark.parametrize("formula", ["(> X_0 1)", "(< 1 X_0)", "(not (<= X_0 1))"])
def test_strict_lower_bound(formula: str) -> None:
    spec = read_asserts(formula)
    assert only(spec).lower[0] == 1.0
    assert not holds(spec, [1, 0], [0, 0])
    assert holds(spec, [math.nextafter(1, 2), 0], [0, 0])


def test_strict_bound_behind_a_tighter_one_leaves_no_trace() -> None:
    disjunct = only(read_asserts("(< X_0 5)", "(<= X_0 3)", "(> X_0 -3)", "(>= X_0 -2)"))
    assert (disjunct.lower[0], disjunct.upper[0]) == (-2, 3)
    assert disjunct.point_lower is None
    assert disjunct.point_upper is None


@pytest.mark.parametrize(
    ("formula", "bound"),
    [
        ("(<= (* 3 X_0) 1)", Fraction(1, 3)),
        ("(<= X_0 (/ 1 3))", Fraction(1, 3)),
        ("(<= X_0 (/ -1 3))", Fraction(-1, 3)),
        ("(<= (+ X_0 1e-20) 0.3)", Fraction(0.3) - Fraction(1e-20)),
        ("(<= (* 0.1 X_0) 0.3)", Fraction(0.3) / Fraction(0.1)),
        ("(< (* 3 X_0) 1)", Fraction(1, 3)),
    ],
)
def test_inexact_bound_is_rounded_outward_and_points_are_decided_exactly(formula: str, bound: Fraction) -> None:
    spec = read_asserts(formula)
    upper = float(only(spec).upper[0])
    below = math.nextafter(upper, -math.inf)
    assert below < bound < upper
    assert box_covers(spec, [bound, Fraction(0)])
    assert not holds(spec, [upper, 0], [0, 0])
    assert holds(spec, [below, 0], [0, 0])


def test_inexact_lower_bound() -> None:
    spec = read_asserts("(>= (* 3 X_0) 1)")
    lower = float(only(spec).lower[0])
    assert lower < Fraction(1, 3) < math.nextafter(lower, 1)
    assert not holds(spec, [lower, 0], [0, 0])
    assert holds(spec, [math.nextafter(lower, 1), 0], [0, 0])


def test_number_between_two_floats_keeps_its_box_though_no_point_is_there() -> None:
    spec = read_asserts("(= (* 3 X_0) 1)")
    disjunct = only(spec)
    assert disjunct.lower[0] < Fraction(1, 3) < disjunct.upper[0]
    assert box_covers(spec, [Fraction(1, 3), Fraction(0)])
    for x in (disjunct.lower[0], disjunct.upper[0]):
        assert not holds(spec, [float(x), 0], [0, 0])


@pytest.mark.parametrize(
    ("formula", "row"),
    [
        ("(<= Y_0 1.5)", ([0, 0], [1, 0], 1.5, False)),
        ("(>= Y_0 1.5)", ([0, 0], [-1, 0], -1.5, False)),
        ("(< 1.5 Y_0)", ([0, 0], [-1, 0], -1.5, True)),
        ("(> Y_0 (- 1.5))", ([0, 0], [-1, 0], 1.5, True)),
        ("(<= Y_0 Y_1)", ([0, 0], [1, -1], 0, False)),
        ("(>= Y_0 Y_1)", ([0, 0], [-1, 1], 0, False)),
        ("(> Y_1 Y_0)", ([0, 0], [1, -1], 0, True)),
        ("(not (<= Y_0 Y_1))", ([0, 0], [-1, 1], 0, True)),
        ("(not (< Y_0 1))", ([0, 0], [-1, 0], -1, False)),
        ("(<= (+ (* 2 Y_0) (* -3 Y_1) 1) (- 4 Y_1))", ([0, 0], [2, -2], 3, False)),
        ("(<= (+ X_0 X_1) 1)", ([1, 1], [0, 0], 1, False)),
        ("(< (- X_0 X_1) 1)", ([1, -1], [0, 0], 1, True)),
        ("(>= (+ X_0 Y_1) (* 2 Y_0))", ([-1, 0], [2, -1], 0, False)),
        ("(<= X_0 Y_0)", ([1, 0], [-1, 0], 0, False)),
        ("(<= (/ Y_0 3) 1)", ([0, 0], [1, 0], 3, False)),  # 1/3 is no float64; three times the row is
        ("(<= (+ (/ Y_0 3) (* (/ 1 6) Y_1)) 0.5)", ([0, 0], [2, 1], 3, False)),
        ("(<= (* 1e-200 1e-200 Y_0) 0)", ([0, 0], [1, 0], 0, False)),  # would vanish in float64
        ("(<= (* 1e200 1e200 (- Y_0 Y_1)) 0)", ([0, 0], [1, -1], 0, False)),
    ],
)
def test_other_constraints_become_rows(formula: str, row: tuple) -> None:
    disjunct = only(read_asserts(formula))
    assert rows(disjunct) == [row]


def test_row_that_float64_holds_keeps_its_numbers() -> None:
    assert rows(only(read_asserts("(<= (+ (* 0.1 Y_0) (* 4 Y_1)) 0.3)"))) == [([0, 0], [0.1, 4], 0.3, False)]


def test_row_that_no_multiple_fits_is_nearest() -> None:
    ((_, outputs, bound, _),) = rows(only(read_asserts("(<= (+ (* 0.1 Y_0) Y_1 0.1) 0.3)")))
    assert outputs == [0.1, 1]
    assert bound == float(Fraction(0.3) - Fraction(0.1))


def test_equation_is_two_rows() -> None:
    expected = [([0, 0], [1, -1], 0, False), ([0, 0], [-1, 1], 0, False)]
    assert rows(only(read_asserts("(= Y_0 Y_1)"))) == expected


def test_chained_comparison() -> None:
    spec = read_asserts("(<= 0 Y_0 Y_1 5)")
    assert holds(spec, [0, 0], [1, 2])
    for y in ([-1, 2], [3, 2], [1, 6]):
        assert not holds(spec, [0, 0], y)
    opposite = read_asserts("(not (<= 0 Y_0 Y_1 5))")
    assert len(opposite.disjuncts) == 3
    assert not holds(opposite, [0, 0], [1, 2])
    for y in ([-1, 2], [3, 2], [1, 6]):
        assert holds(opposite, [0, 0], y)


@pytest.mark.parametrize("formula", ["(<= 0 1)", "(< 0 1)", "(= 1 1)", "(<= Y_0 Y_0)", "(not (< X_0 X_0))", "true"])
def test_constraint_that_always_holds_adds_nothing(formula: str) -> None:
    disjunct = only(read_asserts(formula))
    assert len(disjunct.constraints) == 0
    assert disjunct.upper.tolist() == [10, 10]


def test_contradiction_between_constants_leaves_nothing() -> None:
    for formula in ("(<= 1 0)", "(< 1 1)", "(= 1 2)", "(< Y_0 Y_0)", "(not (<= X_0 X_0))", "false", "(not true)"):
        assert read_asserts(formula).disjuncts == ()


def test_long_sums_and_deep_ones() -> None:
    n = 3000
    long = "(+ " + " ".join(f"X_{i}" for i in range(n)) + ")"
    deep = "X_0"
    for i in range(1, n):
        deep = f"(+ X_{i} {deep})" if i % 2 else f"(- (- {deep}) (* -1 X_{i}))"
    for total in (long, deep):
        ((inputs, _, bound, _),) = rows(only(read_asserts(f"(<= {total} 7)", n_inputs=n)))
        assert set(map(abs, inputs)) == {1.0}
        assert bound == 7
    assert rows(only(read_asserts(f"(<= {long} 7)", n_inputs=n)))[0][0] == [1.0] * n


def test_arithmetic_a_hundred_thousand_levels_deep() -> None:
    depth = 100_000
    for opening, closing in (("(- ", ")"), ("(+ 1 ", ")"), ("(/ ", " -1)")):
        spec = read_asserts(f"(<= {opening * depth}X_0{closing * depth} 100007)", box=1e6)
        expected = 100_007 - depth if opening == "(+ 1 " else 100_007
        assert only(spec).upper[0] == expected


def test_minus_zero_is_zero() -> None:
    disjunct = only(read_asserts("(>= X_0 -0.0)", "(<= X_1 (- 0))"))
    assert not np.signbit(disjunct.lower[0])
    assert not np.signbit(disjunct.upper[1])
