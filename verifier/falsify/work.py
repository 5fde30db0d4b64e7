"""What one point costs, and how many restarts and disjuncts fit a budget.

Budgets are counted in work and bytes, never in seconds, so that a seed gives the same search everywhere.  The unit of
work is one multiply-add of a dense layer, forward and backward; 1e9 units take about 45 ms on one core.  The weights
below were fitted to ten networks, from ACAS Xu to the residual ones of CIFAR-10, and are right to a factor of 1.7.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from verifier.model.network import Network
from verifier.model.operators import Conv, Linear

FEWEST_RESTARTS, MOST_RESTARTS = 2, 1024
CONVOLVED = 2
"""Units per multiply-add of a convolution."""
PER_CONVOLUTION = 50_000
"""Units per point and convolution, whatever its size."""
ELEMENTWISE = 45
"""Units per value of a node."""
COPIES = 4
"""Arrays of every node's size alive during a backward pass."""
BYTES = 4


def per_point(network: Network) -> int:
    """Units of work for one step of one point."""
    total = 0
    for index, node in enumerate(network.nodes):
        total += ELEMENTWISE * node.size
        if isinstance(node.operator, Linear):
            total += node.operator.weight.numel() * math.prod(network.input_shapes(index)[0][:-1])
        elif isinstance(node.operator, Conv):
            outputs = node.shape[0] * math.prod(node.shape[2:])
            total += PER_CONVOLUTION + CONVOLVED * node.operator.weight.numel() * outputs
    return total


def restarts(network: Network, disjuncts: int, steps: int, work: float) -> int:
    """Restarts per disjunct for one descent of ``work`` units."""
    each = per_point(network) * max(steps, 1) * max(disjuncts, 1)
    return min(MOST_RESTARTS, max(FEWEST_RESTARTS, int(work / each)))


def chunks(network: Network, positions: Sequence[int], points: int, memory: int) -> Iterator[list[int]]:
    """The positions in pieces whose searches fit ``memory`` bytes with ``points`` points each; at least one a piece."""
    values = sum(node.size for node in network.nodes) + 2 * network.n_inputs
    size = max(1, memory // (BYTES * COPIES * values * points))
    for start in range(0, len(positions), size):
        yield list(positions[start : start + size])
