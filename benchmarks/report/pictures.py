"""The witness of a record for the report: tiny PNG files in the page, or numbers for bars.

Pictures are stored pixel by pixel and enlarged by the browser, so a counterexample costs a few kilobytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.report.bars import rows_to_show
from verifier.report.layout import ImageLayout, image_layout
from verifier.report.triple import largest_channel, signed_colours, value_range

Array = NDArray[np.float64]

CLASSES = 5


def witness_data(witness: Mapping[str, Any], images: bool) -> dict[str, Any]:
    """What a page shows of a witness.  images: whether pictures may be drawn."""
    after = np.array(witness["x"], np.float64)
    before = np.array(witness.get("original_x") or after, np.float64)
    shape = tuple(witness.get("shape") or ())
    found: dict[str, Any] = {"scores": _scores(witness), "disjunct": witness.get("disjunct")}
    found["moved"] = float(np.abs(after - before).max())
    layout = image_layout(shape) if shape else None
    if layout is not None:
        if images:
            found["pictures"] = _triple(before, after, layout)
    elif "lower" in witness:
        found["bars"] = _bars(before, after, np.array(witness["lower"]), np.array(witness["upper"]))
    return found


def _triple(before: Array, after: Array, layout: ImageLayout) -> dict[str, Any]:
    scale = value_range(before, after)
    first, second = layout.pixels(before), layout.pixels(after)
    change = largest_channel(second - first)
    largest = float(np.abs(change).max())
    return {
        "original": _png(scale.shades(first)),
        "counterexample": _png(scale.shades(second)),
        "difference": _png(signed_colours(change / largest if largest > 0 else change)),
        "magnified": scale.span / largest if largest > 0 else None,
        "largest": largest,
        "changed": int(np.count_nonzero(change)),
        "pixels": int(change.size),
    }


def _png(pixels: NDArray[np.uint8]) -> str:
    """A data address for (H, W, 1 or 3) pixels."""
    from PIL import Image

    array = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _bars(before: Array, after: Array, lower: Array, upper: Array) -> list[list[float]]:
    """[index, lower, upper, original, counterexample] for the inputs that moved most."""
    chosen = rows_to_show(before, after, lower, upper)
    return [[i, *(significant(values[i]) for values in (lower, upper, before, after))] for i in chosen]


def _scores(witness: Mapping[str, Any]) -> list[list[float | None]]:
    """[output, before, after] of the outputs that are largest before or after."""
    after = witness["y"]
    before = witness.get("original_y") or [None] * len(after)
    chosen: dict[int, None] = {}
    for scores in (after, before):
        known = [i for i, score in enumerate(scores) if score is not None]
        chosen.update(dict.fromkeys(sorted(known, key=lambda i: -scores[i])[:CLASSES]))
    return [[i, *(None if s[i] is None else significant(s[i]) for s in (before, after))] for i in sorted(chosen)]


def significant(value: float, digits: int = 6) -> float:
    """Rounded to a number of significant digits: what is shown, in fewer bytes."""
    return float(f"{value:.{digits}g}")
