"""A property in plain sentences, for people who do not read VNN-LIB.

Robustness properties (one box, another class wins) are recognised and described as such, with the class and the
radius; everything else is described by its box and its constraints, as far as a reader would follow them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.report.layout import image_layout
from verifier.report.original import RELATIVE_SLACK
from verifier.vnnlib.spec import LinearConstraints, Spec

Array = NDArray[np.float64]

FEW_INPUTS = 8
FEW_DISJUNCTS = 4
FEW_ROWS = 6
FEW_TERMS = 6


@dataclass(frozen=True)
class Description:
    """sentences: what is asked, in order.  kind: "robustness" or "general".

    label, epsilon: the class that should win and the largest change of an input, for robustness.
    """

    sentences: tuple[str, ...]
    kind: str = "general"
    label: int | None = None
    epsilon: float | None = None


def describe(spec: Spec, shape: tuple[int, ...] = ()) -> Description:
    """The property in words.  shape: of the model's input, to call pictures by their name."""
    if not spec.disjuncts:
        return Description(("The property contradicts itself: no input can satisfy it.",))
    label = robustness_label(spec)
    if label is not None:
        return _robustness(spec, label, shape)
    first = spec.disjuncts[0]
    boxes = {(d.lower.tobytes(), d.upper.tobytes()) for d in spec.disjuncts}
    if len(boxes) == 1:
        region = _box(first.lower, first.upper)
        looked_for = [_conditions(d.constraints) for d in spec.disjuncts[:FEW_DISJUNCTS]]
        rest = len(spec.disjuncts) - len(looked_for)
        more = f", or one of {rest} further alternatives" if rest else ""
        return Description((region, f"Looked for: an input for which {', or '.join(looked_for)}{more}."))
    sentences = [
        f"The property has {len(spec.disjuncts)} parts over {len(boxes)} regions of the {spec.n_inputs} inputs; "
        "any part that holds satisfies it.",
        f"The first: {_lower_first(_box(first.lower, first.upper))}",
        f"Looked for there: an input for which {_conditions(first.constraints)}.",
    ]
    return Description(tuple(sentences))


def robustness_label(spec: Spec) -> int | None:
    """The class that wins unless the property holds, where the property is "another class wins in one box"."""
    first = spec.disjuncts[0]
    labels, others = set(), set()
    for disjunct in spec.disjuncts:
        pair = _two_outputs(disjunct.constraints)
        same_box = np.array_equal(disjunct.lower, first.lower) and np.array_equal(disjunct.upper, first.upper)
        if pair is None or not same_box:
            return None
        labels.add(pair[0])
        others.add(pair[1])
    return labels.pop() if len(labels) == 1 and len(others) == len(spec.disjuncts) == spec.n_outputs - 1 else None


def _two_outputs(constraints: LinearConstraints) -> tuple[int, int] | None:
    """(a, b) where the only row says ``Y_a <= Y_b``."""
    if len(constraints) != 1 or constraints.mentions_inputs or constraints.bounds[0] != 0:
        return None
    row = constraints.outputs[0]
    named = np.flatnonzero(row)
    if len(named) != 2 or row[named].sum() != 0:
        return None
    larger, smaller = (int(named[np.argmax(row[named])]), int(named[np.argmin(row[named])]))
    return larger, smaller


def _robustness(spec: Spec, label: int, shape: tuple[int, ...]) -> Description:
    box = spec.disjuncts[0]
    widths = box.upper - box.lower
    what, each = ("picture", "Every pixel value") if image_layout(shape) else ("input", "Every input")
    if not widths.any():
        region = f"The {what} is fixed: nothing may change."
        return Description((region, f"Looked for: that a class other than {label} wins."), "robustness", label, 0.0)
    epsilon = float(widths.max()) / 2
    # Sides that the range of the inputs cut off are narrower, but never narrower than epsilon.
    free = widths[widths >= widths.max() * (1 - RELATIVE_SLACK)]
    frozen = int((widths == 0).sum())
    smaller = widths[(widths > 0) & (widths < epsilon * (1 - RELATIVE_SLACK))]
    amount = f"by up to {epsilon:.4g}"
    if smaller.size:
        amount = f"by up to {float(smaller.min()) / 2:.4g} to {epsilon:.4g}, depending on the input,"
    within = f" and stays within [{box.lower.min():.4g}, {box.upper.max():.4g}]" if len(free) < len(widths) else ""
    region = f"{each} may differ from the original {amount}{within}."
    if frozen:
        region += f" {frozen} of the {spec.n_inputs} inputs are fixed."
    target = (
        f"a {what} in that range for which another class than {label} scores at least as high as class {label}, "
        f"of {spec.n_outputs} classes"
    )
    return Description((region, f"Looked for: {target}."), "robustness", label, epsilon)


