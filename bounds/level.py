"""How far a bound may be trusted, and the pair of bounds that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Level(IntEnum):
    """Weakest first, so ``min`` gives the level of a combination."""

    ESTIMATE = 0
    """Correct but for rounding errors that nobody bounded."""
    TRUSTED = 1
    """A solver's word, within its tolerances."""
    RIGOROUS = 2
    """Rounding errors covered: holds in exact arithmetic for the exact network."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """lower <= value <= upper elementwise; tensors of one shape, the batch axis in front."""

    lower: Tensor
    upper: Tensor
    level: Level

    def intersect(self, other: Bounds) -> Bounds:
        """The tighter of both, at the weaker level."""
        return Bounds(
            torch.maximum(self.lower, other.lower),
            torch.minimum(self.upper, other.upper),
            min(self.level, other.level),
        )

    @property
    def unstable(self) -> Tensor:
        """Where a ReLU of this value is undecided, bool."""
        return (self.lower < 0) & (self.upper > 0)
