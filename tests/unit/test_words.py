"""Properties in plain sentences: what is recognised, and that what is said is true of the property."""

from __future__ import annotations

import numpy as np
import pytest

from verifier.report.words import describe
from verifier.vnnlib.read import read_text
from verifier.vnnlib.robustness import robustness

BOX = """(declare-const X_0 Real) (declare-const X_1 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real) (declare-const Y_2 Real)
(assert (>= X_0 -1)) (assert (<= X_0 0.5)) (assert (>= X_1 2)) (assert (<= X_1 2))
"""


def words(assertions: str) -> str:
    return " ".join(describe(read_text(BOX + assertions)).sentences)


def test_robustness_of_a_picture() -> None:
    image = np.linspace(0, 1, 64)
    found = describe(robustness(image, 0.1, 3, 10), (1, 64))
    assert (found.kind, found.label) == ("robustness", 3)
    assert found.epsilon == pytest.approx(0.1)
    assert found.sentences[0] == "Every pixel value may differ from the original by up to 0.1 and stays within [0, 1]."
    assert "another class than 3 scores at least as high as class 3, of 10 classes" in found.sentences[1]


def test_robustness_without_a_range_and_with_fixed_inputs() -> None:
    radius = np.array([0.5, 0.5, 0.0])
    found = describe(robustness(np.zeros(3), radius, 0, 2, None), (1, 3))
    assert "Every input may differ from the original by up to 0.5" in found.sentences[0]
    assert "1 of the 3 inputs are fixed" in found.sentences[0]
    assert describe(robustness(np.zeros(3), 0.0, 0, 2, None)).epsilon == 0.0


def test_radii_of_their_own() -> None:
    radius = np.repeat([0.05, 0.2], 5)
    (first, _) = describe(robustness(np.zeros(10), radius, 1, 3, None)).sentences
    assert "by up to 0.05 to 0.2, depending on the input" in first


@pytest.mark.parametrize(
    "assertion",
    [
        "(assert (>= Y_1 Y_0))",  # only one of the others
        "(assert (or (and (>= Y_1 Y_0)) (and (>= Y_2 Y_1))))",  # two labels
        "(assert (or (and (>= Y_1 Y_0)) (and (>= (* 2 Y_2) Y_0))))",
        "(assert (or (and (>= Y_1 Y_0)) (and (>= Y_2 (+ Y_0 1)))))",
        "(assert (or (and (>= Y_1 Y_0)) (and (>= Y_2 Y_0) (<= X_0 0))))",
    ],
)
def test_what_is_no_robustness(assertion: str) -> None:
    assert describe(read_text(BOX + assertion)).kind == "general"


def test_robustness_as_it_is_written_elsewhere() -> None:
    found = describe(read_text(BOX + "(assert (or (and (>= Y_0 Y_1)) (and (>= Y_2 Y_1))))"))
    assert (found.kind, found.label) == ("robustness", 1)


@pytest.mark.parametrize(
    ("assertions", "said"),
    [
        ("(assert (>= Y_0 3.99))", "Y_0 is at least 3.99"),
        ("(assert (<= Y_0 Y_1)) (assert (<= Y_0 Y_2))", "Y_0 is the smallest of the 3 outputs"),
        ("(assert (>= Y_0 Y_1)) (assert (>= Y_0 Y_2))", "Y_0 is the largest of the 3 outputs"),
        ("(assert (<= (+ Y_0 Y_1) (* 2 Y_2)))", "Y_0 + Y_1 - 2 Y_2 is at most 0"),
        ("(assert (<= Y_0 X_0))", "-X_0 + Y_0 is at most 0"),
        ("(assert (or (and (>= Y_0 1)) (and (<= Y_0 -1))))", "Y_0 is at least 1, or Y_0 is at most -1"),
    ],
)
def test_conditions(assertions: str, said: str) -> None:
    text = words(assertions)
    assert text.startswith("X_0 lies between -1 and 0.5 and X_1 is 2.")
    assert f"Looked for: an input for which {said}." in text


def test_many_inputs_and_regions() -> None:
    declared = "".join(f"(declare-const X_{i} Real)" for i in range(20)) + "(declare-const Y_0 Real)"
    box = "".join(f"(assert (>= X_{i} 0)) (assert (<= X_{i} 0.25))" for i in range(20))
    text = " ".join(describe(read_text(declared + box + "(assert (>= Y_0 1))")).sentences)
    assert "The 20 inputs lie in ranges of width 0.25, between 0 and 0.25." in text
    parts = "(assert (or (and (<= X_0 0) (>= Y_0 1)) (and (>= X_0 0.1) (>= Y_0 2))))"
    assert "2 parts over 2 regions" in words(parts)


def test_a_contradiction() -> None:
    assert "contradicts itself" in words("(assert (<= X_0 -2))")
