"""Counting true literals in CNF: a literal equivalent to ``at least t of these are true``.

Four forms; in all of them every auxiliary variable is a function of the inputs, so a gate's bit *is* one of the
outputs and no reifying clauses are needed.  They differ in size and in how they propagate:

* ``sequential``: the counter of Sinz (CP 2005); s(i, j) says that j of the first i literals hold.  n t clauses.
* ``totalizer``: Bailleux and Boufkhad (CP 2003), a tree of unary sums, cut off above t.
* ``network``: cardinality networks of Asin, Nieuwenhuis, Oliveras and Rodriguez-Carbonell (2011), in their plain form:
  odd-even merge sort, n log^2 n comparators.
* ``modulo``: the k-modulo totalizer of Morgado, Ignatiev and Marques-Silva (2014) after Ogawa et al. (2013): unary
  quotient and remainder by p, about sqrt(n); n sqrt(n) clauses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from verifier.encodings.sat.clauses import FALSE, TRUE, Clauses, Literal

Counter = Callable[[Clauses, Sequence[Literal], int], Literal]


def sequential(cnf: Clauses, literals: Sequence[Literal], at_least: int) -> Literal:
    """Sinz's counter."""
    if (trivial := _trivial(literals, at_least)) is not None:
        return trivial
    # row[j]: at least j + 1 of the literals so far
    row: list[Literal] = [FALSE] * at_least
    for literal in literals:
        row = [cnf.either(row[j], cnf.both(literal, row[j - 1] if j else TRUE)) for j in range(at_least)]
    return row[-1]


def totalizer(cnf: Clauses, literals: Sequence[Literal], at_least: int) -> Literal:
    """A tree of unary sums."""
    if (trivial := _trivial(literals, at_least)) is not None:
        return trivial
    return _unary_sum(cnf, list(literals), at_least)[at_least - 1]


def network(cnf: Clauses, literals: Sequence[Literal], at_least: int) -> Literal:
    """Odd-even merge sort, padded with FALSE to a power of two."""
    if (trivial := _trivial(literals, at_least)) is not None:
        return trivial
    width = 1 << (len(literals) - 1).bit_length()
    return _sorted(cnf, [*literals, *[FALSE] * (width - len(literals))])[at_least - 1]


def modulo(cnf: Clauses, literals: Sequence[Literal], at_least: int) -> Literal:
    """Quotients and remainders."""
    if (trivial := _trivial(literals, at_least)) is not None:
        return trivial
    p = max(2, math.isqrt(len(literals)))
    quotient, remainder = _modulo_sum(cnf, list(literals), p)
    more, rest = divmod(at_least, p)
    above = quotient[more] if more < len(quotient) else FALSE
    equal = TRUE if more == 0 else quotient[more - 1] if more <= len(quotient) else FALSE
    if rest == 0:
        return equal
    return cnf.either(above, cnf.both(equal, remainder[rest - 1] if rest <= len(remainder) else FALSE))


COUNTERS: dict[str, Counter] = {
    "sequential": sequential,
    "totalizer": totalizer,
    "network": network,
    "modulo": modulo,
}


def _trivial(literals: Sequence[Literal], at_least: int) -> Literal | None:
    if at_least <= 0:
        return TRUE
    return FALSE if at_least > len(literals) else None


def _unary_sum(cnf: Clauses, literals: list[Literal], most: int) -> list[Literal]:
    """Outputs j: at least j + 1 of the literals, for j below ``most``."""
    if len(literals) == 1:
        return literals
    half = len(literals) // 2
    left, right = _unary_sum(cnf, literals[:half], most), _unary_sum(cnf, literals[half:], most)
    return _merged(cnf, left, right, min(most, len(literals)))


def _merged(cnf: Clauses, left: list[Literal], right: list[Literal], most: int) -> list[Literal]:
    """The unary sum of two unary numbers, exact below ``most`` (both sides may be cut off there)."""
    outputs = [cnf.new() for _ in range(most)]
    for i in range(len(left) + 1):
        for j in range(len(right) + 1):
            at_least_i = left[i - 1] if i else TRUE
            at_least_j = right[j - 1] if j else TRUE
            if 0 < i + j <= most:
                cnf.add((-at_least_i, -at_least_j, outputs[i + j - 1]))
            if i + j < most:
                not_i = left[i] if i < len(left) else FALSE
                not_j = right[j] if j < len(right) else FALSE
                cnf.add((not_i, not_j, -outputs[i + j]))
            elif i < most and j < most and i + j > most:
                cnf.add((-at_least_i, -at_least_j, outputs[most - 1]))
    return outputs


def _sorted(cnf: Clauses, literals: list[Literal]) -> list[Literal]:
    """Descending: output j is true when more than j inputs are."""
    if len(literals) == 1:
        return literals
    half = len(literals) // 2
    return _odd_even(cnf, _sorted(cnf, literals[:half]), _sorted(cnf, literals[half:]))


def _odd_even(cnf: Clauses, left: list[Literal], right: list[Literal]) -> list[Literal]:
    if len(left) == 1:
        return [cnf.either(left[0], right[0]), cnf.both(left[0], right[0])]
    even = _odd_even(cnf, left[::2], right[::2])
    odd = _odd_even(cnf, left[1::2], right[1::2])
    inner = [
        compared
        for low, high in zip(odd[:-1], even[1:], strict=True)
        for compared in (cnf.either(low, high), cnf.both(low, high))
    ]
    return [even[0], *inner, odd[-1]]


def _modulo_sum(cnf: Clauses, literals: list[Literal], p: int) -> tuple[list[Literal], list[Literal]]:
    """quotient (unary, any length) and remainder (unary, p - 1 outputs at most) of the number of true literals."""
    if len(literals) == 1:
        return [], literals
    half = len(literals) // 2
    left_quotient, left = _modulo_sum(cnf, literals[:half], p)
    right_quotient, right = _modulo_sum(cnf, literals[half:], p)
    total = _merged(cnf, left, right, len(left) + len(right))
    carry = total[p - 1] if len(total) >= p else FALSE
    remainder = []
    for j in range(min(p - 1, len(total))):
        wrapped = total[p + j] if p + j < len(total) else FALSE
        # j + 1 <= total < p, or total >= p + j + 1
        remainder.append(cnf.either(wrapped, cnf.both(total[j], -carry)))
    quotients = [part for part in (left_quotient, right_quotient, [carry] if carry != FALSE else []) if part]
    quotient: list[Literal] = []
    for part in quotients:
        quotient = part if not quotient else _merged(cnf, quotient, part, len(quotient) + len(part))
    return quotient, remainder
