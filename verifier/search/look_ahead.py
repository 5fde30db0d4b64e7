"""Which neuron to split: filtered smart branching (De Palma et al., "Improved Branch and Bound for Neural Network
Verification via Lagrangian Decomposition", 2021, section 5), on the reduced network.

Candidates are the neurons whose lines are furthest from their ReLU where the region's linear bound is least, weighted
by their coefficients: that point is the counterexample that the relaxation still believes in, and a split that does not
move it gains nothing.  One more comes from the caller.  Each candidate's two halves are bounded with the slopes and
multipliers of the region, one backward pass each, and the candidate whose worse half is best is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.beta_crown import Root, Rows, Splits, reduced_regions

CANDIDATES = 4
BETTER_HALF = 0.1
"""Weight of the better half's bound."""


def look_ahead(root: Root, rows: Rows, splits: Splits, guess: Tensor) -> Tensor:
    """The neuron to split in each region, [B]; the guess, [B], where looking ahead is too dear or of no help.

    Every region has an undecided neuron, and guess names one.
    """
    regions = reduced_regions(root.fast, rows.float(), splits)
    if regions is None:
        return guess
    lines = regions.lines(splits.signs)
    found = regions.backward(lines, splits.slopes, splits.multipliers)
    z, y = regions.forward(lines, found)
    gap = found.above.abs() * (y - z.clamp(min=0)).abs()
    gap = torch.where(lines.free > 0, gap, -1.0)
    best = gap.topk(min(CANDIDATES, gap.shape[1]), dim=1)
    candidates = torch.cat([guess[:, None], best.indices], 1)
    merits = []
    for candidate in candidates.unbind(1):
        halves = []
        for sign in (1, -1):
            signs = splits.signs.clone()
            signs[torch.arange(len(signs)), candidate] = sign
            half = regions.backward(regions.lines(signs), splits.slopes, splits.multipliers)
            halves.append(half.values.clamp(max=0))
        merits.append(torch.minimum(*halves) + BETTER_HALF * torch.maximum(*halves))
    useful = torch.cat([torch.ones_like(guess[:, None], dtype=torch.bool), best.values > 0], 1)
    merit = torch.where(useful, torch.nan_to_num(torch.stack(merits, 1), nan=-torch.inf), -torch.inf)
    return candidates.gather(1, merit.argmax(1, keepdim=True)).squeeze(1)
