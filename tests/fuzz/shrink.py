"""Make a failing case small: drop or simplify one thing at a time as long as it still fails.

Greedy, as in delta debugging: after every success the steps start over, largest first.  Every step removes
something or makes numbers coarser, so the process ends; it also ends at its deadline with the best so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fuzz.case import Case
from fuzz.shrink_network import (
    coarser_parameters,
    fewer_inputs,
    fewer_neurons,
    fewer_nodes,
    fewer_outputs,
    zeros,
)
from fuzz.shrink_spec import coarser_spec, fewer_disjuncts, fewer_rows, points
from verifier.deadline import Deadline

STEPS: tuple[Callable[[Case], Iterator[Case]], ...] = (
    fewer_disjuncts,
    fewer_nodes,
    fewer_rows,
    fewer_outputs,
    fewer_inputs,
    fewer_neurons,
    points,
    coarser_parameters,
    coarser_spec,
    zeros,
)
"""Each gives the cases that are one step smaller than a case; the order is that in which they are tried."""


def shrink(case: Case, fails: Callable[[Case], bool], deadline: Deadline) -> Case:
    """The smallest case found that still ``fails``."""
    found: Case | None = case
    while found is not None:
        case = found
        found = next((smaller for smaller in _steps(case, deadline) if fails(smaller)), None)
    return case


def _steps(case: Case, deadline: Deadline) -> Iterator[Case]:
    for step in STEPS:
        for smaller in step(case):
            if deadline.expired:
                return
            yield smaller
