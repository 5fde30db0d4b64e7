"""Simplifiers: each is a function Network -> Network in a file of its own.

Some are exact, some round: those keep account of it in ``ulps`` and ``offset_error``.  Each returns the very
same object when it finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable

from verifier.model.network import Network
from verifier.model.simplify.delay_permutations import delay_permutations
from verifier.model.simplify.drop_dead import drop_dead
from verifier.model.simplify.drop_identities import drop_identities
from verifier.model.simplify.fuse_scale_after import fuse_scale_after
from verifier.model.simplify.fuse_scale_before import fuse_scale_before
from verifier.model.simplify.merge_moves import merge_moves
from verifier.model.simplify.merge_scales import merge_scales
from verifier.model.simplify.permute_columns import permute_columns

Simplifier = Callable[[Network], Network]

SIMPLIFIERS: tuple[Simplifier, ...] = (
    drop_dead,
    merge_moves,
    drop_identities,
    delay_permutations,
    merge_moves,
    merge_scales,
    fuse_scale_after,
    fuse_scale_before,
    permute_columns,
)


def simplify(network: Network) -> Network:
    """Apply all simplifiers until none changes anything.

    It ends: every change removes a node or moves a permutation closer to the output.
    """
    while True:
        before = network
        for simplifier in SIMPLIFIERS:
            network = simplifier(network)
        if network is before:
            return network
