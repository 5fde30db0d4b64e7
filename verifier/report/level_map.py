"""A fourth panel for quantised inputs: by how many levels every pixel moved, and which could have.

Red is up, blue is down, as in the difference; a grey pixel had other levels in the box and stayed, a white one had
none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verifier.report.layout import ImageLayout
from verifier.report.triple import ExtraPanel, largest_channel, signed_colours

Integers = NDArray[np.int64]
GREY = 225


def level_panel(moves: Integers, counts: Integers, layout: ImageLayout) -> ExtraPanel:
    """moves: (n_inputs,), signed numbers of levels.  counts: (n_inputs,), how many others the box allows."""
    moved = largest_channel(layout.pixels(moves.astype(np.float64)))
    free = layout.pixels(counts.astype(np.float64)).max(axis=-1) > 0
    largest = float(np.abs(moved).max())
    colours = signed_colours(moved / largest if largest > 0 else moved)
    colours[(moved == 0) & free] = GREY
    span = f"{moves.min():+d} to {moves.max():+d} levels" if largest > 0 else "no level changed"
    lines = (span, f"{np.count_nonzero(moves)} of {np.count_nonzero(counts)} free pixels moved")
    return ExtraPanel("levels moved", colours, lines)
