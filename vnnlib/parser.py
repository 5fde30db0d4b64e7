"""Words to the boolean tree of formula.py.

One loop reads all formulas, with open connectives on a stack, so depth is limited by memory alone.  ``not``
and ``=>`` are pushed inward on the way: the loop carries whether it stands under an odd number of negations,
and under one ``and`` opens a choice, ``or`` a conjunction, and ``<=`` means ``>``.

Nearly every constraint of nearly every file is ``(<= X_12 0.5)``; the loop recognises those five words itself
and puts the bound into its dictionary.  Everything else goes through exact arithmetic (expression.py).
"""

from __future__ import annotations

import math

from verifier.errors import SpecError
from verifier.vnnlib.expression import Variables, add_expression, literal
from verifier.vnnlib.formula import Choice, Conjunction, Formula, Linear, Row
from verifier.vnnlib.lexer import END, Words

_COMPARISONS = frozenset(("<=", ">=", "<", ">", "="))
_CLOSED = frozenset(("<=", ">="))
_CONNECTIVES = frozenset(("and", "or", "=>", "not"))
_IGNORED = frozenset(("check-sat", "get-model", "set-logic", "set-info", "set-option", "exit"))
_NOWHERE = -1

_Operand = tuple[str, float, int]
"""A simple operand: X, Y or nothing for a number; the index or the number; the word behind it."""


def parse(words: Words) -> Formula:
    """Raises SpecError with the place of the first fault."""
    parser = _Parser(words)
    parser.commands()
    variables = parser.variables
    variables.check_complete(words)
    if not parser.asserted:
        sentence = "the file asserts nothing; bound every input with (assert (<= X_0 1)) and the like"
        raise SpecError(sentence, words.path or None)
    declared = [variables.places[f"X_{i}"] for i in range(len(variables.inputs))]
    return Formula(len(variables.inputs), len(variables.outputs), parser.conjunctions, declared)


