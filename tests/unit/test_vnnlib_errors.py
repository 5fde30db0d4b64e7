"""What is wrong, where, and what to do: every refusal of the reader, with its place."""

from __future__ import annotations

import pytest

from support.specs import read_asserts
from verifier.errors import SpecError
from verifier.vnnlib import read_text
from verifier.vnnlib.lexer import Words, split, split_by_grammar

GOOD = """; a comment (with a parenthesis
(set-logic QF_LRA)
(set-info :source |quoted ( text|)
(set-info :note "a ""string"" ; with (")
(declare-const X_0 Real)
(declare-fun Y_0 () Real)
(assert (<= X_0 1)) ; behind
(assert (>= X_0
    -1))
(check-sat)
(get-model)
(exit)
"""


def refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read_text(text, "p.vnnlib")
    assert "Traceback" not in str(caught.value)
    return caught.value


def test_what_is_ignored_is_ignored() -> None:
    spec = read_text(GOOD, "good.vnnlib")
    assert (spec.n_inputs, spec.n_outputs, len(spec.disjuncts)) == (1, 1, 1)
    assert spec.source == "good.vnnlib"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(line_end: str) -> None:
    spec = read_text(GOOD.replace("\n", line_end))
    assert spec.disjuncts[0].lower[0] == -1
    error = refused((GOOD + "(assert (<= X_0 oops))").replace("\n", line_end))
    assert (error.line, error.column) == (13, 17)


HEAD = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n"


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        # commands
        ("assert", "expected a command such as (assert ...), found 'assert'", 3, 1),
        (")", "expected a command such as (assert ...), found ')'", 3, 1),
        ("(assert (<= X_0 1)))", "expected a command", 3, 20),
        ("(push 1)", "expected one of the commands declare-const, declare-fun, assert, found 'push'", 3, 2),
        ("(vnnlib-version <2.0>)", "this is a VNN-LIB 2.0 file", 3, 2),
        ("(set-info :a (b)", "the command set-info is never closed", 3, 1),
        ("()", "expected one of the commands", 3, 2),
        ("(", "the file ends where one of the commands", 3, 2),
        # declarations
        ("(declare-const x Real)", "expected a variable named X_<number> (an input)", 3, 16),
        ("(declare-const X_01 Real)", "expected a variable named", 3, 16),
        ("(declare-const X_-1 Real)", "expected a variable named", 3, 16),
        ("(declare-const X_0 Real)", "X_0 is declared twice", 3, 16),
        ("(declare-const X_1 Int)", "expected the sort Real, found 'Int'", 3, 20),
        ("(declare-const X_1 Real Real)", "expected ')', found 'Real'", 3, 25),
        ("(declare-fun X_1 (Real) Real)", "expected () between name and sort", 3, 19),
        ("(declare-fun X_1 Real)", "expected () between name and sort", 3, 18),
        ("(declare-const X_2 Real)", "X_2 is declared but X_1 is not; number the inputs without gaps", 3, 16),
        ("(declare-const Y_3 Real)", "Y_3 is declared but Y_1 is not; number the outputs without gaps", 3, 16),
        ("(declare-const X_99999999 Real)", "X_99999999 is declared but X_1 is not", 3, 16),
        # formulas
        ("(assert)", "expected a formula", 3, 8),
        ("(assert X_0)", "expected a formula: a comparison, and, or, not, =>, true or false, found 'X_0'", 3, 9),
        ("(assert (<= X_0 1) (<= X_0 2))", "expected ')' behind the one formula of assert", 3, 20),
        ("(assert (xor true false))", "expected a comparison (<= >= < > =) or one of and, or, not, =>", 3, 10),
        ("(assert (and))", "and needs an operand", 3, 13),
        ("(assert (or (and)))", "and needs an operand", 3, 17),
        ("(assert (not))", "not needs an operand", 3, 13),
        ("(assert (not true false))", "not takes exactly one operand", 3, 10),
        ("(assert (=> true))", "=> needs two operands", 3, 10),
        ("(assert (and (<= X_0 1) X_0))", "expected a formula", 3, 25),
        ("(assert (or (<= X_0 1)", "the file ends where a formula", 3, 23),
        ("(assert (not (<= X_0 1)", "the file ends where a formula", 3, 24),
        ("(assert (=> (<= X_0 1) (<= X_0 2)", "the file ends where a formula", 3, 34),
        ("(assert (<= X_0 1)\n", "the file ends where ')' behind the one formula of assert", 3, 19),
        # comparisons and arithmetic
        ("(assert (<=))", "expected a number, a variable or an arithmetic expression, found ')'", 3, 12),
        ("(assert (<= X_0))", "<= needs two operands", 3, 10),
        ("(assert (<= X_0 (+ 1 2))", "the file ends where ')'", 3, 25),
        ("(assert (<= X_0 (+ 1", "the file ends where a number", 3, 21),
        ("(assert (<= X_0", "the file ends where a number", 3, 16),
        ("(assert (<= X_1 1))", "X_1 is used but not declared; add (declare-const X_1 Real) before this line", 3, 13),
        ("(assert (<= 1 (+ 2 Y_7)))", "Y_7 is used but not declared", 3, 20),
        ("(assert (<= Z_0 1))", "expected a number, a variable X_<number> or Y_<number>", 3, 13),
        ("(assert (<= X_0 nan))", "expected a number, a variable X_<number> or Y_<number>", 3, 17),
        ("(assert (<= X_0 inf))", "found 'inf'", 3, 17),
        ("(assert (<= X_0 -infinity))", "found '-infinity'", 3, 17),
        ("(assert (<= X_0 1_000))", "found '1_000'", 3, 17),
        ("(assert (<= X_0 0x10))", "found '0x10'", 3, 17),
        ("(assert (<= X_0 １))", "found '１'", 3, 17),  # noqa: RUF001 - a digit of another script
        ("(assert (<= X_0 1e999))", "the number 1e999 is beyond the range of float64", 3, 17),
        ("(assert (<= X_0 -1e999))", "the number -1e999 is beyond the range of float64", 3, 17),
        ("(assert (<= X_0 (* 1e308 1e308)))", "gathered, are beyond the range of float64", 3, 9),
        ("(assert (<= (+ Y_0 (* 1e-308 1e-308 X_0)) 0))", "gathered, are beyond the range", 3, 9),
        ("(assert (<= X_0 (% 3 2)))", "expected one of the operators + - * /, found '%'", 3, 18),
        ("(assert (<= X_0 (+)))", "+ needs an operand", 3, 19),
        ("(assert (<= X_0 (-)))", "- needs an operand", 3, 19),
        ("(assert (<= (/ X_0) 1))", "/ needs two operands", 3, 14),
        ("(assert (<= (/ X_0 0) 1))", "division by zero", 3, 14),
        ("(assert (<= (/ X_0 (- 1 1)) 1))", "division by zero", 3, 14),
        ("(assert (<= (/ 1 X_0) 1))", "division by an expression with variables is not linear", 3, 14),
        ("(assert (<= (* X_0 Y_0) 1))", "a product of two expressions with variables is not linear", 3, 14),
        ("(assert (<= (* X_0 (+ 1 X_0)) 1))", "is not linear", 3, 14),
        ('(assert "', 'a " is opened here and never closed', 3, 9),
        ("(assert (<= |X_0 1))", "a | is opened here and never closed", 3, 13),
        ("(assert (<= \x00 1))", "found '\\x00'", 3, 13),
        # bounds
        ("(assert (<= X_0 1))", "X_0 has no lower bound; add (assert (>= X_0 <number>))", 1, 16),
        ("(assert (>= X_0 1))", "X_0 has no upper bound; add (assert (<= X_0 <number>))", 1, 16),
        ("(assert (>= Y_0 1))", "X_0 has no lower bound", 1, 16),
        (
            "(assert (<= X_0 1))(assert (or (>= X_0 0) (<= Y_0 0)))",
            "X_0 has no lower bound in disjunct 2 of 2; add (assert (>= X_0 <number>))",
            1,
            16,
        ),
    ],
)  # fmt: skip
def test_refusals_with_their_places(text: str, message: str, line: int, column: int) -> None:
    error = refused(HEAD + text)
    assert message in str(error)
    assert (error.line, error.column) == (line, column)
    assert str(error).startswith(f"p.vnnlib:{line}:{column}: ")


