"""Steps that make the property of a case smaller or its numbers coarser; the network stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from fuzz.case import Array, Case, constraints, spec_of
from verifier.vnnlib.spec import Disjunct

GRIDS = (1.0, 1 / 8, 1 / 1024)
"""Numbers are rounded to multiples of these: nested, and powers of two, which float32 holds."""


def _with_disjuncts(case: Case, disjuncts: list[Disjunct]) -> Case:
    return Case(case.network, spec_of(case.network, tuple(disjuncts)))


def _each_disjunct(case: Case, change: Callable[[Disjunct], Disjunct]) -> Case:
    return _with_disjuncts(case, [change(disjunct) for disjunct in case.spec.disjuncts])


def fewer_disjuncts(case: Case) -> Iterator[Case]:
    disjuncts = list(case.spec.disjuncts)
    for index in range(len(disjuncts)):
        if len(disjuncts) > 1:
            yield _with_disjuncts(case, disjuncts[:index] + disjuncts[index + 1 :])


def fewer_rows(case: Case) -> Iterator[Case]:
    disjuncts = list(case.spec.disjuncts)
    for index, disjunct in enumerate(disjuncts):
        rows = disjunct.constraints
        for row in range(len(rows) if len(rows) > 1 else 0):
            kept = constraints(*(np.delete(part, row, axis=0) for part in
                                 (rows.inputs, rows.outputs, rows.bounds, rows.strict)))  # fmt: skip
            changed = dataclasses.replace(disjunct, constraints=kept)
            yield _with_disjuncts(case, [*disjuncts[:index], changed, *disjuncts[index + 1 :]])


def points(case: Case) -> Iterator[Case]:
    """One input at a time at a single value, then halves of its side."""
    for i in range(case.network.n_inputs):
        ends = [(d.lower[i], d.upper[i]) for d in case.spec.disjuncts]
        if all(low == high for low, high in ends):
            continue
        for share in ((0, 0), (1, 1), (0.5, 0.5)):
            yield _each_disjunct(case, partial(_narrowed, i=i, start=share[0], end=share[1]))


def _narrowed(disjunct: Disjunct, i: int, start: float, end: float) -> Disjunct:
    low, high = disjunct.lower[i], disjunct.upper[i]
    lower, upper = disjunct.lower.copy(), disjunct.upper.copy()
    lower[i], upper[i] = np.float32(low + start * (high - low)), np.float32(low + end * (high - low))
    return dataclasses.replace(disjunct, lower=lower, upper=upper)


def coarser_spec(case: Case) -> Iterator[Case]:
    for grid in GRIDS:
        for part in ("box", "bounds", "coefficients", "strict"):
            rounded = _each_disjunct(case, partial(_rounded, part=part, grid=grid))
            if not _same_spec(case, rounded):
                yield rounded


def _rounded(disjunct: Disjunct, part: str, grid: float) -> Disjunct:
    rows = disjunct.constraints
    if part == "box":
        lower, upper = _on_grid(disjunct.lower, grid), _on_grid(disjunct.upper, grid)
        return dataclasses.replace(disjunct, lower=lower, upper=upper)
    changed = constraints(
        _on_grid(rows.inputs, grid) if part == "coefficients" else rows.inputs,
        _on_grid(rows.outputs, grid) if part == "coefficients" else rows.outputs,
        _on_grid(rows.bounds, grid) if part == "bounds" else rows.bounds,
        rows.strict & (part != "strict"),
    )
    return dataclasses.replace(disjunct, constraints=changed)


def _on_grid(values: Array, grid: float) -> Array:
    return np.round(values / grid) * grid + 0.0


def _same_spec(one: Case, other: Case) -> bool:
    def parts(case: Case) -> Iterator[Array]:
        for d in case.spec.disjuncts:
            rows = d.constraints
            yield from (d.lower, d.upper, rows.inputs, rows.outputs, rows.bounds, rows.strict)

    return all(np.array_equal(a, b) for a, b in zip(parts(one), parts(other), strict=True))
