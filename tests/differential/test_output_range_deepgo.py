"""DeepGO's reachability queries: the ranges lie in the enclosures that others computed."""

from __future__ import annotations

import csv

import pytest

from package_map import ROOT
from verifier import load, output_range
from verifier.benchmarks.output_ranges import agrees

FOLDER = ROOT.parent / "shared" / "benchmarks" / "deepgo"
TOLERANCE = 0.01


@pytest.mark.parametrize("name", ["N-0", "N-1", "N-2", "N-3", "N-4", pytest.param("N-5", marks=pytest.mark.slow)])
def test_ranges_agree_with_the_reference(name: str) -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"{FOLDER} is absent")
    with (FOLDER / "reference.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if name in row["onnx"])
    found = output_range(load(FOLDER / row["onnx"]), (0, 10), 0, TOLERANCE, timeout=120)
    assert not found.reason
    assert found.gap <= TOLERANCE
    assert agrees(found, row, TOLERANCE)
