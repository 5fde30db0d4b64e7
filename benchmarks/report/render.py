"""The HTML page of a report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from verifier import __version__
from verifier.benchmarks.comparison import FAILURES, disagreements, pair, table
from verifier.benchmarks.outcomes import Outcome, Run
from verifier.benchmarks.record import Status
from verifier.benchmarks.report.accuracy import Accuracy, robust_accuracy
from verifier.benchmarks.report.data import (
    Details,
    Item,
    items_of,
    places_of,
    script_json,
    verdict_counts,
)
from verifier.benchmarks.report.plots import Curve, Point, cactus, scatter

MOST_SCATTERS = 3
MOST_IMAGES = 1000


def render(runs: Sequence[Run], title: str = "", images: int = MOST_IMAGES, timeout: float | None = None) -> str:
    """One HTML page about runs over the same instances.

    title: of the page; by default the names of the runs.  images: most counterexamples drawn.
    timeout: seconds, for PAR-2 of files that do not say.
    """
    environment = Environment(
        loader=PackageLoader("verifier.benchmarks", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = environment.loader
    assert source is not None
    items = items_of(runs)
    details = Details(items, images)
    timed = [run for run in runs if run.has_seconds]
    differing = disagreements(runs)
    numbers = {id(outcome): item.number for item in items for outcome in item.outcomes}
    return environment.get_template("page.html").render(
        title=title or "Verification of " + ", ".join(dict.fromkeys(item.category for item in items)),
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(source.get_source(environment, "style.css")[0]),
        script=Markup(source.get_source(environment, "page.js")[0]),
        runs=runs,
        columns=[(number, run.name) for number, run in enumerate(runs) if run.has_seconds],
        several=len(timed) > 1,
        known=[run.name for run in runs if not run.has_seconds],
        contradictions=[(d, numbers.get(id(d.first))) for d in differing if not d.doubtful],
        doubts=[(d, numbers.get(id(d.first))) for d in differing if d.doubtful],
        defects=_defects(items),
        places={run.name: places_of(run) for run in runs},
        counts=[(run.name, verdict_counts(_outcomes(items, runs, run))) for run in timed],
        rows=[row for row in table(runs, timeout=timeout) if any(row.run == run.name for run in timed)],
        pairs=[pair(timed[0], other) for other in timed[1:]],
        failures=any(o.verdict in FAILURES for run in timed for o in run.outcomes),
        accuracy=_accuracy(timed),
        cactus=cactus([_curve(run) for run in timed]),
        scatters=_scatters(items, runs, timed),
        items=items,
        categories=sorted({item.category for item in items}),
        statuses=list(dict.fromkeys(o.verdict for i in items for o in i.outcomes if o and o.seconds is not None)),
        left_out=details.left_out,
        details=Markup(details.json()),
        names=Markup(script_json([run.name for run in runs])),
    )


def _outcomes(items: Sequence[Item], runs: Sequence[Run], run: Run) -> list[Outcome]:
    """What one of the runs has of the items."""
    number = list(runs).index(run)
    return [outcome for item in items if (outcome := item.outcomes[number]) is not None]


def _accuracy(timed: Sequence[Run]) -> list[tuple[str, list[Accuracy]]]:
    """Robust accuracy of every run that has records of robustness properties."""
    found = [(run.name, robust_accuracy(o.record for o in run.outcomes if o.record is not None)) for run in timed]
    return [(name, rows) for name, rows in found if rows]


def _defects(items: Sequence[Item]) -> list[tuple[Item, str]]:
    """Instances in which an exception of ours was not foreseen."""
    seen = [(item, outcome.record) for item in items for outcome in item.outcomes if outcome is not None]
    return [
        (item, record.message)
        for item, record in seen
        if record is not None and record.status is Status.ERROR and record.traceback
    ]


def _curve(run: Run) -> Curve:
    return Curve(run.name, [o.seconds for o in run.outcomes if o.decided and o.seconds is not None])


def _scatters(items: Sequence[Item], runs: Sequence[Run], timed: Sequence[Run]) -> list[tuple[str, str, Markup]]:
    """The first run against each of the next ones."""
    plots = []
    names = list(runs)
    for other in timed[1 : MOST_SCATTERS + 1]:
        across, up = names.index(timed[0]), names.index(other)
        points = []
        for item in items:
            first, second = item.outcomes[across], item.outcomes[up]
            if first is None or second is None or first.seconds is None or second.seconds is None:
                continue
            kinds = {o.verdict for o in (first, second) if o.decided}
            kind = "wrong" if len(kinds) > 1 else kinds.pop() if kinds else "open"
            told = f"{item.model} {item.spec}: {first.verdict} {first.seconds:.3g} s, {second.verdict} "
            points.append(Point(first.seconds, second.seconds, kind, f"{told}{second.seconds:.3g} s", item.link))
        plots.append((timed[0].name, other.name, scatter(points, timed[0].name, other.name)))
    return plots