def test_numbers_of_absurd_length() -> None:
    """A product of thousands of decimals is an exact number of a hundred thousand digits: refused, not awaited."""
    depth = 100_000
    error = refused(f"{HEAD}(assert (<= {'(* 0.1 ' * depth}X_0{')' * depth} 1))")
    assert "a number here has more than 20000 binary digits" in str(error)
    assert error.line == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.vnnlib: the file is empty"),
        ("  \n\t", "p.vnnlib: the file is empty"),
        ("; only a comment", "p.vnnlib: no input is declared; add (declare-const X_0 Real)"),
        ("(declare-const Y_0 Real)", "p.vnnlib: no input is declared"),
        ("(declare-const X_0 Real)", "p.vnnlib: no output is declared; add (declare-const Y_0 Real)"),
        (HEAD, "p.vnnlib: the file asserts nothing; bound every input"),
    ],
)
def test_refusals_of_the_whole_file(text: str, message: str) -> None:
    error = refused(text)
    assert str(error).startswith(message)
    assert error.line is None


def test_variable_used_before_its_declaration() -> None:
    error = refused("(declare-const Y_0 Real)\n(assert (<= X_0 1))\n(declare-const X_0 Real)")
    assert "X_0 is used but not declared" in str(error)
    assert error.line == 2


def test_all_unbounded_inputs_are_counted() -> None:
    with pytest.raises(SpecError, match=r"X_1 has no lower bound \(nor have 2 other inputs\)"):
        read_asserts("(<= 0 X_0 1)", "(<= X_1 1)", "(<= X_2 1)", "(<= X_3 1)", n_inputs=4, box=None)


def test_unbounded_input_does_not_matter_where_nothing_can_hold() -> None:
    assert read_asserts("(<= X_0 1)", "(>= X_0 2)", box=None).disjuncts == ()


def test_error_without_a_source_has_line_and_column_alone() -> None:
    with pytest.raises(SpecError) as caught:
        read_text("(declare-const Q Real)")
    assert str(caught.value).startswith("1:16: ")
    assert caught.value.path is None


def test_long_words_are_shortened() -> None:
    error = refused(f"({'a' * 1000})")
    assert len(str(error)) < 200


def test_place_of_every_word() -> None:
    text = 'ab (c\r\n ; (not this)\n"two\nlines" )\r|x y|'
    words = Words(text)
    assert words.texts[:6] == ["ab", "(", "c", '"two\nlines"', ")", "|x y|"]
    assert [words.place(i) for i in range(6)] == [(1, 1), (1, 4), (1, 5), (3, 1), (4, 8), (5, 1)]
    assert words.place(6) == (5, 6)


def test_fast_and_slow_splitting_agree() -> None:
    text = "(a;b(c)\n;;\n( d)e ;\r f)\t\v\x0c\x1c\x85\xa0\u2003g;"
    assert split(text) == split_by_grammar(text) == ["(", "a", "(", "d", ")", "e", "f", ")", "g"]