def _box(lower: Array, upper: Array) -> str:
    if len(lower) > FEW_INPUTS:
        fixed = int((lower == upper).sum())
        text = f"The {len(lower)} inputs lie in ranges of width {_span(upper - lower)}, between {lower.min():.4g} and "
        text += f"{upper.max():.4g}."
        return text + (f" {fixed} of them are fixed." if fixed else "")
    parts = [
        f"X_{i} is {low:.6g}" if low == high else f"X_{i} lies between {low:.6g} and {high:.6g}"
        for i, (low, high) in enumerate(zip(lower, upper, strict=True))
    ]
    return f"{_listed(parts)}."


def _span(widths: Array) -> str:
    low, high = float(widths.min()), float(widths.max())
    return f"{high:.4g}" if math.isclose(low, high, rel_tol=1e-4) else f"{low:.4g} to {high:.4g}"


def _conditions(constraints: LinearConstraints) -> str:
    """The rows of one disjunct, as a clause."""
    if not len(constraints):
        return "nothing further is required"
    extreme = _extreme_output(constraints)
    if extreme:
        return extreme
    rows = [_row(constraints, row) for row in range(min(len(constraints), FEW_ROWS))]
    if len(constraints) > FEW_ROWS:
        rows.append(f"{len(constraints) - FEW_ROWS} more conditions hold")
    return _listed(rows)


def _extreme_output(constraints: LinearConstraints) -> str:
    """The common case that one output is compared with all others."""
    count = constraints.outputs.shape[1]
    pairs = [_two_outputs(_single(constraints, row)) for row in range(len(constraints))]
    if len(pairs) != count - 1 or len(pairs) < 2 or None in pairs:
        return ""
    smaller, larger = ({pair[side] for pair in pairs if pair} for side in (0, 1))
    if len(smaller) == 1 and len(larger) == count - 1:
        return f"Y_{smaller.pop()} is the smallest of the {count} outputs"
    if len(larger) == 1 and len(smaller) == count - 1:
        return f"Y_{larger.pop()} is the largest of the {count} outputs"
    return ""


def _single(constraints: LinearConstraints, row: int) -> LinearConstraints:
    rows = slice(row, row + 1)
    inputs = constraints.inputs[rows]
    return LinearConstraints(inputs, constraints.outputs[rows], constraints.bounds[rows], constraints.strict[rows])


def _row(constraints: LinearConstraints, row: int) -> str:
    single = _single(constraints, row)
    strict, bound = bool(single.strict[0]), float(single.bounds[0])
    pair = _two_outputs(single)
    if pair is not None:
        return f"Y_{pair[0]} is {'below' if strict else 'at most'} Y_{pair[1]}"
    terms = [("X", single.inputs[0])] if single.mentions_inputs else []
    named = [
        (float(values[i]), f"{letter}_{i}")
        for letter, values in [*terms, ("Y", single.outputs[0])]
        for i in np.flatnonzero(values)
    ]
    if len(named) == 1:
        factor, name = named[0]
        low = "above" if strict else "at least"
        high = "below" if strict else "at most"
        return f"{name} is {high if factor > 0 else low} {bound / factor + 0.0:.6g}"
    if len(named) > FEW_TERMS:
        return f"a linear combination of {len(named)} variables is {'below' if strict else 'at most'} {bound:.6g}"
    terms_text = [f"{'' if abs(factor) == 1 else f'{abs(factor):.6g} '}{name}" for factor, name in named]
    signs = ["-" if named[0][0] < 0 else "", *(" - " if factor < 0 else " + " for factor, _ in named[1:])]
    text = "".join(sign + term for sign, term in zip(signs, terms_text, strict=True))
    return f"{text} is {'below' if strict else 'at most'} {bound:.6g}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lower_first(text: str) -> str:
    return text if text.startswith("X_") else text[:1].lower() + text[1:]
