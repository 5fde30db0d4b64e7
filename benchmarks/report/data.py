"""Runs to what the page needs: rows of the table, details of every instance, and the groups of the summary.

Machines, versions and options are the same for nearly all records of a journal: they are stored once and named by
number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.benchmarks.comparison import FAILURES
from verifier.benchmarks.instances import short_name
from verifier.benchmarks.outcomes import Outcome, Run
from verifier.benchmarks.record import Record
from verifier.benchmarks.report.pictures import significant, witness_data

MOST_BOUNDS = 30
"""Disjuncts of which a page shows the bounds; the open ones first."""


@dataclass(frozen=True)
class Item:
    """One instance: its outcome in every run, None where a run has none."""

    number: int
    category: str
    model: str
    spec: str
    outcomes: tuple[Outcome | None, ...]
    disagreement: bool

    @property
    def link(self) -> str:
        return f"#i{self.number}"

    @property
    def reference(self) -> str:
        """Verdicts of the runs that have no seconds, known ones only."""
        return ", ".join(o.verdict for o in self.outcomes if o is not None and o.seconds is None and o.decided)


def items_of(runs: Sequence[Run]) -> list[Item]:
    """The instances of all runs with seconds, each once, in the order of the first run that has them."""
    items: list[Item] = []
    seen: list[Run] = []
    for run in [run for run in runs if run.has_seconds] or runs:
        for outcome in run.outcomes:
            if any(earlier.find(outcome) for earlier in seen):
                continue
            outcomes = tuple(outcome if other is run else other.find(outcome) for other in runs)
            verdicts = {o.verdict for o in outcomes if o is not None and o.decided}
            items.append(
                Item(
                    len(items),
                    outcome.category,
                    short_name(outcome.onnx),
                    short_name(outcome.vnnlib),
                    outcomes,
                    len(verdicts) > 1,
                )
            )
        seen.append(run)
    return items


class Details:
    """What the pages of single instances show, as JSON for the page's script."""

    def __init__(self, items: Sequence[Item], images: int) -> None:
        """images: how many counterexamples may be drawn."""
        self._places: dict[str, int] = {}
        self._images = images
        self.drawn = 0
        self.left_out = 0
        self._items = [[None if o is None else self._outcome(o) for o in item.outcomes] for item in items]

    def json(self) -> str:
        return script_json({"places": [json.loads(place) for place in self._places], "items": self._items})

    def _outcome(self, outcome: Outcome) -> dict[str, Any]:
        found: dict[str, Any] = {"verdict": outcome.verdict, "message": outcome.message}
        if outcome.doubtful:
            found["doubtful"] = True
        if outcome.seconds is not None:
            found["seconds"] = significant(outcome.seconds)
        if outcome.record is not None:
            found |= self._record(outcome.record)
        return {key: value for key, value in found.items() if value or isinstance(value, int | float)}

    def _record(self, record: Record) -> dict[str, Any]:
        place = {"machine": record.machine, "versions": record.versions, "options": _without(record.options, "timeout")}
        number = self._places.setdefault(json.dumps(place, sort_keys=True), len(self._places))
        open_first = sorted(enumerate(record.bounds), key=lambda pair: pair[1].get("level") is not None)
        found: dict[str, Any] = {
            "onnx": record.onnx,
            "vnnlib": record.vnnlib,
            "timeout": record.timeout,
            "finished": record.finished[:19].replace("T", " "),
            "asked": list((record.asked or {}).get("sentences", ())),
            "label": (record.asked or {}).get("label"),
            "evidence": record.evidence and f"{record.evidence['level']}: {', '.join(record.evidence['methods'])}",
            "stages": {name: significant(seconds, 4) for name, seconds in record.stages.items()},
            "counts": {name: significant(amount) for name, amount in record.counts.items()},
            "bounds": [
                [i, _rounded(b.get("lower")), _rounded(b.get("upper")), b.get("closed_by") or ""]
                for i, b in open_first[:MOST_BOUNDS]
            ],
            "disjuncts": len(record.bounds),
            "files": {name: digest[:16] for name, digest in record.files.items()},
            "seen": dict(record.seen or {}),
            "traceback": record.traceback,
            "output": record.output,
            "place": number,
        }
        if record.witness is not None:
            draw = self.drawn < self._images
            found["witness"] = witness_data(record.witness, draw)
            if "pictures" in found["witness"]:
                self.drawn += 1
            elif "bars" not in found["witness"]:
                self.left_out += not draw
        if found["label"] is None:
            del found["label"]
        return found


def script_json(value: Any) -> str:
    """JSON that nothing in it can end the script element it stands in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def verdict_counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Instances by what the bars of the summary show: sat, unsat, undecided, failed."""
    counts = Counter(o.verdict if o.decided else "failed" if o.verdict in FAILURES else "undecided" for o in outcomes)
    return {kind: counts[kind] for kind in ("unsat", "sat", "undecided", "failed")}


def places_of(run: Run) -> list[str]:
    """In words, where and with what a run's records were made; more than one line after moving machines."""
    found: dict[str, None] = {}
    for outcome in run.outcomes:
        record = outcome.record
        if record is not None and record.machine:
            machine, versions = record.machine, record.versions
            found[
                f"{machine.get('host', '?')}: {machine.get('processor', '?')}, {machine.get('cores', '?')} cores, "
                f"{machine.get('memory_gb', '?')} GB; nn-verifier {versions.get('verifier', '?')} "
                f"{versions.get('commit', '')}; {record.options.get('threads', '?')} threads per instance"
            ] = None
    return list(found)


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _rounded(value: float | None) -> float | None:
    return None if value is None else significant(value)
