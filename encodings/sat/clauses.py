"""A growing CNF: variables from 1, clauses of literals, constants as literals.

``TRUE`` and ``FALSE`` stand for literals whose value is known; clauses that hold are dropped and false literals left
out, so encodings need no special cases at their edges.
"""

from __future__ import annotations

from collections.abc import Iterable

Literal = int
TRUE = 2**62
FALSE = -TRUE


class Clauses:
    """clauses: lists of non-zero literals, in the order in which they were added."""

    def __init__(self) -> None:
        self.variables = 0
        self.clauses: list[list[Literal]] = []

    def new(self) -> Literal:
        """A fresh variable."""
        self.variables += 1
        return self.variables

    def add(self, literals: Iterable[Literal]) -> None:
        """One clause; a literal may be TRUE or FALSE."""
        kept = []
        for literal in literals:
            if literal == TRUE:
                return
            if literal != FALSE:
                kept.append(literal)
        self.clauses.append(kept)

    def both(self, left: Literal, right: Literal) -> Literal:
        """A literal equivalent to ``left and right``."""
        if FALSE in (left, right):
            return FALSE
        if left in (TRUE, right):
            return right
        if right == TRUE:
            return left
        made = self.new()
        self.add((-made, left))
        self.add((-made, right))
        self.add((made, -left, -right))
        return made

    def either(self, left: Literal, right: Literal) -> Literal:
        """A literal equivalent to ``left or right``."""
        return -self.both(-left, -right)
