"""Short ways to write properties in tests."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from verifier.vnnlib import Disjunct, Spec, read_text


def declarations(n_inputs: int, n_outputs: int) -> str:
    names = [*(f"X_{i}" for i in range(n_inputs)), *(f"Y_{i}" for i in range(n_outputs))]
    return " ".join(f"(declare-const {name} Real)" for name in names)


def read_asserts(*formulas: str, n_inputs: int = 2, n_outputs: int = 2, box: float | None = 10.0) -> Spec:
    """The property of these formulas, every input also between -box and box."""
    bounds = [f"(<= {-box!r} X_{i} {box!r})" for i in range(n_inputs)] if box is not None else []
    asserts = "\n".join(f"(assert {formula})" for formula in (*bounds, *formulas))
    return read_text(f"{declarations(n_inputs, n_outputs)}\n{asserts}\n")


def only(spec: Spec) -> Disjunct:
    """The one disjunct of the spec."""
    (disjunct,) = spec.disjuncts
    return disjunct


def rows(disjunct: Disjunct) -> list[tuple[list[float], list[float], float, bool]]:
    """(input coefficients, output coefficients, bound, strict) row by row."""
    c = disjunct.constraints
    parts = (c.inputs.tolist(), c.outputs.tolist(), c.bounds.tolist(), c.strict.tolist())
    return list(zip(*parts, strict=True))


def holds(spec: Spec, x: list[float], y: list[float]) -> bool:
    return spec.holds_exactly(np.array(x, np.float64), np.array(y, np.float64))


def box_covers(spec: Spec, x: list[Fraction]) -> bool:
    """Whether the closed box of some disjunct contains a real point."""
    return any(
        all(
            Fraction(low) <= value <= Fraction(high)
            for low, value, high in zip(d.lower.tolist(), x, d.upper.tolist(), strict=True)
        )
        for d in spec.disjuncts
    )
