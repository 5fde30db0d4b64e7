"""``or`` distributed over ``and``: the boolean tree to a list of clauses.

A clause is a tuple of conjunctions that hold together; their choices have been dealt with.  Clauses share
conjunctions, so the box of 12,288 inputs that two hundred disjuncts have in common exists once.

The size of the result is exponential in the worst case.  Three things keep it small where it can be small:
parts that leave no box are dropped as soon as they are put together; every part is held against the bounds of
the whole property first; and a choice with one possible option is no choice, it joins its conjunction before
anything is multiplied.  What still grows past the limits is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from verifier.vnnlib.formula import Conjunction
from verifier.vnnlib.limits import ReadLimits

Clause = tuple[Conjunction, ...]

_WORK_PER_DISJUNCT = 20
"""Conjunctions looked at while combining, in all, per disjunct allowed: bounds the time (some seconds)."""


class TooManyDisjuncts(Exception):  # noqa: N818 - a signal to the caller, who knows the file
    """The limit would be passed."""


def distribute(conjunctions: Sequence[Conjunction], limits: ReadLimits) -> list[Clause]:
    """The clauses of the first conjunction, in the order of the text; the tree is used up.

    conjunctions: every one before those inside it; so backwards, what is inside is done when needed.
    Raises TooManyDisjuncts.
    """
    root = conjunctions[0]
    spend = _budget(_WORK_PER_DISJUNCT * limits.disjuncts)
    done: dict[int, list[Clause]] = {}
    for conjunction in reversed(conjunctions):
        options = [_options(choice.options, done, limits) for choice in conjunction.choices]
        conjunction.choices.clear()
        context = None if conjunction is root else root
        done[id(conjunction)] = _combined(conjunction, options, context, limits, spend)
    return done[id(root)]


def _options(options: Sequence[Conjunction], done: dict[int, list[Clause]], limits: ReadLimits) -> list[Clause]:
    """The clauses of all options of a choice."""
    clauses: list[Clause] = []
    for option in options:
        clauses.extend(done.pop(id(option)))
        if len(clauses) > limits.disjuncts:
            raise TooManyDisjuncts
    return clauses


def _combined(
    conjunction: Conjunction,
    choices: Sequence[list[Clause]],
    context: Conjunction | None,
    limits: ReadLimits,
    spend: Callable[[int], None],
) -> list[Clause]:
    """The clauses of a conjunction whose choices have these clauses."""
    if not all(choices):
        return []
    for clauses in choices:
        if len(clauses) == 1:
            for part in clauses[0]:
                conjunction.absorb(part)
    if conjunction.contradicts_itself or (context is not None and conjunction.excludes(context)):
        return []
    says_something = conjunction.bounded or conjunction.rows
    combined: list[Clause] = [(conjunction,) if says_something else ()]
    for clauses in choices:
        if len(clauses) > 1:
            combined = clauses if combined == [()] else _product(combined, clauses, limits, spend)
    return combined


def _product(left: list[Clause], right: list[Clause], limits: ReadLimits, spend: Callable[[int], None]) -> list[Clause]:
    """Every clause of ``left`` with every clause of ``right``, where a box is left."""
    bounded_right = [[part for part in clause if part.bounded] for clause in right]
    size_right = len(right) + sum(map(len, right))
    product: list[Clause] = []
    for one in left:
        spend(size_right + len(right) * len(one))
        bounded = [part for part in one if part.bounded]
        for two, bounded_two in zip(right, bounded_right, strict=True):
            if not any(a.excludes(b) for a in bounded for b in bounded_two):
                product.append(one + two)
        if len(product) > limits.disjuncts:
            raise TooManyDisjuncts
    return product


def _budget(total: int) -> Callable[[int], None]:
    """A function that takes from ``total`` and raises TooManyDisjuncts when it is used up."""
    left = total

    def spend(amount: int) -> None:
        nonlocal left
        left -= amount
        if left < 0:
            raise TooManyDisjuncts

    return spend
