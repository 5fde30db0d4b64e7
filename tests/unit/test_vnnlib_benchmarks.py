"""Every property of the shared benchmarks reads, and means what is known of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from verifier.vnnlib import Spec, read, read_text, to_text

BENCHMARKS = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"
FOLDERS = sorted({path.parent for path in BENCHMARKS.glob("**/*.vnnlib.gz")})
needs_benchmarks = pytest.mark.skipif(not FOLDERS, reason=f"the shared benchmarks are not in {BENCHMARKS}")


def benchmark(name: str) -> Spec:
    return read(BENCHMARKS / name)


@needs_benchmarks
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_every_property_reads_and_survives_a_round_trip(folder: Path) -> None:
    paths = sorted(folder.glob("*.vnnlib.gz"))
    for path in paths:
        spec = read(path)
        assert spec.n_inputs > 0
        assert spec.n_outputs > 0
        assert len(spec.disjuncts) > 0
        assert all((d.lower <= d.upper).all() for d in spec.disjuncts)
    back = read_text(to_text(spec))
    for one, two in zip(spec.disjuncts, back.disjuncts, strict=True):
        assert np.array_equal(one.lower, two.lower)
        assert np.array_equal(one.upper, two.upper)
        assert np.array_equal(one.constraints.outputs, two.constraints.outputs)
        assert np.array_equal(one.constraints.bounds, two.constraints.bounds)


@needs_benchmarks
def test_acasxu_property_1_is_one_box_and_one_row() -> None:
    (disjunct,) = benchmark("vnncomp2021/acasxu/vnnlib/prop_1.vnnlib.gz").disjuncts
    assert disjunct.lower.tolist() == [0.6, -0.5, -0.5, 0.45, -0.5]
    assert disjunct.upper.tolist() == [0.679857769, 0.5, 0.5, 0.5, -0.45]
    assert disjunct.constraints.outputs.tolist() == [[-1, 0, 0, 0, 0]]
    assert disjunct.constraints.bounds.tolist() == [-3.991125645861615]


@needs_benchmarks
def test_acasxu_property_2_says_that_the_first_output_is_the_largest() -> None:
    (disjunct,) = benchmark("vnncomp2021/acasxu/vnnlib/prop_2.vnnlib.gz").disjuncts
    rng = np.random.default_rng(0)
    for y in rng.normal(size=(50, 5)):
        assert disjunct.holds_exactly(disjunct.lower, y) == (y.argmax() == 0)


@needs_benchmarks
def test_acasxu_property_7_has_two_disjuncts_over_one_box() -> None:
    """Unsafe if strong left (output 3) or strong right (output 4) is the smallest."""
    spec = benchmark("vnncomp2021/acasxu/vnnlib/prop_7.vnnlib.gz")
    assert len(spec.disjuncts) == 2
    assert spec.disjuncts[0].lower is spec.disjuncts[1].lower
    rng = np.random.default_rng(0)
    x = spec.disjuncts[0].upper
    for y in rng.normal(size=(50, 5)):
        assert spec.holds_exactly(x, y) == (y.argmin() in (3, 4))


@needs_benchmarks
def test_acasxu_property_6_has_two_boxes() -> None:
    spec = benchmark("vnncomp2021/acasxu/vnnlib/prop_6.vnnlib.gz")
    boxes = {(tuple(d.lower.tolist()), tuple(d.upper.tolist())) for d in spec.disjuncts}
    assert len(boxes) == 2
    rng = np.random.default_rng(0)
    for y in rng.normal(size=(50, 5)):
        for disjunct in spec.disjuncts:
            assert spec.holds_exactly(disjunct.lower, y) == (y.argmin() != 0)


@needs_benchmarks
def test_nn4sys_pairs_each_interval_with_two_half_lines() -> None:
    spec = benchmark("vnncomp2021/nn4sys/vnnlib/lognormal_1000_1.vnnlib.gz")
    low, high = spec.disjuncts
    assert (low.lower[0], low.upper[0]) == (111, 184)
    assert low.lower is high.lower
    assert (low.constraints.outputs.tolist(), low.constraints.bounds.tolist()) == ([[1]], [-57])
    assert (high.constraints.outputs.tolist(), high.constraints.bounds.tolist()) == ([[-1]], [-202])


@needs_benchmarks
def test_robustness_property_has_one_disjunct_per_other_class() -> None:
    spec = benchmark("vnncomp2021/cifar10_resnet/vnnlib/prop_0_eps_0.004.vnnlib.gz")
    assert (spec.n_inputs, spec.n_outputs, len(spec.disjuncts)) == (3072, 10, 9)
    y = np.zeros(10)
    y[2] = 1.0
    x = spec.disjuncts[0].lower
    assert not spec.holds_exactly(x, y)
    y[7] = 1.0
    assert spec.holds_exactly(x, y)
    assert not spec.holds_exactly(np.nextafter(x, -np.inf), y)
