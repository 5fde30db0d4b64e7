"""Property files: plain, gzip, and everything else that a path can name."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from support.specs import read_asserts
from verifier.errors import OutputPathError, SpecError
from verifier.vnnlib import Disjunct, LinearConstraints, ReadLimits, Spec, read, read_text, robustness, to_text, write

TEXT = """(declare-const X_0 Real) (declare-const Y_0 Real)
(assert (<= -1 X_0 1)) (assert (>= Y_0 0.5))
"""


def same(one: Spec, two: Spec) -> bool:
    """Whether all arrays are equal."""
    sizes = [(spec.n_inputs, spec.n_outputs, len(spec.disjuncts)) for spec in (one, two)]
    return sizes[0] == sizes[1] and all(
        len(arrays(a)) == len(arrays(b)) and all(map(np.array_equal, arrays(a), arrays(b)))
        for a, b in zip(one.disjuncts, two.disjuncts, strict=True)
    )


def arrays(d: Disjunct) -> list[np.ndarray]:
    c = d.constraints
    points = [side if side is not None else np.zeros(0) for side in (d.point_lower, d.point_upper)]
    return [d.lower, d.upper, c.inputs, c.outputs, c.bounds, c.strict, *points]


@pytest.mark.parametrize("name", ["p.vnnlib", "p.vnnlib.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_gzip_is_recognised_whatever_the_name(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if packed else TEXT.encode())
    spec = read(path)
    assert spec.source == str(path)
    assert same(spec, read(str(path)))
    assert spec.disjuncts[0].constraints.bounds.tolist() == [-0.5]


def test_gzip_of_several_members(tmp_path: Path) -> None:
    path = tmp_path / "p.gz"
    first, second = TEXT.encode()[:60], TEXT.encode()[60:]
    path.write_bytes(gzip.compress(first) + gzip.compress(second))
    assert len(read(path).disjuncts) == 1


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "p.vnnlib"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read(path).n_inputs == 1


@pytest.mark.parametrize("kept", [3, 12, 30, -9, -1])
def test_truncated_gzip(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(gzip.compress(TEXT.encode())[:kept])
    with pytest.raises(SpecError, match=r"p\.vnnlib\.gz: the gzip data ends too early; the file was cut off"):
        read(path)


@pytest.mark.parametrize("position", [2, 14, 25, -6])
def test_damaged_gzip(tmp_path: Path, position: int) -> None:
    contents = bytearray(gzip.compress(TEXT.encode()))
    contents[position] ^= 0xFF
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(contents)
    with pytest.raises(SpecError, match="the gzip data"):
        read(path)


def test_gzip_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b" " * 50_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(SpecError, match="longer than the limit of 1000000 bytes; raise the limit to read it"):
        read(path, ReadLimits(expanded_bytes=1_000_000))


def test_the_limit_holds_for_plain_files(tmp_path: Path) -> None:
    path = tmp_path / "p.vnnlib"
    path.write_text(TEXT)
    read(path, ReadLimits(expanded_bytes=len(TEXT)))
    with pytest.raises(SpecError, match="longer than the limit"):
        read(path, ReadLimits(expanded_bytes=len(TEXT) - 1))


def test_endless_file_is_stopped_at_the_limit() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("this system has no /dev/zero")
    with pytest.raises(SpecError, match="longer than the limit"):
        read("/dev/zero", ReadLimits(expanded_bytes=10_000))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "p.vnnlib"
    path.write_bytes(TEXT.encode() + b"; caf\xe9\n")
    with pytest.raises(SpecError, match="the byte 0xe9 is not UTF-8 text") as caught:
        read(path)
    assert (caught.value.line, caught.value.column) == (3, 6)


def test_model_given_as_property(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08\x12\x07pytorch:\x99\xff")
    with pytest.raises(SpecError, match="is not UTF-8 text; a property is a plain text file"):
        read(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no such file; check the path of the property"):
        read(tmp_path / "none.vnnlib")
    with pytest.raises(SpecError, match="this is a directory"):
        read(tmp_path)
    with pytest.raises(SpecError, match="cannot be read"):
        read("a\0b")
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="cannot be read"):
        read(tmp_path / "file" / "inside")
    with pytest.raises(SpecError, match="the file is empty"):
        read(tmp_path / "file")


def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "p.vnnlib"
    path.write_text(TEXT)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(SpecError, match="may not be read; check its permissions"):
        read(path)


def test_permission_is_reported_for_any_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SpecError, match="may not be read; check its permissions"):
        read(tmp_path / "p.vnnlib")


@pytest.mark.parametrize(
    "formulas",
    [
        ["(>= Y_0 Y_1)"],
        ["(<= (+ (* 0.1 Y_0) (* -3 X_1)) 1e-7)", "(< Y_0 (- 0.25))"],
        ["(or (>= Y_0 Y_1) (and (<= Y_0 3) (> Y_1 2)) true)"],
        ["(or (and (<= X_0 1) (>= Y_0 Y_1)) (and (> X_1 3) (<= (- X_0 X_1) 0.5)))"],
        ["(< X_0 0.1)", "(>= (* 3 X_1) 1)"],
        ["(or (< X_0 0.1) (= (* 3 X_1) 1))"],
        ["false"],
    ],
)
def test_what_was_read_comes_back_with_equal_arrays(tmp_path: Path, formulas: list[str]) -> None:
    spec = read_asserts(*formulas)
    assert same(read_text(to_text(spec)), spec)
    for name in ("p.vnnlib", "p.vnnlib.gz"):
        write(spec, tmp_path / name)
        assert same(read(tmp_path / name), spec)
    assert (tmp_path / "p.vnnlib.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_written_text_is_flat_and_readable() -> None:
    assert to_text(read_asserts("(or (>= Y_0 Y_1) (and (< (* 2 Y_0) 3) (>= Y_1 1)))", n_inputs=1)) == (
        "(declare-const X_0 Real)\n"
        "(declare-const Y_0 Real)\n"
        "(declare-const Y_1 Real)\n"
        "\n"
        "(assert (>= X_0 -10.0))\n"
        "(assert (<= X_0 10.0))\n"
        "(assert (or\n"
        "    (and (>= Y_0 Y_1))\n"
        "    (and (< (* 2.0 Y_0) 3.0) (>= Y_1 1.0))\n"
        "))\n"
    )


def test_spec_built_in_memory_reads_back_the_same_at_points() -> None:
    """Rows that bound one input move into the box; rows without variables disappear or take all with them."""
    box = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    inputs = np.array([[2.0, 0.0], [0.0, 0.0], [0.1, 1.0]])
    outputs = np.array([[0.0], [0.0], [1.0]])
    bounds, strict = np.array([1.0, 0.0, 0.5]), np.array([True, False, False])
    points = np.array([-0.5, -1.0]), None
    spec = Spec(2, 1, (Disjunct(*box, LinearConstraints(inputs, outputs, bounds, strict), *points),))
    back = read_text(to_text(spec))
    assert len(back.disjuncts[0].constraints) == 1
    for x0 in (-1.0, -0.5, 0.0, 0.5, np.nextafter(0.5, 0)):
        for y in (-1.0, 0.0, 0.4, 0.5, 1.0):
            point = np.array([x0, 0.0]), np.array([y])
            assert back.holds_exactly(*point) == spec.holds_exactly(*point)
    never = LinearConstraints(inputs[1:2], outputs[1:2], np.array([-1.0]), strict[1:2])
    assert read_text(to_text(Spec(2, 1, (Disjunct(*box, never),)))).disjuncts == ()


def test_robustness_written_and_read() -> None:
    spec = robustness(np.linspace(0, 1, 7), 0.1, 2, 4)
    assert same(read_text(to_text(spec)), spec)


def test_writing_where_it_is_not_possible(tmp_path: Path) -> None:
    with pytest.raises(OutputPathError, match="cannot write the property here"):
        write(robustness(np.zeros(1), 0.1, 0, 2), tmp_path / "none" / "p.vnnlib")
    with pytest.raises(OutputPathError, match="cannot write the property here"):
        write(robustness(np.zeros(1), 0.1, 0, 2), tmp_path)


def test_equal_specs_give_equal_files(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        write(robustness(np.zeros(3), 0.1, 0, 2), tmp_path / name)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
