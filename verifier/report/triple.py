"""An image, its counterexample and their difference, side by side.

Both images share one scale of values, so that what looks equal is equal.  The difference is drawn signed,
blue for darker, red for brighter, white for unchanged, and stretched until its largest change is fully
coloured; the heading says by how much it was magnified and the legend what the colours stand for.  Where
pixels have three channels it shows the one that changed most.  Pixels are enlarged as squares, never
smoothed: smoothing would invent values that the network never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    TEXT_SIZE,
    Canvas,
    fold,
    line_height,
    title_height,
)
from verifier.report.layout import ImageLayout

if TYPE_CHECKING:
    from PIL import Image

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

PANEL = 288
"""Pixels along a panel's longer side; small images are enlarged by a whole factor to come close to it."""
LARGEST_PANEL = 640
GAP = 28
LEGEND_HEIGHT = 10
KNOWN_RANGES = ((0.0, 1.0), (0.0, 255.0))
SLACK = 1e-3
"""Counterexamples may leave the range of the pixels by rounding, boxes by this part of it."""


@dataclass(frozen=True, eq=False)
class ExtraPanel:
    """One more panel on the right.  pixels: (H, W, 3) colours."""

    heading: str
    pixels: Pixels
    lines: Sequence[str]


@dataclass(frozen=True)
class ValueRange:
    """The values drawn as black and as white."""

    black: float
    white: float

    @property
    def span(self) -> float:
        return self.white - self.black

    def shades(self, pixels: Array) -> Pixels:
        """0 to 255 for values."""
        scaled = (pixels - self.black) / self.span
        return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def value_range(original: Array, counterexample: Array) -> ValueRange:
    """[0, 1] or [0, 255] where the values look like it, otherwise from the smallest to the largest value."""
    smallest = float(min(original.min(), counterexample.min()))
    largest = float(max(original.max(), counterexample.max()))
    for black, white in KNOWN_RANGES:
        slack = SLACK * (white - black)
        # Values of at most a tenth of 255 would be drawn black on black: they are on some other scale.
        if smallest >= black - slack and white / 10 < largest <= white + slack:
            return ValueRange(black, white)
    return ValueRange(smallest, largest) if largest > smallest else ValueRange(smallest - 0.5, smallest + 0.5)


def signed_colours(change: Array) -> Pixels:
    """(H, W, 3) colours for (H, W) changes in [-1, 1]: blue, white, red.

    Strength grows with the square root: a change of a tenth of the largest is still seen.
    """
    strength = np.sqrt(np.abs(change))[..., None]
    extreme = np.where(change[..., None] < 0, np.array(BLUE), np.array(RED))
    return np.rint((1 - strength) * np.array(PAPER) + strength * extreme).astype(np.uint8)


def largest_channel(difference: Array) -> Array:
    """(H, W) from (H, W, C): the signed change of the channel that changed most."""
    chosen = np.abs(difference).argmax(axis=-1)[..., None]
    return np.take_along_axis(difference, chosen, axis=-1)[..., 0]


def draw_triple(
    original: Array,
    counterexample: Array,
    layout: ImageLayout,
    title: Sequence[str],
    original_lines: Sequence[str],
    counterexample_lines: Sequence[str],
    extras: Sequence[ExtraPanel] = (),
) -> Canvas:
    """The picture.  original, counterexample: (n_inputs,)."""
    scale = value_range(original, counterexample)
    change = largest_channel(layout.pixels(counterexample) - layout.pixels(original))
    largest = float(np.abs(change).max())
    panels = [
        _enlarged(scale.shades(layout.pixels(original))),
        _enlarged(scale.shades(layout.pixels(counterexample))),
        _enlarged(signed_colours(change / largest if largest > 0 else change)),
        *(_enlarged(extra.pixels) for extra in extras),
    ]
    factor = f"difference, magnified {scale.span / largest:.3g}x" if largest > 0 else "no difference"
    changed = [f"{np.count_nonzero(change)} of {change.size} pixels changed"]
    if layout.channels > 1:
        changed.append("the channel that changed most")
    column = max(panels[0].width, PANEL)
    headings = ("original", "counterexample", factor, *(extra.heading for extra in extras))
    texts = (original_lines, counterexample_lines, changed, *(extra.lines for extra in extras))
    captions = [fold(lines, column) for lines in texts]
    width = len(panels) * column + (len(panels) - 1) * GAP

    top = MARGIN + title_height(title, width)
    panel_top = top + line_height(HEAD_SIZE) + 6
    caption_top = panel_top + panels[0].height + 12
    legend = LEGEND_HEIGHT + 6 + line_height(TEXT_SIZE) + 4 if largest > 0 else 0
    deepest = max(
        len(captions[0]) * line_height(),
        len(captions[1]) * line_height(),
        len(captions[2]) * line_height() + legend,
        *(len(caption) * line_height() for caption in captions[3:]),
    )
    canvas = Canvas(2 * MARGIN + width, caption_top + deepest + MARGIN)
    canvas.title(title, width)
    for i, (panel, heading, lines) in enumerate(zip(panels, headings, captions, strict=True)):
        left = MARGIN + i * (column + GAP)
        canvas.text(left, top, heading, HEAD_SIZE, INK)
        canvas.paste(left, panel_top, panel)
        y = caption_top
        if i == 2 and largest > 0:
            _legend(canvas, left, y, panel.width, largest)
            y += legend
        for j, line in enumerate(lines):
            canvas.text(left, y + j * line_height(), line, TEXT_SIZE, INK if j == 0 and i != 2 else FAINT)
    return canvas


def _legend(canvas: Canvas, left: int, top: int, width: int, largest: float) -> None:
    from PIL import Image

    ramp = signed_colours(np.linspace(-1, 1, width)[None, :].repeat(LEGEND_HEIGHT, axis=0))
    canvas.paste(left, top, Image.fromarray(ramp))
    y = top + LEGEND_HEIGHT + 6
    for x, words, anchor in (
        (left, f"-{largest:.3g}", "la"),
        (left + width / 2, "0", "ma"),
        (left + width, f"+{largest:.3g}", "ra"),
    ):
        canvas.text(x, y, words, TEXT_SIZE, FAINT, anchor)


def _enlarged(pixels: Pixels) -> Image.Image:
    """An RGB image of (H, W, 1 or 3) pixels, every pixel a square; shrunk only beyond ``LARGEST_PANEL``."""
    from PIL import Image

    colours = pixels if pixels.shape[-1] == 3 else pixels.repeat(3, axis=-1)
    image = Image.fromarray(np.ascontiguousarray(colours))
    longest = max(image.size)
    if longest > LARGEST_PANEL:
        image.thumbnail((LARGEST_PANEL, LARGEST_PANEL), Image.Resampling.BOX)
        return image
    factor = max(1, round(PANEL / longest))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
