"""The competition's result files, written and read."""

from __future__ import annotations

import numpy as np
import pytest

from verifier.errors import SpecError
from verifier.verdict import Verdict
from verifier.vnnlib import counterexample_text, read_counterexample, read_result, result_text

X = np.array([[0.25, np.float32(0.1)], [-1e-30, 3.0]])
Y = np.array([-3.5, 1e20])


def test_format() -> None:
    assert result_text("sat", X, Y) == (
        "sat\n((X_0 0.25)\n (X_1 0.10000000149011612)\n (X_2 -1e-30)\n (X_3 3.0)\n (Y_0 -3.5)\n (Y_1 1e+20))\n"
    )


@pytest.mark.parametrize("verdict", ["unsat", "timeout", "unknown", "error"])
def test_other_verdicts_are_one_line(verdict: str) -> None:
    assert result_text(verdict) == f"{verdict}\n"
    assert result_text(Verdict(verdict)) == f"{verdict}\n"
    assert read_result(f"{verdict}\n") == (verdict, None)


def test_round_trip_is_exact_for_float32_and_float64() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        x = (rng.normal(size=(3, 5)) * 10.0 ** rng.integers(-30, 30, (3, 5))).astype(dtype)
        y = rng.normal(size=2).astype(dtype)
        verdict, point = read_result(result_text("sat", x, y))
        assert verdict == "sat"
        assert point is not None
        assert np.array_equal(point[0].astype(dtype), x.ravel())
        assert np.array_equal(point[1].astype(dtype), y)
        again = read_counterexample(counterexample_text(x, y))
        assert np.array_equal(again[0], point[0])
        assert np.array_equal(again[1], point[1])


def test_numbers_of_many_digits_are_indexed_in_order() -> None:
    x = np.arange(12.0)
    assert np.array_equal(read_counterexample(counterexample_text(x, x))[0], x)


def test_layout_and_order_are_free_when_reading() -> None:
    x, y = read_counterexample("( (Y_0 1)\n(X_1 2e0) (X_0\t-3) )")
    assert x.tolist() == [-3, 2]
    assert y.tolist() == [1]


def test_sat_without_a_counterexample_can_be_read() -> None:
    assert read_result("sat") == ("sat", None)


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("", "the file ends where a counterexample", 1, 1),
        ("X_0", "expected a counterexample", 1, 1),
        ("((X_0 1)\n (Z_0 2))", "expected a variable X_<number> or Y_<number>, found 'Z_0'", 2, 3),
        ("((X_0 1)\n (X_0 2))", "X_0 is given twice", 2, 3),
        ("((X_0 nan))", "expected a finite number, found 'nan'", 1, 7),
        ("((X_0 1e999))", "expected a finite number", 1, 7),
        ("((X_0 1 2))", "expected ')', found '2'", 1, 9),
        ("((X_0 1)", "the file ends where '(' or ')' was expected", 1, 9),
        ("((X_0 1) X_1)", "expected '(' or ')'", 1, 10),
        ("((X_0 1)(Y_0 1)) x", "expected nothing more behind the counterexample, found 'x'", 1, 18),
        ("((X_0 1)(X_2 1)(Y_0 1))", "the counterexample gives no value for X_1", None, None),
        ("((X_0 1)(X_01 1)(Y_0 1))", "the counterexample gives no value for X_1", None, None),
        ("((Y_0 1))", "the counterexample gives no value for X_0", None, None),
        ("((X_0 1))", "the counterexample gives no value for Y_0", None, None),
    ],
)
def test_refusals(text: str, message: str, line: int | None, column: int | None) -> None:
    with pytest.raises(SpecError) as caught:
        read_counterexample(text, "c.txt")
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith("c.txt:")


def test_refusals_of_result_files() -> None:
    with pytest.raises(SpecError, match="expected one of sat, unsat, timeout, unknown, error in the first line"):
        read_result("holds")
    with pytest.raises(SpecError, match="nothing may follow unsat"):
        read_result("unsat\n((X_0 1)(Y_0 1))")


def test_what_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="is no verdict"):
        result_text("holds")
    for arguments in (("sat",), ("sat", X), ("unsat", X), ("unsat", None, Y)):
        with pytest.raises(ValueError, match="a counterexample has inputs and outputs"):
            result_text(*arguments)
    with pytest.raises(ValueError, match="unsat comes without a counterexample"):
        result_text("unsat", X, Y)
    for bad in (np.array([np.nan]), np.array([np.inf]), np.zeros(0)):
        with pytest.raises(ValueError, match="not finite numbers"):
            counterexample_text(bad, Y)
        with pytest.raises(ValueError, match="not finite numbers"):
            counterexample_text(X, bad)
