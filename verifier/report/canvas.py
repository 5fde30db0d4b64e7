"""Pen and paper for the pictures: a white sheet, one font in three sizes, lines of text, a PNG at the end.

Pillow is imported only when a picture is drawn: a run that draws none does not pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.errors import OutputPathError

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 33, 36)
FAINT: Colour = (112, 117, 122)
RULE: Colour = (205, 209, 214)
BLUE: Colour = (33, 102, 172)
RED: Colour = (178, 24, 43)

TITLE_SIZE, HEAD_SIZE, TEXT_SIZE = 20, 16, 14
LEADING = 1.35
MARGIN = 24
TITLE_GAP = 14


class Canvas:
    """A sheet of ``width`` x ``height`` pixels."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.sheet = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.sheet)

    def text(
        self, x: float, y: float, words: str, size: int = TEXT_SIZE, colour: Colour = INK, anchor: str = "la"
    ) -> None:
        """Words at (x, y); ``anchor`` as Pillow has it: l, m, r then a (top of the line), m (middle)."""
        self.draw.text((x, y), words, font=_font(size), fill=colour, anchor=anchor)

    def title(self, lines: Sequence[str], width: int) -> None:
        """The heading at the top of the sheet: the first line large, the others small and faint."""
        y = MARGIN
        for words, size, colour in _title_lines(lines, width):
            self.text(MARGIN, y, words, size, colour)
            y += line_height(size)

    def paste(self, x: int, y: int, image: Image.Image) -> None:
        """An image with a hairline around it, so that white borders stay visible."""
        self.draw.rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=RULE)
        self.sheet.paste(image, (x, y))

    def save(self, path: str | Path) -> None:
        """Write a PNG.  Raises OutputPathError where that is impossible."""
        try:
            self.sheet.save(path, format="PNG")
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputPathError(
                f"cannot write the picture {path}: {reason}; name a file in a folder that exists"
            ) from error


def text_width(words: str, size: int = TEXT_SIZE) -> int:
    """Pixels the words take."""
    return round(_font(size).getlength(words))


def line_height(size: int = TEXT_SIZE) -> int:
    """Pixels from one line to the next."""
    return round(LEADING * size)


def fold(lines: Sequence[str], width: int, size: int = TEXT_SIZE) -> list[str]:
    """The lines broken at spaces so that each fits ``width`` pixels where its words allow it."""
    folded = []
    for line in lines:
        current = ""
        for word in line.split(" "):
            longer = f"{current} {word}" if current else word
            if current and text_width(longer, size) > width:
                folded.append(current)
                current = word
            else:
                current = longer
        folded.append(current)
    return folded


def title_height(lines: Sequence[str], width: int) -> int:
    """Pixels that ``Canvas.title`` takes, the gap below it included."""
    heights = [line_height(size) for _, size, _ in _title_lines(lines, width)]
    return sum(heights) + TITLE_GAP if heights else 0


def _title_lines(lines: Sequence[str], width: int) -> list[tuple[str, int, Colour]]:
    first = [(words, TITLE_SIZE, INK) for words in fold(lines[:1], width, TITLE_SIZE)]
    return first + [(words, TEXT_SIZE, FAINT) for words in fold(lines[1:], width)]


def _font(size: int):  # type: ignore[no-untyped-def]  # Pillow's fonts share no public base class
    from PIL import ImageFont

    return ImageFont.load_default(size)
