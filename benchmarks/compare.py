"""Compare results of a batch run with reference verdicts: ``python -m verifier.benchmarks.compare``.

    compare RESULTS.csv REFERENCE [RESULTS2.csv ...] [--timeout 60] [--by network]

RESULTS is what ``run_instances`` writes; REFERENCE is a reference.csv or a folder of folders that hold one
(its columns onnx, vnnlib, verdict are read; the folder's name is the category).  For every category and
results file it prints how many instances were decided, how many verdicts contradict the reference, and
PAR-2: the mean of the seconds, an undecided instance counting as twice the limit.

A contradiction is ``sat`` against ``unsat``.  Where the reference itself is in doubt (``sat?``: a minority of
tools disagreed; ``disputed``: no majority) a disagreement is listed apart.  Two results files that contradict
each other count as well, whatever the reference says.  The exit code is 1 when there is a contradiction.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

DECIDED = ("sat", "unsat")
HEADER = ("category", "run", "instances", "decided", "sat", "unsat", "contradicting", "missed", "PAR-2")

Key = tuple[str, str]
"""Model and property by name, folders and ``.gz`` left out."""


@dataclass(frozen=True)
class Run:
    """One row of a results file."""

    category: str
    key: Key
    verdict: str
    seconds: float
    message: str

    @property
    def decided(self) -> bool:
        return self.verdict in DECIDED

    def __str__(self) -> str:
        return f"{self.category} {' '.join(self.key)}"


@dataclass(frozen=True)
class Finding:
    """An instance worth a line, and what is said of it."""

    run: Run
    text: str


def key_of(row: dict[str, str]) -> Key:
    onnx, vnnlib = (Path(row[column]).name.removesuffix(".gz") for column in ("onnx", "vnnlib"))
    return onnx, vnnlib


def read_results(path: Path) -> list[Run]:
    """The rows of a results file; of an instance that was run twice the last one counts."""
    runs = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("seconds"):
                run = Run(row["category"], key_of(row), row["verdict"], float(row["seconds"]), row["message"])
                runs[run.category, run.key] = run
    return list(runs.values())


class Reference:
    """Known verdicts, by category and instance; the category matters only where names are not unique."""

    def __init__(self, path: Path) -> None:
        self._exact: dict[tuple[str, Key], str] = {}
        self._by_key: dict[Key, set[str]] = {}
        for file in sorted(path.glob("**/reference.csv")) if path.is_dir() else [path]:
            with file.open(newline="", encoding="utf-8") as rows:
                for row in csv.DictReader(rows):
                    self._exact[file.resolve().parent.name, key_of(row)] = row["verdict"]
                    self._by_key.setdefault(key_of(row), set()).add(row["verdict"])

    def verdict(self, run: Run) -> str:
        """``unknown`` where nothing is known."""
        exact = self._exact.get((run.category, run.key))
        found = self._by_key.get(run.key, set()) if exact is None else {exact}
        return next(iter(found)) if len(found) == 1 else "unknown"


def contradicts(run: Run, verdict: str) -> bool:
    return run.decided and verdict in DECIDED and run.verdict != verdict


def in_doubt(run: Run, verdict: str) -> bool:
    """Whether a verdict differs from one that the reference tools themselves did not agree on."""
    return run.decided and (verdict == "disputed" or (verdict.endswith("?") and run.verdict != verdict[:-1]))


def missed(run: Run, verdict: str) -> bool:
    return not run.decided and verdict.removesuffix("?") in DECIDED


def par2(runs: Sequence[Run], timeout: float) -> float:
    return sum(run.seconds if run.decided else 2 * timeout for run in runs) / len(runs)


def table_rows(
    results: dict[str, list[Run]], reference: Reference, timeout: float, by: str
) -> Iterator[tuple[str, ...]]:
    """One row per group and results file, then one per file over all groups."""
    groups: dict[str, None] = {}
    for run in (run for runs in results.values() for run in runs):
        groups[group_of(run, by)] = None
    for group in [*groups, "all"] if len(groups) > 1 else groups:
        for name, runs in results.items():
            own = [run for run in runs if group in ("all", group_of(run, by))]
            if own:
                known = [(run, reference.verdict(run)) for run in own]
                counts = (
                    len(own),
                    sum(run.decided for run in own),
                    sum(run.verdict == "sat" for run in own),
                    sum(run.verdict == "unsat" for run in own),
                    sum(contradicts(*pair) for pair in known),
                    sum(missed(*pair) for pair in known),
                )
                yield (group, name, *map(str, counts), f"{par2(own, timeout):.2f}")


def group_of(run: Run, by: str) -> str:
    return run.category if by == "category" else f"{run.category}/{Path(run.key[0]).stem}"


def between_results(results: dict[str, list[Run]]) -> Iterator[Finding]:
    """Instances that one results file calls ``sat`` and another ``unsat``."""
    seen: dict[tuple[str, Key], tuple[str, Run]] = {}
    for name, runs in results.items():
        for run in filter(lambda run: run.decided, runs):
            other, first = seen.setdefault((run.category, run.key), (name, run))
            if first.verdict != run.verdict:
                yield Finding(run, f"{run.verdict} in {name}, {first.verdict} in {other}")


def print_table(rows: list[tuple[str, ...]], console: Console) -> None:
    """A drawn table on a terminal, aligned columns elsewhere."""
    if console.is_terminal:
        table = Table()
        for column, name in enumerate(HEADER):
            table.add_column(name, justify="left" if column < 2 else "right")
        for row in rows:
            table.add_row(*row, style="bold red" if row[6] != "0" else None)
        console.print(table)
        return
    widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]
    for row in [HEADER, *rows]:
        padded = [str.ljust(*pair) for pair in zip(row[:2], widths[:2], strict=True)]
        padded += [str.rjust(*pair) for pair in zip(row[2:], widths[2:], strict=True)]
        print("  ".join(padded).rstrip())


def print_findings(title: str, findings: list[Finding]) -> None:
    if findings:
        print(f"\n{title} ({len(findings)}):")
        for finding in findings:
            print(f"  {finding.run}: {finding.text}")


def compare(results: dict[str, list[Run]], reference: Reference, timeout: float, by: str) -> int:
    """Print the comparison of results files, by name; the number of contradictions."""
    print_table(list(table_rows(results, reference, timeout, by)), Console())
    wrong, doubtful, open_ones = list(between_results(results)), [], []
    for name, runs in results.items():
        for run in runs:
            verdict = reference.verdict(run)
            text = f"{run.verdict} in {name}, reference {verdict}, {run.seconds:.1f} s"
            finding = Finding(run, f"{text}: {run.message}" if run.message else text)
            if contradicts(run, verdict):
                wrong.append(finding)
            elif in_doubt(run, verdict):
                doubtful.append(finding)
            elif missed(run, verdict):
                open_ones.append(finding)
    print_findings("CONTRADICTIONS", wrong)
    print_findings("Differs where the reference tools did not agree themselves", doubtful)
    print_findings("Undecided, but decided by the reference", open_ones)
    return len(wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when there is a contradiction, else 0."""
    parser = argparse.ArgumentParser(prog="compare", description="Compare batch results with known verdicts.")
    parser.add_argument("results", type=Path, help="what run_instances wrote")
    parser.add_argument("reference", type=Path, help="reference.csv, or a folder with some below it")
    parser.add_argument("more", type=Path, nargs="*", metavar="results2", help="other runs to set beside it")
    parser.add_argument("--timeout", type=float, default=60.0, help="limit of the runs in seconds, for PAR-2")
    parser.add_argument("--by", choices=("category", "network"), default="category", help="rows of the table")
    options = parser.parse_args(arguments)
    paths = [options.results, *options.more]
    for path in [*paths, options.reference]:
        if not path.exists():
            parser.error(f"{path} does not exist")
    names = [path.stem for path in paths]
    labels = names if len(set(names)) == len(names) else [str(path) for path in paths]
    results = {label: read_results(path) for label, path in zip(labels, paths, strict=True)}
    return int(compare(results, Reference(options.reference), options.timeout, options.by) > 0)


if __name__ == "__main__":
    sys.exit(main())
