"""What the ReLU searches share: the rows of a query's disjuncts as tensors, and the trial of promising points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.beta_crown import Root, Rows
from verifier.bounds.level import Bounds
from verifier.falsify.referee import Referee
from verifier.query import Query
from verifier.verdict import Witness

CONFIRMED_AT_ONCE = 4
"""Candidate points of one batch that are replayed."""
VALUES_BYTES = 2**22
"""For the values of all neurons at the points that are evaluated together."""


class Candidates:
    """Replays points that seem to satisfy a disjunct of the query."""

    def __init__(self, query: Query, rows: Rows) -> None:
        self._network, self._rows = query.network, rows
        self._referee = Referee(query)

    def judge(self, points: Tensor, owner: Tensor) -> Witness | None:
        """The first confirmed one of points [B, n_inputs], each for the disjunct at position ``owner`` [B]."""
        if not len(points):
            return None
        size = 8 * sum(node.size for node in self._network.nodes)
        outputs = torch.cat([self._network.forward(part) for part in points.split(max(1, VALUES_BYTES // size))])
        rows = self._rows.pick(owner)
        margins = (rows.outputs @ outputs.unsqueeze(2)).squeeze(2) - rows.bounds
        if rows.inputs is not None:
            margins = margins + (rows.inputs @ points.unsqueeze(2)).squeeze(2)
        margin = margins.max(1).values
        for i in torch.argsort(margin)[:CONFIRMED_AT_ONCE].tolist():
            if margin[i] > 0:
                return None
            if self._referee.judge(int(owner[i]), points[i].numpy()):
                return self._referee.witness
        return None


def root_of(query: Query, nodes: Sequence[Bounds]) -> Root:
    """The box that all disjuncts of the query share, with bounds on all nodes over it."""
    first = query.disjuncts[0]
    lower, upper = (torch.as_tensor(side, dtype=torch.float64)[None] for side in (first.lower, first.upper))
    return Root(query.network, lower, upper, tuple(nodes))


def rows_of(query: Query) -> Rows:
    """The rows of all disjuncts, padded by repeating the first one (which changes no maximum)."""
    count = max(len(d.constraints) for d in query.disjuncts)
    parts = [d.constraints for d in query.disjuncts]
    index = [np.append(np.arange(len(p)), np.zeros(count - len(p), dtype=np.int64)) for p in parts]
    inputs = None
    if any(p.mentions_inputs for p in parts):
        inputs = torch.as_tensor(np.stack([np.asarray(p.inputs)[i] for p, i in zip(parts, index, strict=True)]))
    outputs = torch.as_tensor(np.stack([p.outputs[i] for p, i in zip(parts, index, strict=True)]))
    bounds = torch.as_tensor(np.stack([p.bounds[i] for p, i in zip(parts, index, strict=True)]))
    return Rows(outputs, inputs, bounds)
