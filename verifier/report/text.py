"""A result as plain text and as JSON: what the command line prints and writes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from verifier.verdict import DisjunctBounds, Result, SearchStatistics, Verdict


def summary(result: Result) -> str:
    """The verdict on the first line, then what it rests on; indented, one fact per line."""
    lines = [str(result.verdict)]
    if result.message:
        lines.append(f"  {result.message}")
    if result.evidence is not None:
        lines.append(f"  evidence: {result.evidence.level} ({', '.join(result.evidence.methods)})")
    if result.recorded is not None:
        lines.append(f"  evidence file: {result.recorded.path} ({result.recorded.size:,} bytes)")
    if result.witness is not None:
        witness = result.witness
        lines.append(
            f"  counterexample to disjunct {witness.disjunct + 1} of {len(result.bounds)}, "
            f"margin {witness.margin:.6g}, confirmed by onnxruntime"
        )
    if result.verdict in (Verdict.TIMEOUT, Verdict.UNKNOWN):
        still = [(i, bound) for i, bound in enumerate(result.bounds) if bound.level is None]
        lines += [f"  disjunct {i + 1}: {_range(bound)}" for i, bound in still[:10]]
        if len(still) > 10:
            lines.append(f"  and {len(still) - 10} more")
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in result.statistics.stages.items())
    lines.append(f"  seconds: {result.statistics.seconds:.2f}" + (f" ({stages})" if stages else ""))
    lines += [f"  {name}: {_work(search)}" for name, search in result.statistics.searches.items()]
    return "\n".join(lines)


def _work(search: SearchStatistics) -> str:
    closed = "".join(f", {count:,} closed by {what}" for what, count in search.closed.items() if count)
    left = f", {search.open:,} open" if search.open else ""
    return f"{search.visited:,} regions, {search.rate:,.0f} per second{closed}{left}"


def _range(bound: DisjunctBounds) -> str:
    lower = f"at least {bound.lower:.6g}" if math.isfinite(bound.lower) else "not bounded below yet"
    upper = f"at most {bound.upper:.6g}" if math.isfinite(bound.upper) else "no point tried yet"
    return f"smallest margin {lower}, {upper}"


def as_json(result: Result, context: Mapping[str, Any]) -> str:
    """Everything in the result, and ``context`` (files, options, versions), as JSON text.

    Numbers that JSON lacks (infinite bounds) become null.
    """
    witness = result.witness
    document = {
        "verdict": str(result.verdict),
        "message": result.message,
        "evidence": None
        if result.evidence is None
        else {"level": str(result.evidence.level), "methods": list(result.evidence.methods)},
        "evidence_file": None if result.recorded is None else dataclasses.asdict(result.recorded),
        "witness": None
        if witness is None
        else {
            "x": witness.x.tolist(),
            "y": witness.y.tolist(),
            "disjunct": witness.disjunct,
            "margin": _finite(witness.margin),
        },
        "bounds": [
            {
                "lower": _finite(bound.lower),
                "upper": _finite(bound.upper),
                "closed_by": bound.closed_by or None,
                "level": None if bound.level is None else str(bound.level),
            }
            for bound in result.bounds
        ],
        "statistics": {
            "seconds": result.statistics.seconds,
            "stages": result.statistics.stages,
            "counts": result.statistics.counts,
            "searches": {
                name: {**dataclasses.asdict(search), "regions_per_second": search.rate}
                for name, search in result.statistics.searches.items()
            },
        },
        **context,
    }
    return json.dumps(document, indent=1) + "\n"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
