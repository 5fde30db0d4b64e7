"""Random formulas mean the same before and after: as text, in normal form, and written out again.

The oracle evaluates the formula as it was drawn, in rational arithmetic, with ``not`` and ``=>`` as they stand.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from support.specs import box_covers, declarations
from verifier.errors import SpecError
from verifier.vnnlib import Spec, counterexample_text, read_counterexample, read_text, to_text
from verifier.vnnlib.lexer import Words, split, split_by_grammar

N_INPUTS, N_OUTPUTS = 3, 2
VARIABLES = [*(f"X_{i}" for i in range(N_INPUTS)), *(f"Y_{i}" for i in range(N_OUTPUTS))]
Point = dict[str, Fraction]


@dataclass(frozen=True)
class Node:
    """A word, or an operator with its operands."""

    word: str
    operands: tuple[Node, ...] = ()

    def __str__(self) -> str:
        return f"({self.word} {' '.join(map(str, self.operands))})" if self.operands else self.word


def number(node: Node, point: Point) -> Fraction:
    """The value of arithmetic."""
    if not node.operands:
        return point[node.word] if node.word in point else Fraction(float(node.word))
    first, *rest = (number(operand, point) for operand in node.operands)
    for value in rest:
        if node.word == "+":
            first += value
        elif node.word == "-":
            first -= value
        elif node.word == "*":
            first *= value
        else:
            first /= value
    return -first if node.word == "-" and not rest else first


def truth(node: Node, point: Point) -> bool:
    """The value of a formula."""
    if node.word in ("true", "false"):
        return node.word == "true"
    if node.word in ("<=", ">=", "<", ">", "="):
        values = [number(operand, point) for operand in node.operands]
        pairs = list(itertools.pairwise(values))
        if node.word == "<=":
            return all(a <= b for a, b in pairs)
        if node.word == ">=":
            return all(a >= b for a, b in pairs)
        if node.word == "<":
            return all(a < b for a, b in pairs)
        if node.word == ">":
            return all(a > b for a, b in pairs)
        return all(a == b for a, b in pairs)
    operands = [truth(operand, point) for operand in node.operands]
    if node.word == "and":
        return all(operands)
    if node.word == "or":
        return any(operands)
    if node.word == "not":
        return not operands[0]
    return not all(operands[:-1]) or operands[-1]


def nodes(words: st.SearchStrategy[str], operands: st.SearchStrategy[Node], least: int, most: int) -> st.SearchStrategy:
    return st.builds(Node, words, st.lists(operands, min_size=least, max_size=most).map(tuple))


EASY = st.sampled_from(["0", "1", "-1", "2.5", "-0.5", "3", "1e0", "25e-2", "-.75"])
HARD = st.sampled_from(["0.1", "-0.3", "1e-3", "0.7", "3.3333", "1e-20", "12345.678"])
variables = st.sampled_from(VARIABLES).map(Node)


def arithmetic(literals: st.SearchStrategy[str], leaves: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """Linear expressions: products and quotients with numbers alone."""
    numbers = literals.map(Node)
    divisors = st.sampled_from(["2", "-4", "3", "0.5", "-1"]).map(Node)

    def grow(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        factors = st.permutations([0, 1])
        product = st.builds(lambda a, b, order: Node("*", tuple((a, b)[i] for i in order)), numbers, inner, factors)
        quotient = st.builds(lambda a, b: Node("/", (a, b)), inner, divisors)
        return nodes(st.sampled_from("+-"), inner, 1, 3) | product | quotient

    return st.recursive(numbers | leaves, grow, max_leaves=5)


def formulas(comparisons: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    constants = st.sampled_from(["true", "false"]).map(Node)

    def grow(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        several = nodes(st.sampled_from(["and", "or"]), inner, 1, 3)
        return several | nodes(st.just("not"), inner, 1, 1) | nodes(st.just("=>"), inner, 2, 3)

    return st.recursive(st.one_of(*[comparisons] * 9, constants), grow, max_leaves=8)


def comparisons(operands: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    words = st.sampled_from(["<=", ">=", "<", ">", "="])
    return st.one_of(*[nodes(words, operands, 2, 2)] * 4, nodes(words, operands, 3, 3))


simple = comparisons(st.one_of(EASY.map(Node), variables))
general = comparisons(arithmetic(EASY, variables))
one_input = st.one_of([comparisons(arithmetic(EASY | HARD, st.just(Node(x)))) for x in VARIABLES[:N_INPUTS]])
grid = st.integers(-12, 12).map(lambda k: k / 4)


def read_in_box(formula: Node) -> Spec:
    bounds = " ".join(f"(assert (<= -3 X_{i} 3))" for i in range(N_INPUTS))
    return read_text(f"{declarations(N_INPUTS, N_OUTPUTS)} {bounds} (assert {formula})")


def in_box(x: list[float]) -> bool:
    return all(-3 <= value <= 3 for value in x)


def agree(formula: Node, spec: Spec, x: list[float], y: list[float]) -> None:
    point = dict(zip(VARIABLES, map(Fraction, [*x, *y]), strict=True))
    expected = in_box(x) and truth(formula, point)
    assert spec.holds_exactly(np.array(x), np.array(y)) == expected
    if expected:
        assert box_covers(spec, [Fraction(value) for value in x])


points = st.tuples(st.lists(grid, min_size=3, max_size=3), st.lists(grid, min_size=2, max_size=2))


@settings(max_examples=300, deadline=None)
@given(formulas(simple | general), st.lists(points, min_size=1, max_size=8))
def test_normal_form_agrees_with_the_formula(formula: Node, at: list[tuple[list[float], list[float]]]) -> None:
    """On a grid on which the constraints' boundaries lie, so that strictness matters."""
    spec = read_in_box(formula)
    again = read_text(to_text(spec))
    for x, y in at:
        agree(formula, spec, x, y)
        assert again.holds_exactly(np.array(x), np.array(y)) == spec.holds_exactly(np.array(x), np.array(y))


