"""The two plots of a report as SVG: how many instances within which time, and one run's seconds against another's.

Drawn by hand because nothing else is needed: two axes, both logarithmic where they are seconds.  Colours come from the
page's style sheet, so plots follow dark mode and print; points are links to the pages of their instances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 42
SHORTEST = 1e-3
"""Seconds; anything below is drawn there."""


@dataclass(frozen=True)
class Curve:
    """name and the seconds of every decided instance of a run."""

    name: str
    seconds: Sequence[float]


@dataclass(frozen=True)
class Point:
    """seconds in both runs; kind: a verdict, which decides colour and shape.  link: a page's address."""

    x: float
    y: float
    kind: str
    title: str
    link: str


@dataclass(frozen=True)
class LogScale:
    """Seconds to pixels, between powers of ten."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> LogScale:
        shown = [max(value, SHORTEST) for value in values] or [0.1, 10]
        low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
        return cls(low, max(high, low + 1), start, end)

    def at(self, value: float) -> float:
        part = (math.log10(max(value, SHORTEST)) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        return [10.0**power for power in range(int(self.low), int(self.high) + 1)]


def cactus(curves: Sequence[Curve]) -> Markup:
    """Instances decided (across) within seconds each (up), a line per run."""
    vertical = LogScale.around([s for curve in curves for s in curve.seconds], HEIGHT - BOTTOM, TOP)
    most = max((len(curve.seconds) for curve in curves), default=1) or 1
    step = _round_step(most / 5)
    top = max(step, math.ceil(most / step) * step)

    def across(count: float) -> float:
        return LEFT + count / top * (WIDTH - LEFT - RIGHT)

    parts = [_horizontal(vertical)]
    for count in range(0, int(top) + 1, int(step)):
        x = across(count)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{count}</text>')
    for number, curve in enumerate(curves):
        ordered = sorted(curve.seconds)
        points = [f"{across(i):.1f},{vertical.at(s):.1f}" for i, s in enumerate(ordered, 1)]
        if points:
            dashes = "" if number == 0 else f' stroke-dasharray="{8 - 2 * min(number, 3)} {2 + number}"'
            parts.append(
                Markup('<polyline class="curve run-{}"{} points="{}"><title>{}: {} decided</title></polyline>').format(
                    number % 6, Markup(dashes), " ".join(points), curve.name, len(ordered)
                )
            )
            parts.append(f'<circle class="dot run-{number % 6}" cx="{points[-1].split(",")[0]}" '
                         f'cy="{points[-1].split(",")[1]}" r="3"/>')  # fmt: skip
    parts += [_below("instances decided"), _beside("seconds")]
    return _svg(parts, "How many instances each run decides within a time")


def scatter(points: Sequence[Point], first: str, second: str) -> Markup:
    """Seconds in two runs; points above the diagonal were faster in the first."""
    values = [value for point in points for value in (point.x, point.y)]
    across = LogScale.around(values, LEFT, WIDTH - RIGHT)
    vertical = LogScale.around(values, HEIGHT - BOTTOM, TOP)
    parts = [_horizontal(vertical)]
    for tick in across.ticks:
        x = across.at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_seconds(tick)}</text>'
        )
    low, high = 10**across.low, 10**across.high
    for factor in (0.1, 1.0, 10.0):
        start, end = max(low, low / factor), min(high, high / factor)
        if start < end:
            kind = "diagonal" if factor == 1 else "diagonal faint"
            parts.append(
                f'<line class="{kind}" x1="{across.at(start):.1f}" y1="{vertical.at(start * factor):.1f}" '
                f'x2="{across.at(end):.1f}" y2="{vertical.at(end * factor):.1f}"/>'
            )
    for point in points:
        x, y = across.at(point.x), vertical.at(point.y)
        parts.append(
            Markup('<a href="{}"><path class="mark {}" d="{}"><title>{}</title></path></a>').format(
                point.link, point.kind, _mark(point.kind, x, y), point.title
            )
        )
    parts += [_below(f"seconds, {first}"), _beside(f"seconds, {second}")]
    return _svg(parts, f"Seconds of {first} against seconds of {second}")


def _mark(kind: str, x: float, y: float) -> str:
    """Shapes as well as colours tell the verdicts apart."""
    if kind == "sat":
        return f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"
    if kind == "unsat":
        return f"M{x - 3:.1f} {y:.1f}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"
    return f"M{x - 3:.1f} {y + 3:.1f}h6l-3 -6z"


def _horizontal(scale: LogScale) -> str:
    parts = []
    for tick in scale.ticks:
        y = scale.at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_seconds(tick)}</text>')
    return "".join(parts)


def _seconds(value: float) -> str:
    return f"{value:g}"


def _below(words: str) -> Markup:
    return Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
        (LEFT + WIDTH - RIGHT) // 2, HEIGHT - 6, words
    )


def _beside(words: str) -> Markup:
    middle = (TOP + HEIGHT - BOTTOM) // 2
    return Markup('<text class="axis" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
        middle, words
    )


def _svg(parts: Sequence[str], label: str) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)
    return head + Markup("".join(parts)) + Markup("</svg>")


def _round_step(value: float) -> int:
    """1, 2 or 5 times a power of ten, not below ``value``."""
    power = 10 ** max(0, math.floor(math.log10(max(value, 1))))
    return int(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value))
