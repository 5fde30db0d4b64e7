"""How long reading a 1 MB property over 12,288 inputs takes, in the styles found in practice.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/parse_speed.py [--repeats 7]

Prints, for each style, the size of the text and the seconds to read it: the best and the median of several
runs in one process.  Reading is everything between the bytes on disk and the finished ``Spec``.  Requirement:
under 0.5 s for 1 MB on one core.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from verifier.vnnlib import read

N_INPUTS = 12_288
N_OUTPUTS = 200


def declarations() -> str:
    """All inputs and outputs, one line each."""
    names = [*(f"X_{i}" for i in range(N_INPUTS)), *(f"Y_{i}" for i in range(N_OUTPUTS))]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def bounds(digits: int) -> list[tuple[float, float]]:
    """A random pixel's interval for every input, with that many decimals."""
    centres = np.random.default_rng(0).uniform(0, 1, N_INPUTS)
    return [(round(c - 0.01, digits), round(c + 0.01, digits)) for c in centres.tolist()]


def other_class_wins() -> str:
    """The usual output part: one disjunct per other class."""
    options = "".join(f"    (and (>= Y_{i} Y_0))\n" for i in range(1, N_OUTPUTS))
    return f"(assert (or\n{options}))\n"


def flat(digits: int) -> str:
    """One assert per bound."""
    lines = (f"(assert (<= X_{i} {high}))\n(assert (>= X_{i} {low}))\n" for i, (low, high) in enumerate(bounds(digits)))
    return declarations() + "".join(lines) + other_class_wins()


def nested(digits: int, n_disjuncts: int) -> str:
    """One assert with every bound in every disjunct."""
    box = " ".join(f"(>= X_{i} {low}) (<= X_{i} {high})" for i, (low, high) in enumerate(bounds(digits)))
    options = "".join(f"    (and {box} (>= Y_{i} 100))\n" for i in range(n_disjuncts))
    return declarations() + f"(assert (or\n{options}))\n"


def constants_left(digits: int) -> str:
    """Constants on the left, negative numbers as ``(- 0.5)``: what writers that follow SMT-LIB produce."""
    lines = (
        f"(assert (>= {high} X_{i}))\n(assert (<= (- {abs(low)}) X_{i}))\n"
        for i, (low, high) in enumerate(bounds(digits))
    )
    return declarations() + "".join(lines) + other_class_wins()


def arithmetic(digits: int) -> str:
    """Every bound wrapped in arithmetic, so that no short cut applies."""
    lines = (
        f"(assert (<= (* 2 X_{i}) {high}))\n(assert (>= (+ X_{i} 1) {low}))\n"
        for i, (low, high) in enumerate(bounds(digits))
    )
    return declarations() + "".join(lines) + other_class_wins()


def many_small_boxes() -> str:
    """Ten thousand boxes over one input, two disjuncts each: the nn4sys style."""
    options = "".join(
        f"    (and (>= X_0 {i}) (<= X_0 {i + 0.5}) {output})\n"
        for i in range(10_000)
        for output in (f"(<= Y_0 {i - 9})", f"(>= Y_0 {i + 9})")
    )
    return f"(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (or\n{options}))\n"


def styles() -> Iterator[tuple[str, str]]:
    yield "flat, one assert per bound, 6 decimals", flat(6)
    yield "flat, one assert per bound, 16 decimals", flat(16)
    yield "nested, (or (and all bounds)), 1 disjunct", nested(6, 1)
    yield "nested, (or (and all bounds)), 2 disjuncts", nested(4, 2)
    yield "nested, (or (and all bounds)), 20 disjuncts", nested(6, 20)
    yield "flat, constants left, negative as (- 0.5)", constants_left(6)
    yield "flat, arithmetic in every bound", arithmetic(6)
    yield "20,000 disjuncts over 10,000 boxes", many_small_boxes()


def seconds(path: Path, repeats: int) -> list[float]:
    """Wall time of each of several readings."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        read(path)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"{'style':46} {'MB':>6} {'best s':>8} {'median s':>9} {'gz best s':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in styles():
            plain, packed = Path(folder, "spec.vnnlib"), Path(folder, "spec.vnnlib.gz")
            plain.write_text(text)
            packed.write_bytes(gzip.compress(text.encode()))
            times, packed_times = seconds(plain, repeats), seconds(packed, repeats)
            print(
                f"{name:46} {len(text) / 1e6:6.2f} {min(times):8.3f} {statistics.median(times):9.3f} "
                f"{min(packed_times):10.3f}"
            )


if __name__ == "__main__":
    main()
