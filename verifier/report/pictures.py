"""A witness to look at: one PNG with the original, the counterexample and what changed.

What the input is decides the drawing: images become three panels (``triple``), everything else bars between
the bounds (``bars``), so that asking for a picture always yields one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verifier.report.bars import draw_bars
from verifier.report.layout import image_layout
from verifier.report.triple import ExtraPanel, draw_triple

Array = NDArray[np.float64]


def save_triple(
    path: str | Path,
    original: Array,
    counterexample: Array,
    shape: tuple[int, ...],
    *,
    title: Sequence[str] = (),
    original_lines: Sequence[str] = (),
    counterexample_lines: Sequence[str] = (),
    lower: Array | None = None,
    upper: Array | None = None,
    extras: Sequence[ExtraPanel] = (),
) -> None:
    """Write the picture as PNG.

    original, counterexample: (n_inputs,), C order.  shape: of the model's input, leading 1 or not.
    title, original_lines, counterexample_lines: text, long lines are folded; see ``score_lines``.
    lower, upper: (n_inputs,), the box; used where the input is no picture, by default what the points span.
    extras: more panels, for images only.
    Raises OutputPathError when the file cannot be written.
    """
    before, after = (np.asarray(point, dtype=np.float64).ravel() for point in (original, counterexample))
    layout = image_layout(shape)
    if layout is not None:
        canvas = draw_triple(before, after, layout, title, original_lines, counterexample_lines, extras)
    else:
        least = np.minimum(before, after) if lower is None else lower
        most = np.maximum(before, after) if upper is None else upper
        canvas = draw_bars(before, after, least, most, title, original_lines, counterexample_lines)
    canvas.save(path)


def score_lines(outputs: Array, others: int = 2) -> tuple[str, ...]:
    """Text for a caption: the class with the largest output, its score, and the ``others`` that follow."""
    if outputs.size == 1:
        return (f"output {outputs[0]:.6g}",)
    order = np.argsort(-outputs, kind="stable")
    lines = [f"class {order[0]}, score {outputs[order[0]]:.6g}"]
    if others > 0:
        lines.append("then " + ", ".join(f"class {i}: {outputs[i]:.6g}" for i in order[1 : others + 1]))
    return tuple(lines)
