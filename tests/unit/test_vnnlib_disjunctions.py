"""and, or, not, => at any depth: which disjuncts come out, and what is pruned on the way."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from support.specs import declarations, holds, only, read_asserts, rows
from verifier.errors import SpecError
from verifier.vnnlib import ReadLimits, Spec, read_text


def boxes(spec: Spec) -> list[tuple[float, float]]:
    """The interval of X_0 in every disjunct."""
    return [(float(d.lower[0]), float(d.upper[0])) for d in spec.disjuncts]


def test_or_gives_disjuncts_in_the_order_of_the_text() -> None:
    spec = read_asserts("(or (>= Y_0 1) (and (>= Y_1 2) (>= Y_0 3)) (<= X_0 0))")
    assert [rows(d) for d in spec.disjuncts] == [
        [([0, 0], [-1, 0], -1, False)],
        [([0, 0], [0, -1], -2, False), ([0, 0], [-1, 0], -3, False)],
        [],
    ]
    assert boxes(spec) == [(-10, 10), (-10, 10), (-10, 0)]


def test_nested_connectives_of_one_kind_are_one() -> None:
    spec = read_asserts("(or (or (>= Y_0 1) (or (>= Y_0 2))) (and (and (>= Y_0 3) (and (>= Y_1 4)))))")
    assert [len(d.constraints) for d in spec.disjuncts] == [1, 1, 2]


def test_asserts_are_conjoined_and_distributed() -> None:
    spec = read_asserts("(or (<= X_0 -1) (>= X_0 1))", "(or (>= Y_0 1) (>= Y_1 1))", "(>= Y_0 Y_1)")
    assert boxes(spec) == [(-10, -1), (-10, -1), (1, 10), (1, 10)]
    assert [len(d.constraints) for d in spec.disjuncts] == [2, 2, 2, 2]


def test_not_is_pushed_inward() -> None:
    spec = read_asserts("(not (or (< X_0 0) (and (<= Y_0 1) (not (<= Y_1 2)))))")
    assert boxes(spec) == [(0, 10), (0, 10)]
    assert [rows(d) for d in spec.disjuncts] == [[([0, 0], [-1, 0], -1, True)], [([0, 0], [0, 1], 2, False)]]


def test_negated_equation_is_a_choice() -> None:
    spec = read_asserts("(not (= Y_0 Y_1))")
    assert [rows(d) for d in spec.disjuncts] == [[([0, 0], [-1, 1], 0, True)], [([0, 0], [1, -1], 0, True)]]
    assert boxes(read_asserts("(or (not (= X_0 3)) (= X_0 4))")) == [(3, 10), (-10, 3), (4, 4)]


def test_implication() -> None:
    spec = read_asserts("(=> (>= X_0 0) (or (<= X_1 5) false) (>= Y_0 1))")
    for x, y, expected in (
        ([-1, 0], [0, 0], True),
        ([1, 6], [0, 0], True),
        ([1, 0], [0, 0], False),
        ([1, 0], [1, 0], True),
    ):
        assert holds(spec, x, y) is expected
    opposite = read_asserts("(not (=> (>= X_0 0) (>= Y_0 1)))")
    assert boxes(opposite) == [(0, 10)]
    assert rows(only(opposite)) == [([0, 0], [1, 0], 1, True)]
    nested = read_asserts("(=> (=> (>= X_0 0) (>= X_1 0)) (>= Y_0 1))")
    assert holds(nested, [1, -1], [0, 0])
    assert not holds(nested, [1, 1], [0, 0])


def test_true_and_false_as_operands() -> None:
    assert len(read_asserts("(or false (>= Y_0 1) false)").disjuncts) == 1
    assert read_asserts("(and true (>= Y_0 1) false)").disjuncts == ()
    assert holds(read_asserts("(or true (>= Y_0 1))"), [0, 0], [0, 0])
    assert read_asserts("(or false (not true))").disjuncts == ()


@pytest.mark.parametrize(
    "formula",
    [
        "(and (<= X_0 1) (>= X_0 2))",
        "(and (< X_0 1) (>= X_0 1))",
        "(and (<= X_0 1) (> X_0 1))",
        "(and (<= (* 3 X_0) 1) (> (* 3 X_0) 1))",  # 1/3 is no float64: the contradiction is found exactly
        "(and (<= X_0 (/ 1 3)) (>= (* 3 X_0) 2))",
        "(>= X_0 11)",
        "(or (>= X_0 11) (<= X_1 -11))",
        "(and (or (<= X_0 1) (<= X_0 2)) (or (>= X_0 3) (>= X_0 4)))",
        "(or (and (<= X_0 0) (or (>= X_0 1) (and (>= X_0 2) (>= Y_0 0)))) (< X_1 X_1))",
    ],
)
def test_contradictions_leave_no_disjunct(formula: str) -> None:
    assert read_asserts(formula).disjuncts == ()


def test_contradictory_asserts_leave_no_disjunct() -> None:
    spec = read_asserts("(<= X_0 1)", "(>= X_0 2)", "(>= Y_0 0)")
    assert spec.disjuncts == ()
    assert (spec.n_inputs, spec.n_outputs) == (2, 2)


def test_point_box_is_not_empty() -> None:
    assert boxes(read_asserts("(>= X_0 1)", "(<= X_0 1)")) == [(1, 1)]


def test_empty_boxes_are_pruned_while_distributing() -> None:
    """Thirty choices of two, 2**30 combinations, of which two leave a box."""
    asserts = [f"(or (<= X_0 -{i}) (>= X_0 {i}))" for i in range(1, 31)]
    assert boxes(read_asserts(*asserts, box=100)) == [(-100, -30), (30, 100)]


def test_the_bounds_of_the_whole_property_prune_before_distribution() -> None:
    impossible = " ".join(f"(or (<= X_0 {i}) (<= X_1 {i}))" for i in range(40))
    spec = read_asserts(f"(or (>= Y_0 0) (and (>= X_0 11) {impossible}))")
    assert len(spec.disjuncts) == 1


def test_choice_with_one_possible_option_is_no_choice() -> None:
    asserts = [f"(or (and (<= X_0 1) (>= X_0 2)) (>= Y_0 {i}))" for i in range(40)]
    assert len(only(read_asserts(*asserts)).constraints) == 40


def test_exponential_distribution_is_refused() -> None:
    asserts = [f"(or (>= Y_0 {i}) (>= Y_1 {i}))" for i in range(40)]
    with pytest.raises(SpecError, match="more than 100000 disjuncts when 'or' is distributed over 'and'"):
        read_asserts(*asserts)


def test_the_limit_on_disjuncts_is_an_option() -> None:
    options = " ".join(f"(>= Y_0 {i})" for i in range(11))
    text = f"{declarations(1, 1)} (assert (<= 0 X_0 1)) (assert (or {options}))"
    assert len(read_text(text, limits=ReadLimits(disjuncts=11)).disjuncts) == 11
    with pytest.raises(SpecError, match="more than 10 disjuncts"):
        read_text(text, limits=ReadLimits(disjuncts=10))


def test_work_that_leads_nowhere_is_refused_too() -> None:
    """Pairs of boxes, nearly all empty: few disjuncts would come out, but after looking at n * n pairs."""
    many = " ".join(f"(and (>= X_0 {i}) (<= X_0 {i}.5))" for i in range(3000))
    others = " ".join(f"(and (>= X_0 {i}.7) (<= X_0 {i}.9))" for i in range(3000))
    with pytest.raises(SpecError, match="disjuncts when"):
        read_asserts(f"(or {many})", f"(or {others})", box=1e4)


def test_many_boxes_times_few_outputs() -> None:
    n = 3000
    inputs = " ".join(f"(and (>= X_0 {i}) (<= X_0 {i}.5))" for i in range(n))
    spec = read_asserts(f"(or {inputs})", "(or (>= Y_0 5) (<= Y_0 -5))", box=1e4)
    assert len(spec.disjuncts) == 2 * n
    assert boxes(spec)[:4] == [(0, 0.5), (0, 0.5), (1, 1.5), (1, 1.5)]
    assert spec.disjuncts[0].lower is spec.disjuncts[1].lower


@pytest.mark.parametrize(
    "connectives", [("and",), ("or",), ("not",), ("and", "or"), ("and", "not"), ("or", "not", "and")]
)
def test_a_hundred_thousand_levels(connectives: tuple[str, ...]) -> None:
    depth = 100_000
    names = [connectives[i % len(connectives)] for i in range(depth)]
    formula = "".join(f"({name} " for name in names) + "(<= X_0 1)" + ")" * depth
    disjunct = only(read_asserts(formula))
    negated = names.count("not") % 2
    assert (disjunct.lower[0], disjunct.upper[0]) == ((1, 10) if negated else (-10, 1))


def test_deep_alternation_with_a_constraint_at_every_level() -> None:
    """(and c (or d (and c (or d ...)))): as many disjuncts as levels, each with all the constraints above it."""
    depth = 100
    formula = "(<= Y_0 0)"
    for i in range(depth):
        formula = f"(and (<= X_0 {9 - i / depth!r}) (or (>= Y_1 {i}) {formula}))"
    spec = read_asserts(formula)
    assert len(spec.disjuncts) == depth + 1
    assert boxes(spec)[0] == (-10, 9 - (depth - 1) / depth)
    assert boxes(spec)[-1] == (-10, 9 - (depth - 1) / depth)


def test_deep_alternation_that_collapses() -> None:
    depth = 50_000
    opening = "".join(f"(and (<= X_0 {i % 7}) (or " for i in range(depth))
    disjunct = only(read_asserts(f"{opening}(>= Y_0 1){'))' * depth}"))
    assert disjunct.upper[0] == 0
    assert len(disjunct.constraints) == 1


def test_deep_implications() -> None:
    depth = 5_000
    formula = "(=> (>= X_0 1) " * depth + "(>= Y_0 1)" + ")" * depth
    spec = read_asserts(formula)
    assert len(spec.disjuncts) == depth + 1
    assert holds(spec, [0, 0], [0, 0])
    assert not holds(spec, [1, 0], [0, 0])


def test_equal_boxes_are_one_array() -> None:
    options = " ".join(f"(and (<= -1 X_0 1) (<= -1 X_1 1) (>= Y_0 {i}))" for i in range(5))
    spec = read_asserts(f"(or {options})", box=None)
    assert len({id(d.lower) for d in spec.disjuncts}) == 1
    assert len({id(d.upper) for d in spec.disjuncts}) == 1
    flat = read_asserts("(or (>= Y_0 1) (< X_0 1) (>= Y_1 3) (< X_0 1))")
    assert flat.disjuncts[0].lower is flat.disjuncts[2].lower
    assert flat.disjuncts[1].point_upper is flat.disjuncts[3].point_upper


def test_rows_without_inputs_share_a_zero_stride_view() -> None:
    spec = read_asserts("(or (>= Y_0 1) (>= Y_1 Y_0))", "(or (<= X_0 (* 2 X_1)) (>= Y_1 7))")
    with_inputs = [d.constraints for d in spec.disjuncts if d.constraints.mentions_inputs]
    without = [d.constraints for d in spec.disjuncts if not d.constraints.mentions_inputs]
    assert len(with_inputs) == len(without) == 2
    assert with_inputs[0].inputs is with_inputs[1].inputs
    assert all(c.inputs.strides == (0, 0) and c.inputs.shape == (2, 2) for c in without)


def test_two_hundred_disjuncts_over_twelve_thousand_inputs_stay_small() -> None:
    n = 12_288
    bounds = " ".join(f"(assert (<= 0 X_{i})) (assert (<= X_{i} 1))" for i in range(n))
    options = " ".join(f"(>= Y_{i} Y_0)" for i in range(1, 201))
    text = f"{declarations(n, 201)} {bounds} (assert (or {options}))"
    read_text(text)
    tracemalloc.start()
    spec = read_text(text)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(spec.disjuncts) == 200
    assert kept < 2e6


def test_all_inputs_strict_stays_small() -> None:
    n = 12_288
    bounds = " ".join(f"(assert (< 0 X_{i})) (assert (< X_{i} 1))" for i in range(n))
    spec = read_text(f"{declarations(n, 3)} {bounds} (assert (or (>= Y_1 Y_0) (>= Y_2 Y_0)))")
    assert all(len(d.constraints) == 1 for d in spec.disjuncts)
    assert not holds(spec, [0.0] * n, [0, 1, 1])
    assert holds(spec, [0.5] * n, [0, 1, 1])


def test_boxes_that_would_fill_memory_are_refused() -> None:
    n = 12_288
    bounds = " ".join(f"(assert (<= 0 X_{i} 1))" for i in range(n))
    splits = " ".join(f"(assert (or (<= X_{i} 0.5) (>= X_{i} 0.5)))" for i in range(10))
    text = f"{declarations(n, 1)} {bounds} {splits} (assert (>= Y_0 0))"
    with pytest.raises(SpecError, match="takes more than 8 MiB"):
        read_text(text, limits=ReadLimits(cells=2**20))


def test_rows_that_would_fill_memory_are_refused() -> None:
    n = 2000
    bounds = " ".join(f"(assert (<= 0 X_{i} 1))" for i in range(n))
    sums = " ".join(f"(assert (<= (+ X_{i} X_{i + 1}) 1))" for i in range(n - 1))
    with pytest.raises(SpecError, match="takes more than 8 MiB"):
        read_text(f"{declarations(n, 1)} {bounds} {sums}", limits=ReadLimits(cells=2**20))


@pytest.mark.parametrize("nested", [False, True])
def test_one_megabyte_in_under_half_a_second(nested: bool) -> None:
    n = 12_288
    pairs = [(f"(>= X_{i} 0.1{i:05})", f"(<= X_{i} 0.9{i:05})") for i in range(n)]
    if nested:
        asserts = f"(assert (or (and {' '.join(f'{low} {high}' for low, high in pairs)} (>= Y_0 100))))"
    else:
        asserts = "\n".join(f"(assert {low})\n(assert {high})" for low, high in pairs)
    text = f"{declarations(n, 10)}\n{asserts}\n"
    assert len(text) > 0.85e6
    seconds = []
    for _ in range(3):
        start = time.process_time()
        spec = read_text(text)
        seconds.append(time.process_time() - start)
    assert np.array_equal(only(spec).lower, [float(f"0.1{i:05}") for i in range(n)])
    assert min(seconds) < 0.5
