"""Distances against one mixed-integer program that minimises them, solved by HiGHS."""

from __future__ import annotations

import numpy as np
import pytest

from package_map import ROOT
from support.distance_program import least_distance
from verifier import load
from verifier.deadline import Deadline
from verifier.radius.certify import RadiusOptions, certify
from verifier.radius.question import question

DIGITS = ROOT / "benchmarks" / "digits"
TOLERANCE = 1e-4


@pytest.mark.parametrize(("norm", "number"), [("linf", 19), ("l1", 19), ("l1", 2), ("l0", 2), ("l0", 4)])
def test_distance_is_the_optimum_of_the_program(norm: str, number: int) -> None:
    images = np.load(DIGITS / "images.npz")
    model = load(DIGITS / "onnx" / "mlp.onnx")
    asked = question(model, images["images"][number], int(images["labels"][number]), norm=norm)
    found = certify(asked, Deadline.after(60), RadiusOptions(tolerance=TOLERANCE))
    assert found.closed
    optimum = least_distance(asked, found.adversarial * (1 + 1e-3), 120)
    # HiGHS is within 1e-6 or so of the rows, and 1e-4 of the optimum.
    slack = 2e-4 * max(1.0, optimum)
    assert found.certified <= optimum + slack
    assert optimum - slack <= found.adversarial
