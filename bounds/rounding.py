"""Rounding errors of float64 evaluation, bounded a priori (Higham, Accuracy and Stability, 2002, ch. 3).

A sum of k products evaluated in any order, with or without fused multiply-add, is off by at most
gamma_k = k u / (1 - k u) times the sum of the absolute products, u = 2**-53.

What makes this cheap for backward bounds: for a row vector A over the values of one node, z = M x + b,

    | fl(A M) x + fl(A b) - A z |  <=  gamma |A| (|M| |x| + |b|)

and the bracket is one vector per node, the same for every row and every slope.  ``sensitivities`` returns it,
gamma included, so that the whole error of a backward pass is a sum of inner products |A_k| . rho_k.

Invariant: holds for the exact network (its parameters within their stated ``ulps`` and ``offset_error``) and for
every point whose node values lie within the given bounds.  Underflow is covered by a tiny absolute term.
Convolutions on the CPU in float64 are sums of products in some order (no Winograd, no FFT), which is all that is
assumed; on other devices bounds are estimates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.level import Bounds, Level
from verifier.model.network import Network
from verifier.model.operators import Concat, Gather, Input, Relu, Reshape

UNIT = 2.0**-53
TINY = 1e-290
"""Far above everything that underflow can lose, far below everything that matters."""

MOVES = (Reshape, Gather, Concat)
"""Operators that only move values: exact in floating point, forward and (but for Gather's sums) backward."""


def gamma(terms: int) -> float:
    """Relative error of a sum of ``terms`` products, rounded up."""
    product = terms * UNIT
    if product >= 0.01:
        raise ValueError(f"a sum of {terms} terms is too long for the error model")
    return 1.02 * product


def attainable_level(dtype: torch.dtype, device: torch.device) -> Level:
    """RIGOROUS where the error model above holds, ESTIMATE elsewhere."""
    return Level.RIGOROUS if dtype == torch.float64 and device.type == "cpu" else Level.ESTIMATE


def magnitude(bounds: Bounds) -> Tensor:
    """The largest absolute value within the bounds."""
    return torch.maximum(bounds.lower.abs(), bounds.upper.abs())


def sensitivity(network: Network, index: int, bounds: tuple[Bounds, ...] | list[Bounds]) -> Tensor | None:
    """rho of node ``index``, [B, *shape]: rounding while stepping back through the node costs |A| . rho.

    ``bounds`` need to be filled for the nodes that ``index`` reads.  None where the step is exact.
    """
    node = network.nodes[index]
    operator = node.operator
    # Partial sums over nodes add at most one rounding per node on top of the sums within nodes.
    steps = 2 * len(network.nodes) + 8
    sources = [magnitude(bounds[source]) for source in node.inputs]
    if isinstance(operator, Input):
        return 2 * gamma(node.size + steps) * magnitude(bounds[index]) + TINY
    if isinstance(operator, Relu):
        return 2 * gamma(node.size + steps) * sources[0] + TINY
    if isinstance(operator, (Reshape, Concat)):
        return None
    total = operator.absolute(*sources)
    offset = operator.offset(node.shape)
    if offset is not None:
        total = total + offset.abs()
    terms = max(operator.terms(network.input_shapes(index)), node.size) + operator.ulps + steps
    rho = 2 * gamma(terms) * total + TINY
    if operator.offset_error is not None:
        rho = rho + 1.001 * operator.offset_error.expand(node.shape)
    return rho
