"""Where the smallest margin of a disjunct lies: by enumeration where that is quick, by a MILP elsewhere."""

from __future__ import annotations

import numpy as np

from support.milp_oracle import LeastMargin, least_margin, undecided_relus
from support.oracle import minimum_margin
from verifier.model.network import Network
from verifier.vnnlib.spec import Disjunct

MOST_ENUMERATED = 12
"""Undecided ReLUs up to which all activation patterns are enumerated."""


def smallest_margin(network: Network, disjunct: Disjunct) -> LeastMargin:
    """The smallest margin over the box, input-only rows counting like all others; not finite without rows."""
    if len(disjunct.constraints) and undecided_relus(network, disjunct) > MOST_ENUMERATED:
        return least_margin(network, disjunct)
    value, point = minimum_margin(network, disjunct)
    return LeastMargin(float(value), float(value), np.clip(point, disjunct.lower, disjunct.upper))
