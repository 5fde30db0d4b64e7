"""Drop nodes that the output does not depend on."""

from __future__ import annotations

import dataclasses

from verifier.model.network import Network


def drop_dead(network: Network) -> Network:
    """The network without unused nodes; the input stays, even where the output is constant."""
    nodes = network.nodes
    needed = {0, len(nodes) - 1}
    for i in range(len(nodes) - 1, -1, -1):
        if i in needed:
            needed.update(nodes[i].inputs)
    if len(needed) == len(nodes):
        return network
    place = {old: new for new, old in enumerate(sorted(needed))}
    kept = tuple(
        dataclasses.replace(nodes[old], inputs=tuple(place[source] for source in nodes[old].inputs)) for old in place
    )
    return dataclasses.replace(network, nodes=kept)
