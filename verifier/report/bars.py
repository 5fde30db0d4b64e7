"""A counterexample whose input is no picture: one line per input, from its lower to its upper bound.

Every input has a track of the same length, whatever its width, with a ring where the original lies and a
dot at the counterexample, and the four numbers beside it.  Of many inputs those are shown that moved most,
measured in widths of their own range; inputs the property fixes are left out first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from verifier.report.canvas import (
    BLUE,
    FAINT,
    HEAD_SIZE,
    INK,
    MARGIN,
    PAPER,
    RED,
    RULE,
    TEXT_SIZE,
    Canvas,
    fold,
    line_height,
    text_width,
    title_height,
)

Array = NDArray[np.float64]

MOST_ROWS = 24
ROW_HEIGHT = 30
TRACK = 420
TRACK_THICKNESS = 6
DOT = 6
NUMBER_WIDTH = 96
GAP = 14


def draw_bars(
    original: Array,
    counterexample: Array,
    lower: Array,
    upper: Array,
    title: Sequence[str],
    original_lines: Sequence[str],
    counterexample_lines: Sequence[str],
) -> Canvas:
    """The picture; all arrays (n_inputs,), original and counterexample inside lower and upper."""
    shown = rows_to_show(original, counterexample, lower, upper)
    names = [f"X_{i}" for i in shown]
    name_width = max(text_width(name) for name in names) + GAP
    width = name_width + NUMBER_WIDTH + TRACK + 2 * GAP + 3 * NUMBER_WIDTH
    half = width // 2 - 2 * DOT - GAP
    legends = (fold(original_lines, half), fold(counterexample_lines, half))
    note = "" if len(shown) == len(original) else f"the {len(shown)} of {len(original)} inputs that moved most"

    legend_top = MARGIN + title_height(title, width)
    columns_top = legend_top + line_height(HEAD_SIZE) + max(len(lines) for lines in legends) * line_height() + 18
    rows_top = columns_top + line_height() + 8
    bottom = rows_top + len(shown) * ROW_HEIGHT + (line_height() + 4 if note else 0)
    canvas = Canvas(width + 2 * MARGIN, bottom + MARGIN)
    canvas.title(title, width)

    first = "centre of the box" if np.allclose(original, (lower + upper) / 2) else "original"
    for left, words, lines, mark in (
        (MARGIN, first, legends[0], _ring),
        (MARGIN + width // 2, "counterexample", legends[1], _dot),
    ):
        mark(canvas, left + DOT, legend_top + HEAD_SIZE // 2 + 1)
        canvas.text(left + 2 * DOT + GAP, legend_top, words, HEAD_SIZE)
        for i, line in enumerate(lines):
            y = legend_top + line_height(HEAD_SIZE) + i * line_height()
            canvas.text(left + 2 * DOT + GAP, y, line, TEXT_SIZE, FAINT)

    track_left = MARGIN + name_width + NUMBER_WIDTH + GAP
    track_right = track_left + TRACK
    columns = (
        (track_left - GAP, "r", "lower", lower),
        (track_right + GAP, "l", "upper", upper),
        (track_right + GAP + 2 * NUMBER_WIDTH, "r", first.split()[0], original),
        (track_right + GAP + 3 * NUMBER_WIDTH, "r", "counterex.", counterexample),
    )
    for x, side, words, _ in columns:
        canvas.text(x, columns_top, words, TEXT_SIZE, FAINT, side + "a")
    canvas.draw.line((MARGIN, rows_top - 4, MARGIN + width, rows_top - 4), fill=RULE)

    for row, (i, name) in enumerate(zip(shown, names, strict=True)):
        y = rows_top + row * ROW_HEIGHT + ROW_HEIGHT // 2
        canvas.text(MARGIN, y, name, TEXT_SIZE, INK, "lm")
        _track(
            canvas,
            track_left,
            y,
            *(_place(point[i], lower[i], upper[i]) for point in (original, counterexample)),
        )
        for x, side, _, values in columns:
            canvas.text(x, y, f"{values[i]:.6g}", TEXT_SIZE, INK, side + "m")
    if note:
        canvas.text(MARGIN, rows_top + len(shown) * ROW_HEIGHT + 4, note, TEXT_SIZE, FAINT)
    return canvas


def rows_to_show(original: Array, counterexample: Array, lower: Array, upper: Array) -> list[int]:
    """Indices of the inputs drawn, ascending."""
    if len(original) <= MOST_ROWS:
        return list(range(len(original)))
    width = upper - lower
    moved = np.abs(counterexample - original) / np.where(width > 0, width, 1)
    moved[width <= 0] = -1
    return sorted(np.argsort(-moved, kind="stable")[:MOST_ROWS].tolist())


def _place(value: float, lower: float, upper: float) -> float:
    """Where along its range a value lies, 0 to 1; the middle of a range that is a single point."""
    return float(np.clip((value - lower) / (upper - lower), 0, 1)) if upper > lower else 0.5


def _track(canvas: Canvas, left: int, y: int, original: float, counterexample: float) -> None:
    half = TRACK_THICKNESS // 2
    canvas.draw.rounded_rectangle((left, y - half, left + TRACK, y + half), half, fill=RULE)
    start, end = (left + round(TRACK * place) for place in (original, counterexample))
    if start != end:
        colour = BLUE if end < start else RED
        canvas.draw.rectangle((min(start, end), y - half, max(start, end), y + half), fill=colour)
    _ring(canvas, start, y)
    _dot(canvas, end, y)


def _ring(canvas: Canvas, x: int, y: int) -> None:
    canvas.draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=PAPER, outline=INK, width=2)


def _dot(canvas: Canvas, x: int, y: int) -> None:
    canvas.draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=INK)