class _Parser:
    def __init__(self, words: Words) -> None:
        self.words = words
        self.variables = Variables()
        self.root = Conjunction()
        self.conjunctions = [self.root]
        self.asserted = False

    def commands(self) -> None:
        """Reads the whole file."""
        words, texts = self.words, self.words.texts
        i = 0
        while texts[i] != END:
            if texts[i] != "(":
                raise words.expected("a command such as (assert ...)", i)
            head = texts[i + 1]
            if head == "assert":
                i = self._assertion(i)
                self.asserted = True
            elif head in ("declare-const", "declare-fun"):
                i = self._declaration(i)
            elif head in _IGNORED:
                i = self._behind_ignored(i)
            else:
                raise self._unknown_command(i + 1)

    def _behind_ignored(self, start: int) -> int:
        """The word behind the command that starts at ``start``."""
        texts = self.words.texts
        depth, i = 1, start + 1
        while depth:
            if texts[i] == END:
                raise self.words.error(f"the command {texts[start + 1]} is never closed; a ')' is missing", start)
            depth += (texts[i] == "(") - (texts[i] == ")")
            i += 1
        return i

    def _unknown_command(self, i: int) -> SpecError:
        head = self.words.texts[i]
        if head in ("vnnlib-version", "declare-network"):
            sentence = "this is a VNN-LIB 2.0 file; only VNN-LIB 1.0 is read (X_0, ..., Y_0, ... and assert)"
            return self.words.error(sentence, i)
        return self.words.expected("one of the commands declare-const, declare-fun, assert", i)

    def _declaration(self, start: int) -> int:
        """``(declare-const X_0 Real)`` or ``(declare-fun X_0 () Real)``; the word behind it."""
        words, texts = self.words, self.words.texts
        self.variables.declare(words, start + 2)
        i = start + 3
        if texts[start + 1] == "declare-fun":
            for parenthesis in "()":
                if texts[i] != parenthesis:
                    raise words.expected("() between name and sort, for a variable", i)
                i += 1
        if texts[i] != "Real":
            raise words.expected("the sort Real", i)
        if texts[i + 1] != ")":
            raise words.expected("')'", i + 1)
        return i + 2

    def _part(self, target: Conjunction | Choice) -> Conjunction:
        """Where something joins ``target``: a conjunction itself, a new option of a choice."""
        return target if isinstance(target, Conjunction) else self._option(target)

    def _option(self, choice: Choice) -> Conjunction:
        """A new option of ``choice``."""
        option = Conjunction()
        choice.options.append(option)
        self.conjunctions.append(option)
        return option

    def _choice(self, conjunction: Conjunction) -> Choice:
        """A new choice in ``conjunction``."""
        choice = Choice()
        conjunction.choices.append(choice)
        return choice

    def _assertion(self, start: int) -> int:
        """Adds the formula of the assert that starts at ``start``; the word behind it.

        The formula being read goes into ``target``: as a part of a conjunction, as an option of a choice.
        ``last`` is the last operand of the innermost ``=>``, the one that is not negated.
        """
        words, texts, inputs = self.words, self.words.texts, self.variables.inputs
        target: Conjunction | Choice = self.root
        negated = False
        last = _NOWHERE
        opened: list[tuple[Conjunction | Choice, bool, int]] = []
        i = start + 2
        while True:
            if i == last:
                negated = not negated
            text = texts[i]
            if text == "(":
                head = texts[i + 1]
                if head in _COMPARISONS:
                    index, value = inputs.get(texts[i + 2]), None
                    if index is not None and texts[i + 4] == ")" and head in _CLOSED and not negated:
                        value = literal(texts[i + 3])
                    if index is None or value is None:
                        i = self._comparison(i, target, negated)
                    else:
                        conjunction = self._part(target)
                        if head == "<=":
                            if value < conjunction.upper.get(index, math.inf):
                                conjunction.upper[index] = value
                        elif value > conjunction.lower.get(index, -math.inf):
                            conjunction.lower[index] = value
                        i += 5
                elif head in _CONNECTIVES:
                    opened.append((target, negated, last))
                    target, negated, last = self._inside(i, target, negated)
                    i += 2
                    continue
                else:
                    raise words.expected("a comparison (<= >= < > =) or one of and, or, not, =>", i + 1)
            elif text == ")" and opened:
                target, negated, last = opened.pop()
                i += 1
            elif text == "true" or text == "false":
                conjunction = self._part(target)
                conjunction.impossible |= (text == "true") == negated
                i += 1
            else:
                raise words.expected("a formula: a comparison, and, or, not, =>, true or false", i)
            if not opened:
                break
        if texts[i] != ")":
            raise words.expected("')' behind the one formula of assert", i)
        return i + 1

    def _inside(
        self, start: int, target: Conjunction | Choice, negated: bool
    ) -> tuple[Conjunction | Choice, bool, int]:
        """Where the operands of the connective at ``start`` go: target, negated, last operand of ``=>``."""
        words, texts = self.words, self.words.texts
        name = texts[start + 1]
        if texts[start + 2] == ")":
            raise words.error(f"{name} needs an operand", start + 2)
        if name == "not":
            if texts[words.after(start + 2)] not in (")", END):
                raise words.error("not takes exactly one operand", start + 1)
            return target, not negated, _NOWHERE
        if (name == "and") != negated:
            target = self._part(target)
        elif isinstance(target, Conjunction):
            target = self._choice(target)
        if name == "=>":
            return target, not negated, self._last_operand(start)
        return target, negated, _NOWHERE

    def _last_operand(self, start: int) -> int:
        """The last operand of the ``=>`` whose parenthesis is at ``start``."""
        words = self.words
        operand, behind = start + 2, words.after(start + 2)
        if words.texts[behind] == ")":
            raise words.error("=> needs two operands", start + 1)
        while words.texts[behind] not in (")", END):
            operand, behind = behind, words.after(behind)
        return operand

    def _comparison(self, start: int, target: Conjunction | Choice, negated: bool) -> int:
        """Adds the comparison that starts at ``start``; the word behind it."""
        words, texts = self.words, self.words.texts
        behind_simple = self._simple_comparison(start, target, negated)
        if behind_simple is not None:
            return behind_simple
        differences = []
        left, behind = start + 2, start
        try:
            while texts[behind] != ")":
                difference = Linear()
                right = add_expression(words, self.variables, left, difference, 1)
                if texts[right] == ")":
                    raise words.error(f"{texts[start + 1]} needs two operands", start + 1)
                behind = add_expression(words, self.variables, right, difference, -1)
                differences.append(difference)
                left = right
            self._add(_at_most_zero(texts[start + 1], differences), target, negated)
        except OverflowError:
            sentence = "the numbers of this constraint, gathered, are beyond the range of float64"
            raise words.error(sentence, start) from None
        return behind + 1

    def _add(self, differences: list[tuple[Linear, bool]], target: Conjunction | Choice, negated: bool) -> None:
        """Adds that all the differences are <= 0 (< 0 where True), or, negated, that one of them is not."""
        if not negated:
            conjunction = self._part(target)
            for difference, strict in differences:
                conjunction.require(difference, strict)
        elif len(differences) == 1:
            ((difference, strict),) = differences
            self._part(target).require(difference.times(-1), not strict)
        else:
            choice = target if isinstance(target, Choice) else self._choice(target)
            for difference, strict in differences:
                self._option(choice).require(difference.times(-1), not strict)

    def _simple_comparison(self, start: int, target: Conjunction | Choice, negated: bool) -> int | None:
        """Adds a comparison of an input or output with a number, or of two outputs; None for any other.

        With the loop's own case these are nearly all there are, and need no exact arithmetic: whole files
        in the style ``(< (- 1.5) X_0)``, or with thousands of disjuncts over outputs, read several times as
        fast.
        """
        texts = self.words.texts
        comparison = texts[start + 1]
        left = self._simple_operand(start + 2)
        if left is None or (negated and comparison == "="):
            return None
        right = self._simple_operand(left[2])
        if right is None or texts[right[2]] != ")":
            return None
        kinds = left[0] + right[0]
        if kinds not in ("X", "Y", "YY") or (kinds == "YY" and left[1] == right[1]):
            return None
        conjunction = self._part(target)
        strict = (len(comparison) == 1) != negated and comparison != "="
        if comparison != "=":
            directions: tuple[bool, ...] = ((comparison[0] == "<") != negated,)
        else:
            directions = (True, False)
        for is_less in directions:
            if left[0] == "X":
                conjunction.bound(int(left[1]), right[1], is_less, strict)
            elif right[0] == "X":
                conjunction.bound(int(right[1]), left[1], not is_less, strict)
            else:
                conjunction.rows.append(_output_row(left, right, is_less, strict))
        return right[2] + 1

    def _simple_operand(self, i: int) -> _Operand | None:
        """The input, output or number at ``i``, where it is no more than that."""
        text = self.words.texts[i]
        index = self.variables.inputs.get(text)
        if index is not None:
            return "X", index, i + 1
        index = self.variables.outputs.get(text)
        if index is not None:
            return "Y", index, i + 1
        if text != "(":
            value, behind, sign = literal(text), i + 1, 1.0
        elif self.words.texts[i + 1] == "-" and self.words.texts[i + 3] == ")":
            value, behind, sign = literal(self.words.texts[i + 2]), i + 4, -1.0
        else:
            return None
        return None if value is None else ("", sign * value, behind)


def _output_row(left: _Operand, right: _Operand, is_less: bool, strict: bool) -> Row:
    """``left <= right`` (``>=``; strict or not) for an output and a number, or two different outputs."""
    sign = 1.0 if is_less else -1.0
    bound, terms = 0.0, []
    for (kind, value, _), coefficient in ((left, sign), (right, -sign)):
        if kind == "Y":
            terms.append((int(value), coefficient))
        else:
            bound -= coefficient * value
    return Row((), tuple(sorted(terms)), bound, strict)


def _at_most_zero(comparison: str, differences: list[Linear]) -> list[tuple[Linear, bool]]:
    """What must be <= 0 (< 0 where True) for the differences, left minus right, to compare as they should."""
    parts = []
    for difference in differences:
        if comparison != ">" and comparison != ">=":
            parts.append((difference, comparison == "<"))
        if comparison != "<" and comparison != "<=":
            parts.append((difference.times(-1), comparison == ">"))
    return parts
