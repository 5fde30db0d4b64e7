"""What a solver run is allowed to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Status(StrEnum):
    """Why a minimisation ended.  Only INFEASIBLE and ``Outcome.dual_bound`` say anything about all points."""

    OPTIMAL = "optimal"
    """The optimum, within the solver's gap."""
    TARGET = "target"
    """A point good enough for the caller was found."""
    BOUND = "bound"
    """The dual bound rose above what the caller asked for."""
    INFEASIBLE = "infeasible"
    """The solver proved that there is no point, within its tolerances."""
    LIMIT = "limit"
    """Time, memory or another limit; the dual bound and the point are the best so far."""
    FAILED = "failed"
    """The solver gave no answer that can be used."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of one minimisation.

    objective: the model's cost at ``point``, inf without one.
    dual_bound: no feasible point costs less, within the solver's tolerances; -inf when nothing is known,
        inf when infeasible.
    point: (n,), the best point found, clipped to the columns' bounds; rows hold within tolerances only.
    nodes: branch-and-bound nodes; 0 for linear programs.
    detail: the solver's own word for its status, for messages.
    """

    status: Status
    objective: float
    dual_bound: float
    point: Array | None
    nodes: int
    seconds: float
    detail: str = ""