@settings(max_examples=100, deadline=None)
@given(formulas(one_input))
@example(Node("<", (Node("*", (Node("3"), Node("X_0"))), Node("1"))))
@example(Node("=", (Node("*", (Node("0.1"), Node("X_0"))), Node("0.3"))))
def test_bounds_on_one_input_are_exact_to_the_last_bit(formula: Node) -> None:
    """At the sides of the boxes and at the float64 numbers next to them, whatever the numbers."""
    spec = read_in_box(formula)
    y = [0.0] * N_OUTPUTS
    for disjunct in spec.disjuncts[:4]:
        for side in (disjunct.lower, disjunct.upper):
            for neighbour in (side, np.nextafter(side, -np.inf), np.nextafter(side, np.inf)):
                agree(formula, spec, neighbour.tolist(), y)
    again = read_text(to_text(spec))
    for one, two in zip(spec.disjuncts, again.disjuncts, strict=True):
        assert np.array_equal(one.lower, two.lower)
        assert np.array_equal(one.upper, two.upper)
        for mine, theirs in ((one.point_lower, two.point_lower), (one.point_upper, two.point_upper)):
            assert (mine is None) == (theirs is None)
            assert mine is None or np.array_equal(mine, theirs)


@settings(max_examples=60, deadline=None)
@given(formulas(one_input), st.lists(st.fractions(-3, 3, max_denominator=30), min_size=3, max_size=3))
def test_boxes_cover_every_real_input(formula: Node, x: list[Fraction]) -> None:
    """Rational points that float64 does not hold, too."""
    point = dict(zip(VARIABLES, [*x, Fraction(0), Fraction(0)], strict=True))
    assume(truth(formula, point))
    assert box_covers(read_in_box(formula), x)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab01.-+<>=()|";\n\r\t \x0b\x1c\x85\xa0XY_', max_size=60))
def test_both_ways_of_splitting_give_the_same_words(text: str) -> None:
    assert split(text) == split_by_grammar(text)
    words = Words(text)
    for i, word in enumerate(split(text)):
        line, column = words.place(i)
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert lines[line - 1][column - 1 :].startswith(word.replace("\r\n", "\n").replace("\r", "\n").split("\n")[0])


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="()<=X_0Y1 and or not assert\n", max_size=80))
def test_no_text_makes_the_reader_fail_in_an_unforeseen_way(text: str) -> None:
    with contextlib.suppress(SpecError):
        read_text(declarations(1, 1) + text)


values = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(values, values)
def test_counterexamples_come_back_exactly(x: list[float], y: list[float]) -> None:
    back = read_counterexample(counterexample_text(np.array(x), np.array(y)))
    for sent, received in zip((x, y), back, strict=True):
        assert sent == received.tolist()
        assert [math.copysign(1, value) for value in sent] == [math.copysign(1, value) for value in received]
