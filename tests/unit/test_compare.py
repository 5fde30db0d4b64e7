"""The comparison of batch results with reference verdicts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from verifier.benchmarks import compare
from verifier.benchmarks.run_instances import COLUMNS

REFERENCE = """onnx,vnnlib,verdict,fastest_tool,fastest_seconds,abcrown_verdict,abcrown_seconds
onnx/a.onnx,vnnlib/1.vnnlib.gz,unsat,x,1,unsat,2
onnx/a.onnx,vnnlib/2.vnnlib.gz,sat,x,1,,
onnx/b.onnx,vnnlib/1.vnnlib.gz,unsat?,x,1,,
onnx/b.onnx,vnnlib/2.vnnlib.gz,disputed,x,1,,
onnx/b.onnx,vnnlib/3.vnnlib.gz,unknown,,,,
"""


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    path = folder / "reference.csv"
    path.write_text(REFERENCE)
    return path


def results(path: Path, *verdicts: str, seconds: float = 3.0) -> Path:
    """A results file with these verdicts for the instances of the reference, in order."""
    names = [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (net, number), verdict in zip(names, verdicts, strict=False):
            message = "why, exactly" if verdict in ("unknown", "error") else ""
            row = ["suite", f"onnx/{net}.onnx.gz", f"vnnlib/{number}.vnnlib", verdict, seconds, "", "", message]
            writer.writerow(row)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> tuple[int, str]:
    code = compare.main([str(argument) for argument in arguments])
    return code, capsys.readouterr().out


def cells(printed: str, start: str) -> list[str]:
    return next(line.split() for line in printed.splitlines() if line.startswith(start))


def test_agreement(tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = run(capsys, results(tmp_path / "r.csv", "unsat", "sat", "unsat", "timeout", "sat"), reference)
    assert code == 0
    # category, run, instances, decided, sat, unsat, contradicting, missed, PAR-2
    assert cells(printed, "suite") == ["suite", "r", "5", "4", "2", "2", "0", "0", f"{(4 * 3 + 120) / 5:.2f}"]
    assert "CONTRADICTIONS" not in printed


def test_contradiction_is_listed_in_full(tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = run(capsys, results(tmp_path / "r.csv", "sat", "unsat"), reference, "--timeout", "10")
    assert code == 1
    assert "CONTRADICTIONS (2):" in printed
    assert "suite a.onnx 1.vnnlib: sat in r, reference unsat, 3.0 s" in printed
    assert "suite a.onnx 2.vnnlib: unsat in r, reference sat, 3.0 s" in printed


def test_doubtful_references_are_listed_apart(
    tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = run(capsys, results(tmp_path / "r.csv", "unsat", "sat", "sat", "unsat"), reference)
    assert code == 0
    assert "CONTRADICTIONS" not in printed
    listed = printed[printed.index("did not agree") :]
    assert "b.onnx 1.vnnlib" in listed
    assert "b.onnx 2.vnnlib" in listed


def test_undecided_instances_are_listed_with_their_message(
    tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = results(tmp_path / "r.csv", "unknown", "error", "timeout", "timeout", "timeout")
    code, printed = run(capsys, rows, reference)
    assert code == 0
    listed = printed[printed.index("decided by the reference") :]
    assert "a.onnx 1.vnnlib: unknown in r, reference unsat, 3.0 s: why, exactly" in listed
    assert "b.onnx 1.vnnlib" in listed
    assert "b.onnx 2.vnnlib" not in listed
    assert "b.onnx 3.vnnlib" not in listed


def test_two_runs_side_by_side(tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = results(tmp_path / "one.csv", "unsat", "sat", "unsat", "timeout", "sat")
    two = results(tmp_path / "two.csv", "unsat", "sat", "unsat", "timeout", "unsat")
    code, printed = run(capsys, one, reference, two)
    assert code == 1, "sat against unsat is a contradiction although the reference knows nothing"
    assert "suite b.onnx 3.vnnlib: unsat in two, sat in one" in printed


def test_groups_by_network(tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = results(tmp_path / "r.csv", "unsat", "sat", "unsat", "timeout", "sat")
    _, printed = run(capsys, rows, reference.parent.parent, "--by", "network")
    assert cells(printed, "suite/a")[2:4] == ["2", "2"]
    assert cells(printed, "suite/b")[2:4] == ["3", "2"]
    assert cells(printed, "all")[2:4] == ["5", "4"]


def test_last_row_of_an_instance_counts(tmp_path: Path) -> None:
    path = results(tmp_path / "r.csv", "timeout")
    path.write_text(path.read_text() + "suite,onnx/a.onnx,vnnlib/1.vnnlib,unsat,1.0,,,\n")
    (row,) = compare.read_results(path)
    assert row.verdict == "unsat"


def test_missing_file(tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path / "none.csv"), str(reference)])
    assert "does not exist" in capsys.readouterr().err
