"""What can be said of several runs over the same instances: agreement, PAR-2, who decides what, who is faster.

A contradiction is ``sat`` in one run and ``unsat`` in another.  Where those who gave a verdict were in doubt
themselves (``sat?``) a disagreement is kept apart.  PAR-2 is the mean of the seconds, an undecided instance counting as
twice its time-out.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from verifier.benchmarks.outcomes import Outcome, Run
from verifier.benchmarks.record import FAILED

FAILURES = frozenset(map(str, FAILED))


@dataclass(frozen=True)
class Disagreement:
    """Two runs that cannot both be right.  doubtful: one of them was not sure itself."""

    first: Outcome
    first_run: str
    second: Outcome
    second_run: str

    @property
    def doubtful(self) -> bool:
        return self.first.doubtful or self.second.doubtful

    def __str__(self) -> str:
        sides = ((self.first, self.first_run), (self.second, self.second_run))
        words = [f"{outcome.verdict}{'?' if outcome.doubtful else ''} in {run}" for outcome, run in sides]
        return f"{self.first}: {words[0]}, {words[1]}"


@dataclass(frozen=True)
class Row:
    """One run within one group of instances.  par2: seconds, None where the files do not say enough."""

    group: str
    run: str
    instances: int
    decided: int
    sat: int
    unsat: int
    failed: int
    contradicting: int
    par2: float | None


@dataclass(frozen=True)
class Pair:
    """Two runs side by side.

    common: instances that both have.  both: decided by both, with the same verdict and known seconds.
    ratio: median of first seconds / second seconds over those; None when there are none.
    only_first, only_second: decided by one of them.
    """

    first: str
    second: str
    common: int
    both: int
    ratio: float | None
    only_first: tuple[Outcome, ...]
    only_second: tuple[Outcome, ...]


def disagreements(runs: Sequence[Run]) -> list[Disagreement]:
    """All, those beyond doubt first."""
    found = []
    for first, second in combinations(runs, 2):
        for outcome in first.outcomes:
            other = second.find(outcome)
            if other is not None and outcome.decided and other.decided and outcome.verdict != other.verdict:
                found.append(Disagreement(outcome, first.name, other, second.name))
    return sorted(found, key=lambda disagreement: disagreement.doubtful)


def group_of(outcome: Outcome, by: str) -> str:
    """by: "category" or "network"."""
    return outcome.category if by == "category" else f"{outcome.category}/{outcome.names[0]}"


def table(runs: Sequence[Run], by: str = "category", timeout: float | None = None) -> list[Row]:
    """A row per group and run, then one per run over everything; groups are named by the first run that has them.

    Instances that only lists of known verdicts have are left out.  timeout: seconds, where the files do not say; PAR-2
    is over the instances that all runs have.
    """
    wrong = {
        (name, outcome.category, outcome.names)
        for d in disagreements(runs)
        if not d.doubtful
        for name, outcome in ((d.first_run, d.first), (d.second_run, d.second))
    }
    groups: dict[str, list[list[Outcome]]] = {}
    seen: list[Run] = []
    for run in [run for run in runs if run.has_seconds] or runs:
        for outcome in run.outcomes:
            if not any(earlier.find(outcome) for earlier in seen):
                members = groups.setdefault(group_of(outcome, by), [[] for _ in runs])
                for own, other in zip(members, runs, strict=True):
                    same = outcome if other is run else other.find(outcome)
                    if same is not None:
                        own.append(same)
        seen.append(run)
    if len(groups) > 1:
        groups["all"] = [[o for members in groups.values() for o in members[i]] for i in range(len(runs))]
    rows = []
    for group, members in groups.items():
        for i, run in enumerate(runs):
            others = [other for j, other in enumerate(runs) if j != i and other.has_seconds]
            common = [o for o in members[i] if all(other.find(o) is not None for other in others)]
            rows.append(_row(group, run.name, members[i], common, wrong, timeout))
    return [row for row in rows if row.instances]


def _row(
    group: str,
    name: str,
    own: Sequence[Outcome],
    common: Sequence[Outcome],
    wrong: set[tuple[str, str, tuple[str, str]]],
    timeout: float | None,
) -> Row:
    return Row(
        group,
        name,
        len(own),
        sum(outcome.decided for outcome in own),
        sum(outcome.verdict == "sat" for outcome in own),
        sum(outcome.verdict == "unsat" for outcome in own),
        sum(outcome.verdict in FAILURES for outcome in own),
        sum((name, outcome.category, outcome.names) in wrong for outcome in own),
        par2(common, timeout),
    )


def par2(outcomes: Sequence[Outcome], timeout: float | None = None) -> float | None:
    """timeout: seconds for outcomes that have none of their own.  None where something is not known."""
    total = 0.0
    for outcome in outcomes:
        limit = outcome.timeout if outcome.timeout is not None else timeout
        if outcome.decided:
            if outcome.seconds is None:
                return None
            total += outcome.seconds
        elif limit is None:
            return None
        else:
            total += 2 * limit
    return total / len(outcomes) if outcomes else None


def pair(first: Run, second: Run) -> Pair:
    common, both, only_first, only_second = 0, [], [], []
    for outcome in first.outcomes:
        other = second.find(outcome)
        if other is None:
            continue
        common += 1
        if outcome.decided and other.decided:
            if outcome.verdict == other.verdict and outcome.seconds and other.seconds:
                both.append(outcome.seconds / other.seconds)
        elif outcome.decided:
            only_first.append(outcome)
        elif other.decided:
            only_second.append(other)
    ratio = statistics.median(both) if both else None
    return Pair(first.name, second.name, common, len(both), ratio, tuple(only_first), tuple(only_second))


def timed_pairs(first: Run, second: Run) -> Iterator[tuple[Outcome, Outcome]]:
    """The instances of which both runs know the seconds."""
    for outcome in first.outcomes:
        other = second.find(outcome)
        if other is not None and outcome.seconds is not None and other.seconds is not None:
            yield outcome, other
