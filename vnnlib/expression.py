"""Linear arithmetic: words to exact linear expressions.

n-ary ``+``, ``-`` and ``*``, unary ``-``, division by constants, nested to any depth.  There is no
recursion: open operators wait on a stack.  Operands of ``+`` and ``-`` are added straight into one
accumulator with the factor that the operators around them amount to, so a sum costs its length however it is
nested; only ``*`` and ``/`` collect operands of their own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction

from verifier.errors import SpecError
from verifier.vnnlib.formula import Linear
from verifier.vnnlib.lexer import Words
from verifier.vnnlib.rational import Rational

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
_OPERATORS = frozenset("+-*/")
_ONE: Rational = 1
_MAX_DIGITS = 20_000
"""Binary digits of an exact number.  Products of thousands of decimals would take hours, and mean nothing."""


@dataclass(frozen=True)
class Variables:
    """Names declared so far; places: the word that declared each."""

    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def declare(self, words: Words, word: int) -> None:
        """Declares the name at ``word``.  Raises SpecError for other names and for a second declaration."""
        name = words.texts[word]
        match = _VARIABLE.fullmatch(name)
        if not match:
            wanted = "a variable named X_<number> (an input) or Y_<number> (an output), numbered from 0"
            raise words.expected(wanted, word)
        if name in self.places:
            raise words.error(f"{name} is declared twice", word)
        of_kind = self.inputs if match[1] == "X" else self.outputs
        of_kind[name] = int(match[2])
        self.places[name] = word

    def check_complete(self, words: Words) -> None:
        """Raises SpecError when there are no inputs, no outputs, or their numbers have gaps."""
        for letter, kind, names in (("X", "input", self.inputs), ("Y", "output", self.outputs)):
            if not names:
                sentence = f"no {kind} is declared; add (declare-const {letter}_0 Real)"
                raise SpecError(sentence, words.path or None)
            last = max(names, key=lambda name: names[name])
            if names[last] != len(names) - 1:
                missing = next(i for i in range(len(names)) if f"{letter}_{i}" not in names)
                sentence = f"{last} is declared but {letter}_{missing} is not; number the {kind}s without gaps"
                raise words.error(sentence, self.places[last])


def literal(text: str) -> float | None:
    """The float64 nearest to a decimal number; None where ``text`` is something else or out of range.

    ``float`` decides, save for what it accepts beyond decimals: underscores, other scripts, nan, infinities.
    """
    if "_" in text or not text.isascii():
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -math.inf < value < math.inf else None


@dataclass(slots=True)
class _Open:
    """An operator whose operands are being read.

    into, factor: where its value goes.
    unary: for ``-``, whether there is one operand.
    product: for ``*`` and ``/``, the value of the operands so far; None before the first.
    """

    operator: str
    word: int
    into: Linear
    factor: Rational
    unary: bool = False
    product: Linear | None = None


def add_expression(words: Words, variables: Variables, start: int, into: Linear, factor: Rational) -> int:
    """Adds ``factor`` times the expression that starts at ``start``; the word behind it.  Raises SpecError."""
    texts = words.texts
    opened: list[_Open] = []
    i = start
    while True:
        text = texts[i]
        if text == "(":
            operator = _opening(words, i, into, factor)
            opened.append(operator)
            if operator.operator in "*/":
                into, factor = Linear(), _ONE
            elif operator.unary:
                factor = -factor
            i += 2
            continue
        if text == ")":
            if not opened:
                raise words.expected("a number, a variable or an arithmetic expression", i)
            operator = opened.pop()
            into, factor = operator.into, operator.factor
            if operator.product is not None:
                into.add(operator.product, factor)
        else:
            _add_operand(words, variables, i, into, factor)
        i += 1
        if not opened:
            return i
        operator = opened[-1]
        if operator.operator == "-":
            factor = -operator.factor
        elif operator.operator in "*/":
            operator.product = _combined(words, operator, into)
            into = Linear()


def _opening(words: Words, i: int, into: Linear, factor: Rational) -> _Open:
    """The operator behind the parenthesis at ``i``."""
    name = words.texts[i + 1]
    if name not in _OPERATORS:
        raise words.expected("one of the operators + - * /", i + 1)
    if words.texts[i + 2] == ")":
        raise words.error(f"{name} needs an operand", i + 2)
    unary = name == "-" and words.texts[words.after(i + 2)] == ")"
    if name == "/" and words.texts[words.after(i + 2)] == ")":
        raise words.error("/ needs two operands", i + 1)
    return _Open(name, i + 1, into, factor, unary)


def _add_operand(words: Words, variables: Variables, i: int, into: Linear, factor: Rational) -> None:
    """Adds ``factor`` times the number or variable at ``i``."""
    text = words.texts[i]
    if text in variables.inputs:
        index = variables.inputs[text]
        into.inputs[index] = into.inputs.get(index, 0) + factor
    elif text in variables.outputs:
        index = variables.outputs[text]
        into.outputs[index] = into.outputs.get(index, 0) + factor
    else:
        value = literal(text)
        if value is None:
            raise _not_an_operand(words, i)
        if value:
            into.constant += factor * (int(value) if value.is_integer() else Fraction(value))


def _combined(words: Words, operator: _Open, operand: Linear) -> Linear:
    """The product or quotient of the operands so far and one more."""
    operand.drop_zeros()
    product = operator.product
    if product is None:
        return operand
    if operator.operator == "/":
        if not operand.is_constant:
            raise words.error("division by an expression with variables is not linear", operator.word)
        if operand.constant == 0:
            raise words.error("division by zero", operator.word)
        constant, other = Fraction(1) / operand.constant, product
    elif operand.is_constant:
        constant, other = Fraction(operand.constant), product
    elif product.is_constant:
        constant, other = Fraction(product.constant), operand
    else:
        raise words.error("a product of two expressions with variables is not linear", operator.word)
    scaled = other.times(constant)
    scaled.drop_zeros()
    for value in (scaled.constant, *scaled.inputs.values(), *scaled.outputs.values()):
        if value.numerator.bit_length() + value.denominator.bit_length() > _MAX_DIGITS:
            raise words.error(f"a number here has more than {_MAX_DIGITS} binary digits", operator.word)
    return scaled


def _not_an_operand(words: Words, i: int) -> SpecError:
    """Says why the word at ``i`` is neither a usable number nor a declared variable."""
    text = words.texts[i]
    if _VARIABLE.fullmatch(text):
        return words.error(f"{text} is used but not declared; add (declare-const {text} Real) before this line", i)
    if _NUMBER.fullmatch(text):
        return words.error(f"the number {text[:40]} is beyond the range of float64", i)
    return words.expected("a number, a variable X_<number> or Y_<number>, or an arithmetic expression", i)
