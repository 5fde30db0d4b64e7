"""Cutting-planes proofs: a checker for the ``pol`` and ``rup`` steps of VeriPB's format, version 1.1.

    l N          the formula's N-th constraint
    pol ...      a combination of earlier constraints and literals in reverse Polish notation:  +  addition,
                 k *  multiplication,  k d  division with rounding up,  s  saturation,  x w  weakening
    rup ...      a constraint that unit propagation derives: with its negation it runs into a conflict
    c N          constraint N has no solution: the end

Every step makes one constraint, numbered from 1.  Cutting planes (Cook, Coullard and Turan 1987) with these rules are
what pseudo-Boolean solvers reason with (Elffers, Gocht, McCreesh and Nordstrom 2020).  All numbers are int64; a proof
in which one would leave +-2**62 is refused, not rounded.

Unit propagation is in ``linear_propagation``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from verifier.encodings.sat.pseudo_boolean import Constraint
from verifier.proofs.linear_propagation import attach, derives, new_propagation

Integers = NDArray[np.int64]

NUMBER, LITERAL, ADD, MULTIPLY, DIVIDE, SATURATE, WEAKEN = range(7)
FORMULA, POL, RUP = range(3)
CONTRADICTION, MALFORMED, OVERFLOW, NOT_IMPLIED, EXHAUSTED = range(5)
DEPTH = 16
"""Sums that a ``pol`` step may have open at a time."""
LARGEST = 2.0**62


def check_cutting_planes(variables: int, formula: Sequence[Constraint], steps: Iterable[str]) -> str:
    """ "" when the steps derive a contradiction from the formula, otherwise the first thing wrong.

    steps: lines of a proof file.
    """
    kinds: list[int] = []
    pols: list[str] = []
    claims: list[Constraint] = []
    which: list[int] = []
    lines: list[int] = []
    end = 0
    for number, line in enumerate(steps, 1):
        word, _, rest = line.partition(" ")
        try:
            if word == "pol":
                kinds.append(POL)
                which.append(len(pols))
                pols.append(rest)
            elif word == "rup":
                kinds.append(RUP)
                which.append(len(claims))
                claims.append(_claim(rest, variables))
            elif word == "l":
                kinds.append(FORMULA)
                which.append(int(rest) - 1)
                if not 0 <= which[-1] < len(formula):
                    return f"step {number} names a constraint that the formula does not have: {line[:80]!r}"
            elif word == "c":
                end = int(rest)
                break
            elif word not in ("pseudo-Boolean", "*", ""):
                return f"step {number} is of a kind that is not checked: {line[:80]!r}"
        except ValueError:
            return f"step {number} is malformed: {line[:80]!r}"
        if len(kinds) > len(lines):
            lines.append(number)
    if not 1 <= end <= len(kinds):
        return "the steps do not end with a contradiction"
    text = np.frombuffer(("\n".join(pols) + "\n").encode("ascii", "replace"), np.uint8)
    tokens, values, starts = _tokens(text, len(pols))
    if len(starts) != len(pols) + 1:
        return "a pol step has a token that is no number, literal or operation"
    rows = [*formula, *claims]
    # The claims lie behind the formula.
    place = np.array([w + (len(formula) if k == RUP else 0) for k, w in zip(kinds, which, strict=True)], np.int64)
    sizes = np.cumsum([0, *(len(row.literals) for row in rows)])
    signed = np.array([literal for row in rows for literal in row.literals], np.int64)
    literals = 2 * np.abs(signed) + (signed < 0)
    coefficients = np.array([a for row in rows for a in row.coefficients], np.int64)
    degrees = np.array([row.degree for row in rows], np.int64)
    outcome, step = _run(
        variables,
        np.array(kinds, np.int64),
        place,
        end - 1,
        tokens,
        values,
        starts,
        sizes,
        literals,
        coefficients,
        degrees,
    )
    at = lines[min(step, len(lines) - 1)]
    return {
        CONTRADICTION: "",
        MALFORMED: f"step {at} is malformed or names a later step",
        OVERFLOW: f"step {at} has numbers too large for this checker",
        NOT_IMPLIED: f"step {at} does not follow",
        EXHAUSTED: "the last step is no contradiction",
    }[outcome]


def _claim(text: str, variables: int) -> Constraint:
    """Raises ValueError."""
    left, sign, right = text.partition(">=")
    words = left.split()
    found: dict[int, int] = {}
    for coefficient, name in zip(words[::2], words[1::2], strict=True):
        negative, variable = name.startswith("~"), int(name.lstrip("~").removeprefix("x"))
        if not 1 <= variable <= variables or variable in found or int(coefficient) <= 0:
            raise ValueError(text)
        found[variable] = -int(coefficient) if negative else int(coefficient)
    if not sign or any(abs(a) >= LARGEST for a in found.values()):
        raise ValueError(text)
    literals = tuple(v if a > 0 else -v for v, a in found.items())
    return Constraint(tuple(abs(a) for a in found.values()), literals, int(right.strip().removesuffix(";")))


@numba.njit(cache=True)
def _tokens(text, count):  # type: ignore[no-untyped-def]
    """Kinds and values of all tokens, and where each line's begin (lines + 1,); shorter where a token is none.

    A literal's value is 2 v, or 2 v + 1 negated.
    """
    kinds = np.empty(len(text) // 2 + 2, np.int8)
    values = np.empty(len(text) // 2 + 2, np.int64)
    starts = np.zeros(count + 1, np.int64)
    size, line, at = 0, 0, 0
    while at < len(text):
        sign = text[at]
        if sign == 10:
            line += 1
            starts[line] = size
            at += 1
            continue
        if sign == 32:
            at += 1
            continue
        kind, value = NUMBER, 0
        if sign == 43:
            kind = ADD
        elif sign == 42:
            kind = MULTIPLY
        elif sign == 100:
            kind = DIVIDE
        elif sign == 115:
            kind = SATURATE
        elif sign == 119:
            kind = WEAKEN
        if kind != NUMBER:
            at += 1
        else:
            negated = sign == 126
            at += negated
            if at < len(text) and text[at] == 120:
                kind = LITERAL
                at += 1
            elif negated:
                return kinds[:0], values[:0], starts[:0]
            begin = at
            while at < len(text) and 48 <= text[at] <= 57:
                value = 10 * value + text[at] - 48
                at += 1
            if at == begin or at - begin > 18:
                return kinds[:0], values[:0], starts[:0]
            if kind == LITERAL:
                value = 2 * value + negated
        if at < len(text) and text[at] != 32 and text[at] != 10:
            return kinds[:0], values[:0], starts[:0]
        kinds[size], values[size] = kind, value
        size += 1
    return kinds[:size], values[:size], starts


@numba.njit(cache=True)
def _grown(array, size):  # type: ignore[no-untyped-def]
    """The array, or a copy with room for ``size`` entries."""
    if size <= len(array):
        return array
    larger = np.zeros(2 * size, array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(cache=True)
def _add(sums, sides, slot, literals, coefficients, degree, factor):  # type: ignore[no-untyped-def]
    """Add ``factor`` times a constraint to a sum ``sum c_v x_v >= side``; whether all numbers stayed in range."""
    side = float(sides[slot]) + float(factor) * float(degree)
    if abs(side) >= LARGEST:
        return False
    sides[slot] += factor * degree
    for i in range(len(literals)):
        variable, negated = literals[i] >> 1, literals[i] & 1
        change = float(factor) * float(coefficients[i])
        if abs(float(sums[slot, variable])) + change >= LARGEST or abs(float(sides[slot])) + change >= LARGEST:
            return False
        amount = factor * coefficients[i]
        if negated:
            sums[slot, variable] -= amount
            sides[slot] -= amount
        else:
            sums[slot, variable] += amount
    return True


@numba.njit(cache=True)
def _degree(sums, sides, slot):  # type: ignore[no-untyped-def]
    """Of the sum written with positive coefficients; the second is False where it leaves the range."""
    degree = sides[slot]
    for variable in range(sums.shape[1]):
        coefficient = sums[slot, variable]
        if coefficient < 0:
            if float(degree) - float(coefficient) >= LARGEST:
                return degree, False
            degree -= coefficient
    return degree, True


@numba.njit(cache=True)
def _scale(sums, sides, slot, kind, number):  # type: ignore[no-untyped-def]
    """Multiply, divide, saturate by a number, or weaken a variable away; whether all stayed in range."""
    degree, fine = _degree(sums, sides, slot)
    if not fine:
        return False
    after = degree
    if kind == DIVIDE:
        after = -(-degree // number)
    elif kind == MULTIPLY:
        if abs(float(degree)) * float(number) >= LARGEST:
            return False
        after = degree * number
    elif kind == WEAKEN:
        after = degree - abs(sums[slot, number])
        sums[slot, number] = 0
    side = after
    for variable in range(sums.shape[1]):
        coefficient = sums[slot, variable]
        if coefficient == 0:
            continue
        size = abs(coefficient)
        if kind == DIVIDE:
            size = -(-size // number)
        elif kind == MULTIPLY:
            if float(size) * float(number) >= LARGEST:
                return False
            size = size * number
        elif kind == SATURATE:
            size = min(size, max(after, 0))
        sums[slot, variable] = size if coefficient > 0 else -size
        if coefficient < 0:
            if abs(float(side)) + float(size) >= LARGEST:
                return False
            side -= size
    sides[slot] = side
    return True


@numba.njit(cache=True)
def _operand(kind, value, factor, known, starts, literals, coefficients, degrees, sums, sides, slot):  # type: ignore[no-untyped-def]
    """Add a literal or an earlier constraint to a sum."""
    if kind == LITERAL:
        if not 1 <= value >> 1 < sums.shape[1]:
            return MALFORMED
        added = _add(sums, sides, slot, np.array([value]), np.ones(1, np.int64), 0, factor)
    else:
        if not 1 <= value <= known:
            return MALFORMED
        part = slice(starts[value - 1], starts[value])
        added = _add(sums, sides, slot, literals[part], coefficients[part], degrees[value - 1], factor)
    return CONTRADICTION if added else OVERFLOW


@numba.njit(cache=True)
def _combine(tokens, values, known, starts, literals, coefficients, degrees, sums, sides):  # type: ignore[no-untyped-def]
    """Evaluate a ``pol`` step into sum 0; CONTRADICTION here only says that all went well.

    The stack is made of sums, but for an operand on its top that waits to be added: most steps add one after
    the other to a single sum.
    """
    depth, waiting, operand, factor = 0, False, 0, 1
    kind_waiting = NUMBER
    at = 0
    while at <= len(tokens):
        last = at == len(tokens)
        kind = NUMBER if last else tokens[at]
        number = 0 if last else values[at]
        following = NUMBER if at + 1 >= len(tokens) else tokens[at + 1]
        is_operand = False
        if kind == NUMBER and not last and following in (MULTIPLY, DIVIDE):
            kind = following
            at += 1
        elif kind == LITERAL and following == WEAKEN:
            kind, number = WEAKEN, number >> 1
            at += 1
            if not 1 <= number < sums.shape[1]:
                return MALFORMED
        elif kind in (NUMBER, LITERAL):
            is_operand = True
        elif kind != ADD and kind != SATURATE:
            return MALFORMED
        at += 1
        if kind == DIVIDE and number < 1:
            return MALFORMED
        if waiting and kind == MULTIPLY:
            if float(factor) * float(number) >= LARGEST:
                return OVERFLOW
            factor *= number
            continue
        if waiting:
            if kind != ADD:
                if depth == DEPTH:
                    return MALFORMED
                sums[depth], sides[depth] = 0, 0
                depth += 1
            if depth == 0:
                return MALFORMED
            fault = _operand(
                kind_waiting, operand, factor, known, starts, literals, coefficients, degrees, sums, sides, depth - 1
            )
            if fault != CONTRADICTION:
                return fault
            waiting = False
        elif kind == ADD:
            if depth < 2:
                return MALFORMED
            depth -= 1
            if abs(float(sides[depth - 1])) + abs(float(sides[depth])) >= LARGEST:
                return OVERFLOW
            sides[depth - 1] += sides[depth]
            for variable in range(sums.shape[1]):
                if abs(float(sums[depth - 1, variable])) + abs(float(sums[depth, variable])) >= LARGEST:
                    return OVERFLOW
                sums[depth - 1, variable] += sums[depth, variable]
        if is_operand:
            waiting, kind_waiting, operand, factor = not last, kind, number, 1
        elif kind != ADD:
            if depth == 0:
                return MALFORMED
            if not _scale(sums, sides, depth - 1, kind, number):
                return OVERFLOW
    return CONTRADICTION if depth == 1 else MALFORMED


@numba.njit(cache=True)
def _run(variables, kinds, place, final, tokens, values, begins, sizes, given, weights, sides_given):  # type: ignore[no-untyped-def]
    """Check all steps up to ``final``; (outcome, step that it is about).

    given, weights, sides_given: the formula's constraints and the claims, row ``place[step]`` in ``sizes``.
    """
    starts, degrees = np.zeros(final + 2, np.int64), np.zeros(final + 1, np.int64)
    literals, coefficients = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    sums, sides = np.zeros((DEPTH, variables + 1), np.int64), np.zeros(DEPTH, np.int64)
    state = new_propagation(variables, final + 1)
    for step in range(final + 1):
        begin = starts[step]
        end = begin
        if kinds[step] == POL:
            part = slice(begins[place[step]], begins[place[step] + 1])
            fault = _combine(tokens[part], values[part], step, starts, literals, coefficients, degrees, sums, sides)
            if fault != CONTRADICTION:
                return fault, step
            degrees[step], fine = _degree(sums, sides, 0)
            if not fine:
                return OVERFLOW, step
            literals, coefficients = _grown(literals, begin + variables), _grown(coefficients, begin + variables)
            for variable in range(1, variables + 1):
                coefficient = sums[0, variable]
                if coefficient != 0:
                    literals[end] = 2 * variable + (coefficient < 0)
                    coefficients[end] = abs(coefficient)
                    end += 1
        else:
            part = slice(sizes[place[step]], sizes[place[step] + 1])
            end = begin + part.stop - part.start
            literals, coefficients = _grown(literals, end), _grown(coefficients, end)
            literals[begin:end], coefficients[begin:end] = given[part], weights[part]
            degrees[step] = sides_given[place[step]]
        starts[step + 1] = end
        room = -float(degrees[step])
        for at in range(begin, end):
            room += float(coefficients[at])
        if abs(room) >= LARGEST or abs(float(degrees[step])) >= LARGEST:
            return OVERFLOW, step
        if room < 0 and kinds[step] != RUP:
            return CONTRADICTION, step
        if kinds[step] == RUP and not derives(step, starts, literals, coefficients, degrees, state):
            return NOT_IMPLIED, step
        state, conflict = attach(step, kinds[step] == FORMULA, starts, literals, coefficients, degrees, state)
        if conflict:
            return CONTRADICTION, step
    return EXHAUSTED, final
