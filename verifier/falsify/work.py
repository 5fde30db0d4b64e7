"""What one point costs, and how many restarts and disjuncts fit a budget.

Budgets are counted in multiply-adds and bytes, never in seconds, so that a seed gives the same search everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from verifier.model.network import Network
from verifier.model.operators import Conv, Linear

FEWEST_RESTARTS, MOST_RESTARTS = 2, 1024
ELEMENTWISE = 8
"""Multiply-adds of a matrix product that take as long as one entry of an elementwise operation (measured)."""
PASSES = 2
"""A backward pass to the input costs about as much as a forward pass."""
COPIES = 4
"""Arrays of every node's size alive during a backward pass."""
BYTES = 4


def multiply_adds(network: Network) -> int:
    """Of one forward pass of one point, elementwise work included."""
    total = 0
    for index, node in enumerate(network.nodes):
        total += ELEMENTWISE * node.size
        if isinstance(node.operator, Linear):
            total += node.operator.weight.numel() * math.prod(network.input_shapes(index)[0][:-1])
        elif isinstance(node.operator, Conv):
            total += node.operator.weight.numel() * math.prod((node.shape[0], *node.shape[2:]))
    return total


def restarts(network: Network, disjuncts: int, steps: int, work: float) -> int:
    """Restarts per disjunct for one wave of ``work`` multiply-adds."""
    each = PASSES * multiply_adds(network) * max(steps, 1) * max(disjuncts, 1)
    return min(MOST_RESTARTS, max(FEWEST_RESTARTS, int(work / each)))


def chunks(network: Network, positions: Sequence[int], points: int, memory: int) -> Iterator[list[int]]:
    """The positions in pieces whose searches fit ``memory`` bytes with ``points`` points each; at least one a piece."""
    values = sum(node.size for node in network.nodes) + 2 * network.n_inputs
    size = max(1, memory // (BYTES * COPIES * values * points))
    for start in range(0, len(positions), size):
        yield list(positions[start : start + size])
