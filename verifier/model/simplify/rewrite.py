"""Local rewriting, the part that all simplifiers share.

A rule looks at one node and what it reads and answers with another operator on other nodes, with another
node that has the same value, or with None.  Indices stay valid while rules run; ``drop_dead`` renumbers at
the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from verifier.model.network import Network
from verifier.model.operators import Operator
from verifier.model.simplify.drop_dead import drop_dead


@dataclasses.dataclass(frozen=True, eq=False)
class Replacement:
    """Compute the node's value with this operator from these nodes instead."""

    operator: Operator
    inputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SameAs:
    """The node's value is that of an earlier node, of the same shape."""

    index: int


Answer = Replacement | SameAs | None


class Draft:
    """A network being rewritten.  Nodes that nothing needs any more stay in the list, with 0 uses."""

    def __init__(self, network: Network) -> None:
        self.nodes = list(network.nodes)
        self._uses = [len(readers) for readers in network.consumers]
        self._uses[-1] += 1  # the output is read by the user

    def only_use(self, index: int) -> bool:
        """Whether a single node reads this one: then it may be absorbed without computing it twice."""
        return self._uses[index] == 1

    def rewire(self, index: int, operator: Operator, inputs: tuple[int, ...]) -> None:
        """Put another operator in place of node ``index``; its shape follows from the operator.

        Where the shape changes, the caller rewires the readers.
        """
        shape = tuple(operator.output_shape(tuple(self.nodes[source].shape for source in inputs)))
        old = self.nodes[index]
        self.nodes[index] = dataclasses.replace(old, operator=operator, inputs=inputs, shape=shape)
        for source in inputs:
            self._uses[source] += 1
        self._release(old.inputs)

    def _release(self, sources: tuple[int, ...]) -> None:
        waiting = list(sources)
        while waiting:
            source = waiting.pop()
            self._uses[source] -= 1
            if self._uses[source] == 0:
                waiting.extend(self.nodes[source].inputs)


Rule = Callable[[Draft, int], Answer]


def rewrite(network: Network, rule: Rule) -> Network:
    """Apply a rule to all nodes in order, and again to what it produced, until it answers None.

    Returns ``network`` itself when nothing changed.
    """
    draft = Draft(network)
    alias = list(range(len(draft.nodes)))
    changed = False
    for i, node in enumerate(network.nodes):
        inputs = tuple(alias[source] for source in node.inputs)
        if inputs != node.inputs:
            draft.rewire(i, node.operator, inputs)
        while (answer := rule(draft, i)) is not None:
            changed = True
            if isinstance(answer, SameAs):
                # Readers are redirected one by one as the walk reaches them.
                alias[i] = alias[answer.index]
                break
            draft.rewire(i, answer.operator, answer.inputs)
            assert draft.nodes[i].shape == node.shape, f"{node.name}: {node.shape} -> {draft.nodes[i].shape}"
    if not changed:
        return network
    nodes = draft.nodes[: alias[-1] + 1]
    return drop_dead(dataclasses.replace(network, nodes=tuple(nodes)))
