"""Clauses to arrays: the last step from a formula to a ``Spec``.

Boxes are closed and rounded outward; what that loses (strictness, a last bit) is kept in the bounds for
points, so a point of float64 numbers satisfies the disjunct exactly when it satisfies the formula.  The one
exception is a row whose gathered coefficients fit float64 under no common factor: its entries are the
nearest.  (Rows could say the same as bounds for points, but for 12,288 inputs their matrix takes 1.2 GB.)

Equal things are shared between disjuncts (boxes, input coefficients, the zero view that stands for "no row
mentions an input"): a robustness property over 12,288 inputs and 200 classes is one box and 200 short rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from verifier.errors import SpecError
from verifier.vnnlib.distribute import Clause, TooManyDisjuncts, distribute
from verifier.vnnlib.formula import Bound, Conjunction, Formula, Row, Terms
from verifier.vnnlib.lexer import Words
from verifier.vnnlib.limits import ReadLimits
from verifier.vnnlib.rational import round_down, round_up
from verifier.vnnlib.spec import Array, Disjunct, LinearConstraints, Spec


class _Box(NamedTuple):
    """The part of a disjunct that bounds make, named as there."""

    lower: Array
    upper: Array
    point_lower: Array | None = None
    point_upper: Array | None = None


def normal_form(formula: Formula, words: Words, limits: ReadLimits) -> Spec:
    """Raises SpecError for inputs without bounds and for formulas too large."""
    path = words.path or None
    try:
        clauses = distribute(formula.conjunctions, limits)
    except TooManyDisjuncts:
        sentence = (
            f"the property has more than {limits.disjuncts} disjuncts when 'or' is distributed over 'and'; "
            "split it into several files, or raise the limit"
        )
        raise SpecError(sentence, path) from None
    cells = _Cells(limits.cells, path)
    boxes = _Boxes(formula, words, cells)
    tables = _Tables(formula.n_inputs, formula.n_outputs, cells)
    disjuncts: list[Disjunct] = []
    for clause in clauses:
        box = boxes.of(clause, len(disjuncts), len(clauses))
        rows = [row for part in clause for row in part.rows]
        disjuncts.append(Disjunct(box.lower, box.upper, tables.of(rows), box.point_lower, box.point_upper))
    return Spec(formula.n_inputs, formula.n_outputs, tuple(disjuncts), words.path)


class _Cells:
    """Counts float64 numbers against the limit."""

    def __init__(self, limit: int, path: str | None) -> None:
        self._limit = self._left = limit
        self._path = path

    def take(self, count: int) -> None:
        """Raises SpecError when the limit is passed."""
        self._left -= count
        if self._left < 0:
            sentence = (
                f"the normal form of this property takes more than {self._limit * 8 / 2**20:.0f} MiB; "
                "split it into several files, or raise the limit"
            )
            raise SpecError(sentence, self._path)


class _Boxes:
    """The boxes of clauses, equal ones made once."""

    def __init__(self, formula: Formula, words: Words, cells: _Cells) -> None:
        self._formula, self._words, self._cells = formula, words, cells
        self._by_parts: dict[tuple[int, ...], _Box] = {}
        self._by_content: dict[int, _Box] = {}
        self._sides: dict[int, list[tuple[NDArray[np.int64], Array]]] = {}

    def of(self, clause: Clause, position: int, n_clauses: int) -> _Box:
        """The box of a clause.  Raises SpecError where an input has no bound."""
        parts = [part for part in clause if part.bounded]
        key = tuple(id(part) for part in parts)
        box = self._by_parts.get(key)
        if box is None:
            box = self._intersection(parts)
            self._check_bounded(box, position, n_clauses)
            if any(part.has_extra for part in parts):
                box = box._replace(
                    point_lower=_point_bounds(box.lower, [(part.lower, part.above) for part in parts], False),
                    point_upper=_point_bounds(box.upper, [(part.upper, part.below) for part in parts], True),
                )
            box = self._by_parts[key] = self._shared(box)
        return box

    def _intersection(self, parts: Sequence[Conjunction]) -> _Box:
        lower = np.full(self._formula.n_inputs, -np.inf)
        upper = np.full(self._formula.n_inputs, np.inf)
        for part in parts:
            sides = self._sides.get(id(part))
            if sides is None:
                sides = [_side(part.lower, False, part.rounded), _side(part.upper, True, part.rounded)]
                self._sides[id(part)] = sides
            (low_at, low), (high_at, high) = sides
            lower[low_at] = np.maximum(lower[low_at], low)
            upper[high_at] = np.minimum(upper[high_at], high)
        return _Box(lower, upper)

    def _shared(self, box: _Box) -> _Box:
        """The equal box made before, or this one."""
        key = hash(tuple(None if side is None else side.tobytes() for side in box))
        found = self._by_content.get(key)
        if found is not None and all(map(_equal, found, box)):
            return found
        self._cells.take(sum(side.size for side in box if side is not None))
        self._by_content[key] = box
        return box

    def _check_bounded(self, box: _Box, position: int, n_clauses: int) -> None:
        for side, values, comparison in (("lower", box.lower, ">="), ("upper", box.upper, "<=")):
            if np.isfinite(values).all():
                continue
            missing = np.flatnonzero(np.isinf(values))
            name = f"X_{missing[0]}"
            others = f" (nor have {len(missing) - 1} other inputs)" if len(missing) > 1 else ""
            where = f" in disjunct {position + 1} of {n_clauses}" if n_clauses > 1 else ""
            sentence = f"{name} has no {side} bound{others}{where}; add (assert ({comparison} {name} <number>))"
            raise self._words.error(sentence, self._formula.declared[missing[0]])


def _side(bounds: Mapping[int, Bound], is_upper: bool, rounded: bool) -> tuple[NDArray[np.int64], Array]:
    """Inputs and float64 bounds, rounded outward, of one side of a conjunction."""
    at = np.fromiter(bounds.keys(), np.int64, len(bounds))
    values = list(bounds.values())
    if rounded:
        outward = round_up if is_upper else round_down
        values = [outward(value) if isinstance(value, Fraction) else value for value in values]
    return at, np.array(values, np.float64) + 0.0  # + 0.0: minus zero would hide that boxes are equal


def _point_bounds(
    closed: Array, parts: Sequence[tuple[Mapping[int, Bound], Mapping[int, Bound]]], is_upper: bool
) -> Array | None:
    """What float64 points have to keep on one side; None where that is what the box says.

    closed: that side of the box.  parts: all bounds on that side, and the strict ones among them.
    Inside a bound that is strict or no float64, the next float64 is the last that keeps it.
    """
    points = closed.copy()
    inward = -np.inf if is_upper else np.inf
    candidates = {index for bounds, strict in parts for index in (*strict, *_fractions(bounds))}
    for index in candidates:
        values = [bounds[index] for bounds, _ in parts if index in bounds]
        tightest = min(values) if is_upper else max(values)
        if isinstance(tightest, Fraction):
            points[index] = round_down(tightest) if is_upper else round_up(tightest)
        elif any(strict.get(index) == tightest for _, strict in parts):
            points[index] = np.nextafter(tightest, inward)
    return None if np.array_equal(points, closed) else points


def _fractions(bounds: Mapping[int, Bound]) -> list[int]:
    return [index for index, value in bounds.items() if isinstance(value, Fraction)]


def _equal(one: Array | None, two: Array | None) -> bool:
    return one is two or (one is not None and two is not None and np.array_equal(one, two))


class _Tables:
    """Rows to matrices; the input part is shared where it is equal."""

    def __init__(self, n_inputs: int, n_outputs: int, cells: _Cells) -> None:
        self._n_inputs, self._n_outputs, self._cells = n_inputs, n_outputs, cells
        self._inputs: dict[tuple[Terms, ...], Array] = {}
        self._views: dict[int, Array] = {}

    def of(self, rows: Sequence[Row]) -> LinearConstraints:
        self._cells.take(len(rows) * (self._n_outputs + 2))
        outputs = np.zeros((len(rows), self._n_outputs))
        for i, row in enumerate(rows):
            for index, coefficient in row.outputs:
                outputs[i, index] = coefficient
        bounds = np.array([row.bound for row in rows], np.float64)
        strict = np.array([row.strict for row in rows], np.bool_)
        return LinearConstraints(self._input_part(rows), outputs, bounds, strict)

    def _zeros(self, n_rows: int) -> Array:
        """What stands for the input part where no row mentions an input: a view of a single zero."""
        if n_rows not in self._views:
            self._views[n_rows] = np.broadcast_to(0.0, (n_rows, self._n_inputs))
        return self._views[n_rows]

    def _input_part(self, rows: Sequence[Row]) -> Array:
        if not any(row.inputs for row in rows):
            return self._zeros(len(rows))
        key = tuple(row.inputs for row in rows)
        inputs = self._inputs.get(key)
        if inputs is None:
            self._cells.take(len(rows) * self._n_inputs)
            inputs = np.zeros((len(rows), self._n_inputs))
            for i, terms in enumerate(key):
                for index, coefficient in terms:
                    inputs[i, index] = coefficient
            self._inputs[key] = inputs
        return inputs
