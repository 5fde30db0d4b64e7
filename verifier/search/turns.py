"""Several searches for the same disjuncts, in turns of doubling length or side by side, with attacks in between.

No search is best on every network: kept intermediate bounds are a hundred times faster, recomputed ones far stronger
on deep networks.  After every turn each search's worst bound is extrapolated; who would end first has all of the next
turn and the others a quarter as much, so a wrong guess costs little and is mended one turn later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from verifier.deadline import Deadline
from verifier.memory import give_back
from verifier.search.box_split import BoxSplitting
from verifier.search.outcome import SearchOutcome
from verifier.search.refining_split import RefiningSplitting
from verifier.search.relu_split import ReluSplitting
from verifier.side_by_side import side_by_side
from verifier.verdict import SearchStatistics

FIRST_TURN = 0.5
"""Seconds of the first turn; every turn is twice as long as the one before."""
FOLLOWER_SHARE = 0.25
"""Length of the turn of a search that seems to be slower than another, against that of the other."""
ATTACK_SHARE, LONG_TURN = 0.25, 4.0
"""Length of an attack against the turn before it; after longer turns it only grows with the root of their length."""

Search = RefiningSplitting | ReluSplitting | BoxSplitting


class Ledger(Protocol):
    """Who keeps what the searches find; every search has a method of its own."""

    def closed(self, method: str) -> list[int]:
        """Disjuncts that need no more work, by their position in the query of the search with this method."""

    @property
    def decided(self) -> bool:
        """Whether a counterexample is known, or all disjuncts are closed."""

    def learn(self, method: str, outcome: SearchOutcome, work: SearchStatistics) -> None:
        """One turn of a search has ended."""

    def attack(self, deadline: Deadline) -> None:
        """Look for a counterexample to what is still open, from other starts than before."""


def attack_seconds(turn: float, share: float = ATTACK_SHARE, long_turn: float = LONG_TURN) -> float:
    """How long to attack after a turn of searching: a share of it, and of long turns less."""
    return share * min(turn, (long_turn * turn) ** 0.5)


def alternate(searches: Sequence[Search], ledger: Ledger, deadline: Deadline, threads: int) -> None:
    """Work until the ledger is decided, a search has done all it can, or the deadline passes.

    With two threads or more all searches work at the same time.
    """
    turn = FIRST_TURN
    remaining = [0.0] * len(searches)
    while True:
        before = [search.worst for search in searches]
        if threads > 1:
            seconds = _at_once(searches, ledger, deadline.within(turn))
        else:
            seconds = _one_by_one(searches, ledger, deadline, turn, remaining)
        if ledger.decided or deadline.expired or any(search.exhausted for search in searches):
            return
        remaining = [_remaining(*one) for one in zip(searches, before, seconds, strict=True)]
        ledger.attack(deadline.within(attack_seconds(turn)))
        if ledger.decided:
            return
        turn *= 2


def take_turn(search: Search, ledger: Ledger, deadline: Deadline) -> float:
    """Let one search work, and tell the ledger; the seconds it took."""
    search.forget(ledger.closed(search.method))
    outcome, work = _work(search, deadline)
    ledger.learn(search.method, outcome, work)
    give_back()
    return work.seconds


def _one_by_one(
    searches: Sequence[Search], ledger: Ledger, deadline: Deadline, turn: float, remaining: Sequence[float]
) -> list[float]:
    leader = min(range(len(searches)), key=remaining.__getitem__)
    seconds = []
    for i, search in enumerate(searches):
        if ledger.decided or any(other.exhausted for other in searches):
            seconds.append(0.0)
            continue
        share = 1.0 if i == leader or turn == FIRST_TURN else FOLLOWER_SHARE
        seconds.append(take_turn(search, ledger, deadline.within(share * turn)))
    return seconds


def _at_once(searches: Sequence[Search], ledger: Ledger, deadline: Deadline) -> list[float]:
    for search in searches:
        search.forget(ledger.closed(search.method))
    work = [partial(_work, search) for search in searches]
    found = side_by_side(work, deadline, lambda one: one[0].witness is not None or one[0].open == 0)
    for search, (outcome, statistics) in zip(searches, found, strict=True):
        ledger.learn(search.method, outcome, statistics)
    return [statistics.seconds for _, statistics in found]


def _work(search: Search, deadline: Deadline) -> tuple[SearchOutcome, SearchStatistics]:
    visited, spilled, closed, begun = search.regions, search.spilled, dict(search.closed), time.monotonic()
    outcome = search.work(deadline)
    statistics = SearchStatistics(
        time.monotonic() - begun,
        search.regions - visited,
        outcome.open,
        {name: count - closed[name] for name, count in search.closed.items()},
        search.spilled - spilled,
    )
    return outcome, statistics


def _remaining(search: Search, before: float, seconds: float) -> float:
    """Seconds until the search has raised its worst bound to 0, if it goes on as in the turn from ``before``."""
    gained = (search.worst - before) / max(seconds, 1e-9)
    return -search.worst / gained if gained > 0 and search.worst > -math.inf else math.inf
