"""``Spec`` back to VNN-LIB 1.0 text that reads as the same property.

Numbers are written with ``repr``, the shortest decimals that read back as the same float64.  A spec that was
read comes back with equal arrays.  One built in memory comes back equal at every point; rows that are bounds
on one input move into the box.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from verifier.errors import OutputPathError
from verifier.vnnlib.spec import Array, Disjunct, Spec


def write(spec: Spec, path: str | Path) -> None:
    """Writes ``to_text(spec)``, gzip if the name ends in ``.gz``.  Raises OutputPathError."""
    path = Path(path)
    contents = to_text(spec).encode()
    if path.suffix == ".gz":
        contents = gzip.compress(contents, mtime=0)  # no time stamp: equal specs give equal files
    try:
        path.write_bytes(contents)
    except OSError as error:
        raise OutputPathError(f"{path}: cannot write the property here: {error.strerror or error}") from None


def to_text(spec: Spec) -> str:
    """VNN-LIB 1.0 text.

    A box that all disjuncts share is written flat, one assert per bound, as the competition's files are.
    """
    lines = [f"(declare-const X_{i} Real)" for i in range(spec.n_inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(spec.n_outputs)]
    lines.append("")
    lines += _assertions(spec.disjuncts)
    return "\n".join(lines) + "\n"


def _assertions(disjuncts: tuple[Disjunct, ...]) -> Iterator[str]:
    if not disjuncts:
        yield "(assert false)"
        return
    first = disjuncts[0]
    if all(_same_box(first, disjunct) for disjunct in disjuncts):
        yield from (f"(assert {bound})" for bound in _bounds(first))
        if len(disjuncts) == 1:
            yield from (f"(assert {row})" for row in _rows(first))
        else:
            yield _one_of(" ".join(_rows(disjunct)) or "true" for disjunct in disjuncts)
    else:
        yield _one_of(" ".join([*_bounds(disjunct), *_rows(disjunct)]) for disjunct in disjuncts)


def _one_of(options: Iterator[str]) -> str:
    return "(assert (or\n" + "".join(f"    (and {option})\n" for option in options) + "))"


def _same_box(one: Disjunct, two: Disjunct) -> bool:
    return all(
        mine is theirs or (mine is not None and theirs is not None and np.array_equal(mine, theirs))
        for mine, theirs in (
            (one.lower, two.lower),
            (one.upper, two.upper),
            (one.point_lower, two.point_lower),
            (one.point_upper, two.point_upper),
        )
    )


def _bounds(disjunct: Disjunct) -> Iterator[str]:
    """The box; the bounds for points as strict ones, which they are where they were read from a file."""
    lower, upper = disjunct.lower, disjunct.upper
    point_lower = lower if disjunct.point_lower is None else disjunct.point_lower
    point_upper = upper if disjunct.point_upper is None else disjunct.point_upper
    lows = zip(lower.tolist(), point_lower.tolist(), strict=True)
    highs = zip(upper.tolist(), point_upper.tolist(), strict=True)
    for i, ((low, point_low), (high, point_high)) in enumerate(zip(lows, highs, strict=True)):
        yield _bound(f"X_{i}", ">", low, point_low, math.nextafter(low, math.inf))
        yield _bound(f"X_{i}", "<", high, point_high, math.nextafter(high, -math.inf))


def _bound(name: str, comparison: str, closed: float, point: float, next_inside: float) -> str:
    if point == next_inside:
        return f"({comparison} {name} {closed!r})"
    return f"({comparison}= {name} {point!r})"


def _rows(disjunct: Disjunct) -> Iterator[str]:
    constraints = disjunct.constraints
    for row in range(len(constraints)):
        terms = _terms("Y", constraints.outputs[row])
        if constraints.mentions_inputs:
            terms = _terms("X", constraints.inputs[row]) + terms
        yield _row(terms, float(constraints.bounds[row]), "<" if constraints.strict[row] else "<=")


def _terms(letter: str, coefficients: Array) -> list[tuple[str, float]]:
    return [(f"{letter}_{i}", float(coefficients[i])) for i in np.flatnonzero(coefficients)]


def _row(terms: list[tuple[str, float]], bound: float, comparison: str) -> str:
    """``terms <= bound``, as a person would write it."""
    names = [name for name, _ in terms]
    coefficients = [coefficient for _, coefficient in terms]
    if coefficients == [-1.0]:
        return f"({comparison.replace('<', '>')} {names[0]} {0.0 - bound!r})"
    if bound == 0 and coefficients == [1.0, -1.0]:
        return f"({comparison} {names[0]} {names[1]})"
    if bound == 0 and coefficients == [-1.0, 1.0]:
        return f"({comparison.replace('<', '>')} {names[0]} {names[1]})"
    written = [name if factor == 1.0 else f"(* {factor!r} {name})" for name, factor in terms]
    total = f"(+ {' '.join(written)})" if len(written) > 1 else "".join(written) or "0.0"
    return f"({comparison} {total} {bound!r})"
