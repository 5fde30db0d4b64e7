"""Generate cases, let every engine answer them, judge the answers, shrink and store what is wrong."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.case import Case
from fuzz.generate import random_case
from fuzz.judge import Answer, Complaint, judge, truth
from fuzz.query import query_of
from fuzz.shrink import shrink
from fuzz.stored import StoredCase, store
from verifier.deadline import Deadline
from verifier.query import Query
from verifier.verdict import Verdict

ENGINE_SECONDS = 30.0
"""For one engine and one case; tiny cases take milliseconds, so whoever needs this long is stuck."""

LARGER = 14
"""Cases with more neurons than this are counted apart."""

Engine = Callable[[Query, Deadline], Answer | None]
"""An engine as the fuzzer calls it; None where it does not apply."""


@dataclass(frozen=True, eq=False)
class Failure:
    """A wrong answer; ``case`` is the smallest one found, stored in ``file``."""

    case: Case
    engine: str
    complaint: Complaint
    file: Path


@dataclass(eq=False)
class Tally:
    """What a run did: cases, answers by engine and verdict, failures."""

    cases: int = 0
    larger: int = 0
    ties: int = 0
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For a person."""
        kinds = f"{self.larger} of more than {LARGER} neurons, {self.ties} with a tie"
        yield f"{self.cases} cases ({kinds}), {len(self.failures)} failures"
        for engine, group in itertools.groupby(sorted(self.answers), key=lambda key: key[0]):
            counts = ", ".join(f"{self.answers[key]} {key[1]}" for key in group)
            yield f"  {engine}: {counts}"


def examine(case: Case, engines: Mapping[str, Engine], tally: Tally | None = None) -> Iterator[tuple[str, Complaint]]:
    """What is wrong with the engines' answers to a case, by engine."""
    query = query_of(case)
    truths = [truth(case.network, disjunct) for disjunct in case.spec.disjuncts]
    if tally is not None:
        tally.cases += 1
        tally.ties += any(known.verdict is Verdict.UNKNOWN for known in truths)
        tally.larger += sum(case.network.nodes[k].size for k in case.network.relus) > LARGER
    for name, engine in engines.items():
        try:
            answer = engine(query, Deadline.after(ENGINE_SECONDS))
        except Exception as error:  # whatever an engine raises on a valid case is a defect of it
            yield name, Complaint(f"crash {type(error).__name__}", f"{type(error).__name__}: {error}")
            continue
        if answer is None:
            continue
        if tally is not None:
            tally.answers[name, str(answer.verdict)] += 1
        complaint = judge(case, truths, answer, query.replay)
        if complaint is not None:
            yield name, complaint


def reduced(case: Case, name: str, engine: Engine, kind: str, deadline: Deadline) -> tuple[Case, Complaint]:
    """The smallest case found on which ``engine`` fails in the same way, and what is said of it there."""
    last = Complaint(kind, "")

    def fails(smaller: Case) -> bool:
        nonlocal last
        try:
            found = [complaint for _, complaint in examine(smaller, {name: engine})]
        except Exception:  # a step made something that is no case: an empty layer, a model nobody can write
            return False
        if found and found[0].kind == kind:
            last = found[0]
            return True
        return False

    small = shrink(case, fails, deadline)
    return small, last


def fuzz(
    engines: Mapping[str, Engine],
    seeds: Iterable[int],
    deadline: Deadline,
    folder: Path,
    shrink_seconds: float = 30.0,
    say: Callable[[str], None] = print,
    case_of: Callable[[int], Case] = random_case,
) -> Tally:
    """Examine the cases of the seeds until they or the time run out; failures are stored in ``folder``.

    One failure of each kind and engine is shrunk and stored, so that one defect does not fill the folder.
    """
    tally = Tally()
    known: set[tuple[str, str]] = set()
    for seed in seeds:
        if deadline.expired:
            break
        case = case_of(seed)
        for name, complaint in examine(case, engines, tally):
            if (name, complaint.kind) in known:
                continue
            known.add((name, complaint.kind))
            say(f"seed {seed}: {name}: {complaint.kind}: {complaint.text}\n  {case.size}; shrinking")
            limit = Deadline.after(shrink_seconds)
            small, reason = reduced(case, name, engines[name], complaint.kind, limit)
            reason = reason if reason.text else complaint
            small = dataclasses.replace(small, seed=seed)
            file = store(StoredCase(small, name, f"{reason.kind}: {reason.text}"), folder)
            say(f"  stored in {file}: {small.size}")
            tally.failures.append(Failure(small, name, reason, file))
    return tally
