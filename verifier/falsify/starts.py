"""Where the search of a box begins, and how each restart goes about it.

A box is given by its float32 (or float64) points: sides are rounded inward, so that what the search calls inside is
inside.  Widths may differ by orders of magnitude and may be zero; everything is drawn in units of the width.

The restarts of one box are a portfolio, because what finds a counterexample on one network is useless on another:

* the first of all starts at the centre, where an image is;
* most start at random points of the box, a few at random corners;
* their first step sizes are spread log-uniformly.  Measured on ACAS Xu: 1_9 prop_7 falls only to steps above 0.3
  widths, 5_3 prop_2 and the other prop_2 instances to steps of 0.05;
* where inputs are many, three in four are thrown to a distant corner first, by output diversification (see ``pgd``).
  With few inputs random starts are diverse enough, and throwing them makes the search ten times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.vnnlib.spec import Disjunct

MANY_INPUTS = 64


@dataclass(frozen=True)
class Portfolio:
    """What parts of the restarts do what.

    shortest, longest: first step sizes, in widths.  corners: begin at a random corner.
    diversified: are thrown along a random direction of the outputs.  summed: descend the sum of the violated rows.
    """

    shortest: float
    longest: float = 1.0
    corners: float = 0.05
    diversified: float = 0.05
    summed: float = 0.5


FEW = Portfolio(shortest=0.02)
MANY = Portfolio(shortest=0.2, diversified=0.75)
"""For boxes of at most, and of more than, MANY_INPUTS inputs."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """D boxes.  lower, upper, width: (D, 1, n_inputs)."""

    lower: Tensor
    upper: Tensor
    width: Tensor

    @classmethod
    def of(cls, disjuncts: Sequence[Disjunct], dtype: torch.dtype, device: str | torch.device = "cpu") -> Boxes:
        """The boxes of at least one disjunct, sides rounded inward to ``dtype``.

        Where a box holds no value of ``dtype`` between two sides, both become the value nearest to its middle.
        """
        lower = np.stack([disjunct.lower for disjunct in disjuncts])
        upper = np.stack([disjunct.upper for disjunct in disjuncts])
        if dtype == torch.float32:
            lower, upper = _inward(lower, upper)
        low, high = (torch.from_numpy(side).to(device, dtype).unsqueeze(1) for side in (lower, upper))
        return cls(low, high, high - low)

    def clip(self, x: Tensor) -> Tensor:
        """The nearest points (D, K, n_inputs) inside."""
        return torch.minimum(torch.maximum(x, self.lower), self.upper)

    def at(self, fractions: Tensor) -> Tensor:
        """Points from fractions (D, K, n_inputs) of the width, 0 at the lower side and 1 at the upper."""
        return self.clip(self.lower + fractions * self.width)


@dataclass(frozen=True, eq=False)
class Starts:
    """The portfolio of K restarts in D boxes.

    points: (D, K, n_inputs).  steps: (D, K, 1), first step sizes in widths.  summed, diversified: (D, K) bool.
    directions: (D, K, n_outputs) in [-1, 1], where diversified restarts are thrown.
    """

    points: Tensor
    steps: Tensor
    summed: Tensor
    diversified: Tensor
    directions: Tensor


def sample(boxes: Boxes, count: int, generator: torch.Generator) -> Tensor:
    """Uniform random points, (D, count, n_inputs)."""
    return boxes.at(_uniform((boxes.lower.shape[0], count, boxes.lower.shape[2]), boxes, generator))


def draw(boxes: Boxes, count: int, n_outputs: int, generator: torch.Generator, with_centre: bool) -> Starts:
    """``count`` restarts per box.  with_centre: the first starts at the centre with a step of half the width."""
    n_boxes, _, n_inputs = boxes.lower.shape
    shape = (n_boxes, count)
    portfolio = MANY if n_inputs > MANY_INPUTS else FEW
    fractions = _uniform((*shape, n_inputs), boxes, generator)
    corner = _uniform(shape, boxes, generator) < portfolio.corners
    fractions = torch.where(corner.unsqueeze(-1), fractions.round(), fractions)
    spread = portfolio.longest / portfolio.shortest
    steps = portfolio.shortest * spread ** _uniform((*shape, 1), boxes, generator)
    summed = _uniform(shape, boxes, generator) < portfolio.summed
    diversified = _uniform(shape, boxes, generator) < portfolio.diversified
    directions = 2 * _uniform((*shape, n_outputs), boxes, generator) - 1
    if with_centre:
        fractions[:, 0] = 0.5
        steps[:, 0] = 0.5
        diversified[:, 0] = False
        # With few restarts chance must not decide whether any of them is diversified.
        diversified[:, 1:2] = True
    return Starts(boxes.at(fractions), steps, summed, diversified, directions)


def _uniform(shape: tuple[int, ...], boxes: Boxes, generator: torch.Generator) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on every device."""
    return torch.rand(shape, generator=generator, dtype=boxes.lower.dtype).to(boxes.lower.device)


def _inward(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest float32 >= lower and the largest <= upper; one value twice where there is none between."""
    limit = np.finfo(np.float32).max
    low, high = (np.clip(side, -limit, limit).astype(np.float32) for side in (lower, upper))
    low = np.where(low < lower, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > upper, np.nextafter(high, np.float32(-np.inf)), high)
    middle = np.clip((lower + upper) / 2, -limit, limit).astype(np.float32)
    empty = low > high
    return np.where(empty, middle, low), np.where(empty, middle, high)
