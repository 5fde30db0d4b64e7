"""Runs side by side: reading every kind of results, agreement, PAR-2, and what the command prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from verifier.benchmarks.comparison import disagreements, pair, par2, table
from verifier.benchmarks.outcomes import read_outcomes, read_runs
from verifier.benchmarks.record import Record, Status
from verifier.cli import app
from verifier.errors import BatchError

REFERENCE = """onnx,vnnlib,verdict,fastest_tool,fastest_seconds
onnx/a.onnx,vnnlib/1.vnnlib.gz,unsat,x,1
onnx/a.onnx,vnnlib/2.vnnlib.gz,sat,x,1
onnx/b.onnx,vnnlib/1.vnnlib.gz,unsat?,x,1
onnx/b.onnx,vnnlib/2.vnnlib.gz,disputed,x,1
onnx/b.onnx,vnnlib/3.vnnlib.gz,unknown,,
"""
PAIRS = (("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3))


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "suite" / "reference.csv"
    path.parent.mkdir()
    path.write_text(REFERENCE)
    return path


def journal(path: Path, *verdicts: str, seconds: float = 3.0, timeout: float = 60.0) -> Path:
    """A journal with these verdicts for the instances of the reference, in order."""
    records = [
        Record("suite", f"onnx/{net}.onnx", f"vnnlib/{n}.vnnlib", timeout, Status(verdict), seconds)
        for (net, n), verdict in zip(PAIRS, verdicts, strict=False)
    ]
    path.write_text("".join(record.line() for record in records))
    return path


def competition(path: Path, *words: str, seconds: float = 6.0, category: str = "2025_suite") -> Path:
    path.write_text(
        "".join(
            f"{category},./benchmarks/suite/onnx/{net}.onnx,./x/vnnlib/{n}.vnnlib,0.5,{word},{seconds}\n"
            for (net, n), word in zip(PAIRS, words, strict=False)
        )
    )
    return path


def run(*arguments: Path | str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    return result.exit_code, result.stdout + result.stderr


def cells(printed: str, *start: str) -> list[str]:
    return next(line.split() for line in printed.splitlines() if line.split()[: len(start)] == list(start))


def test_words_of_the_competition(tmp_path: Path) -> None:
    path = competition(
        tmp_path / "r.csv", "holds", "violated", "run_instance_timeout", "error_exit_code_139", "no_result_in_file"
    )
    outcomes = read_outcomes(path)
    assert [o.verdict for o in outcomes] == ["unsat", "sat", "timeout", "error", "unknown"]
    assert {(o.category, o.seconds) for o in outcomes} == {("2025_suite", 6.0)}


def test_doubts_of_a_reference(reference: Path) -> None:
    outcomes = read_outcomes(reference.parent.parent)
    assert [(o.verdict, o.doubtful) for o in outcomes] == [
        ("unsat", False), ("sat", False), ("unsat", True), ("unknown", True), ("unknown", False),
    ]  # fmt: skip
    assert {o.category for o in outcomes} == {"suite"}


def test_instances_are_the_same_by_name(tmp_path: Path, reference: Path) -> None:
    """Whatever folders and categories are called; the category decides where names are not unique."""
    ours = journal(tmp_path / "j.jsonl", *["unsat"] * 5)
    theirs = competition(tmp_path / "c.csv", *["unsat"] * 5)
    first, second, known = read_runs([ours, theirs, reference])
    assert all(second.find(o) and known.find(o) for o in first.outcomes)
    more = tmp_path / "more.csv"
    more.write_text(theirs.read_text() + "other,a.onnx,1.vnnlib,0,sat,1\nsuite,a.onnx,1.vnnlib,0,unsat,1\n")
    (both,) = read_runs([more])
    found = [both.find(o) for o in first.outcomes]
    assert found[0] is not None
    assert found[0].category == "suite"
    assert disagreements([first, both]) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.csv", "a,b\n", "no row of results"),
        ("r.csv", "onnx,vnnlib\na,b\n", "no column verdict"),
        ("r.jsonl", "a,b\n", "no record of a journal"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BatchError, match=words):
        read_outcomes(tmp_path / name)
    with pytest.raises(BatchError, match=r"no reference\.csv"):
        read_outcomes(tmp_path / "empty")
    for missing in ("none.csv", "none.jsonl"):
        with pytest.raises(BatchError, match="cannot be read"):
            read_outcomes(tmp_path / missing)


def test_par2(tmp_path: Path) -> None:
    (ours,) = read_runs([journal(tmp_path / "j.jsonl", "unsat", "timeout", "crashed", seconds=3)])
    assert par2(ours.outcomes) == pytest.approx((3 + 120 + 120) / 3)
    (theirs,) = read_runs([competition(tmp_path / "c.csv", "sat", "timeout")])
    assert par2(theirs.outcomes) is None, "nobody said what the time-out was"
    assert par2(theirs.outcomes, timeout=10) == pytest.approx((6 + 20) / 2)
    assert par2([]) is None


def test_agreement(tmp_path: Path, reference: Path) -> None:
    path = journal(tmp_path / "r.jsonl", "unsat", "sat", "unsat", "timeout", "sat")
    code, printed = run(path, reference)
    assert code == 0
    # group, run, instances, decided, sat, unsat, failed, contradicting, PAR-2
    assert cells(printed, "suite", "r") == ["suite", "r", "5", "4", "2", "2", "0", "0", f"{(4 * 3 + 120) / 5:.2f}"]
    assert cells(printed, "suite", "reference")[2:] == ["5", "3", "1", "2", "0", "0", "-"]
    assert "CONTRADICTIONS" not in printed


def test_contradictions_are_listed_in_full(tmp_path: Path, reference: Path) -> None:
    code, printed = run(journal(tmp_path / "r.jsonl", "sat", "unsat"), reference)
    assert code == 1
    assert "CONTRADICTIONS (2):" in printed
    assert "suite a 1: sat in r, unsat in reference" in printed
    assert "suite a 2: unsat in r, sat in reference" in printed
    assert cells(printed, "suite", "r")[7] == "2"


def test_doubtful_ones_are_listed_apart(tmp_path: Path, reference: Path) -> None:
    code, printed = run(journal(tmp_path / "r.jsonl", "unsat", "sat", "sat", "unsat"), reference)
    assert code == 0
    assert "CONTRADICTIONS" not in printed
    assert "suite b 1: sat in r, unsat? in reference" in printed[printed.index("in doubt itself") :]


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    one = journal(tmp_path / "one.jsonl", "unsat", "sat", "timeout", "unsat", "hang", seconds=2)
    two = competition(tmp_path / "two.csv", "unsat", "sat", "unsat", "timeout", "unknown", seconds=6)
    code, printed = run(one, two)
    assert code == 0
    assert "one against two: 5 instances in common, 2 timed in both, median of one / two seconds 0.333" in printed
    assert "Decided by one, not by two (1):\n  suite b 2: unsat in 2.0 s" in printed
    assert "Decided by two, not by one (1):\n  2025_suite b 1: unsat in 6.0 s" in printed
    assert cells(printed, "suite", "one")[6] == "1", "a hang is a failure"
    code, printed = run(one, journal(tmp_path / "three.jsonl", "sat"))
    assert code == 1


def test_runs_over_different_instances(tmp_path: Path) -> None:
    one = journal(tmp_path / "one.jsonl", "unsat", "sat", "timeout")
    other = tmp_path / "other.csv"
    other.write_text("suite,z.onnx,1.vnnlib,0,sat,1\n")
    code, printed = run(one, other)
    assert code == 0
    assert "one and other have no instance in common" in printed
    first, second = read_runs([one, other])
    assert pair(first, second).ratio is None
    assert [row.instances for row in table([first, second])] == [3, 1]


def test_groups_by_network(tmp_path: Path, reference: Path) -> None:
    path = journal(tmp_path / "r.jsonl", "unsat", "sat", "unsat", "timeout", "sat")
    _, printed = run(path, reference, "--by", "network")
    assert cells(printed, "suite/a", "r")[2:4] == ["2", "2"]
    assert cells(printed, "suite/b", "r")[2:4] == ["3", "2"]
    assert cells(printed, "all", "r")[2:4] == ["5", "4"]


def test_long_lists_are_cut_unless_all_are_wanted(tmp_path: Path) -> None:
    def write(name: str, verdict: str) -> Path:
        path = tmp_path / name
        path.write_text("".join(f"c,m.onnx,p{i}.vnnlib,0,{verdict},1\n" for i in range(60)))
        return path

    one, two = write("one.csv", "sat"), write("two.csv", "timeout")
    assert "and 10 more; list them with --all" in run(one, two)[1]
    assert "p59" in run(one, two, "--all")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["r.jsonl"], "nothing to compare"),
        (["r.jsonl", "no.csv"], "no.csv"),
        (["r.jsonl", "r.jsonl", "--by", "x"], "by"),
    ],
)
def test_bad_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    journal(tmp_path / "r.jsonl", "unsat")
    code, printed = run(*arguments)
    assert code == 2
    assert words in printed
    assert "Traceback" not in printed
