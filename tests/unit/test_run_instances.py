"""The batch runner: what it writes, how it goes on after a stop, and that it ends what does not end."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from verifier.benchmarks import run_instances


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    """Three instances; the second model lies there compressed."""
    folder = tmp_path / "suite"
    (folder / "onnx").mkdir(parents=True)
    for name in ("a.onnx", "b.onnx.gz", "p.vnnlib"):
        (folder / "onnx" / name).write_bytes(b"")
    path = folder / "instances.csv"
    path.write_text("".join(f"onnx/{net}.onnx,onnx/p.vnnlib,60\n" for net in "abc"))
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, float, int]]:
    """The calls that would start a process."""
    seen: list[tuple[str, str, float, int]] = []

    def answer(model: str, spec: str, timeout: float, threads: int) -> dict:
        seen.append((model, spec, timeout, threads))
        if "c.onnx" in model:
            return {"message": "cannot\nbe read"}
        return {"verdict": "unsat", "message": "", "evidence": {"level": "rigorous", "methods": ["x", "y"]}}

    monkeypatch.setattr(run_instances, "in_subprocess", answer)
    return seen


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows(instances: Path, calls: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "results.csv"
    assert run_instances.main([str(instances), "--results", str(out), "--timeout", "5", "--threads", "2"]) == 0
    first, second, third = rows_of(out)
    assert list(first) == list(run_instances.COLUMNS)
    assert (first["category"], first["onnx"], first["vnnlib"]) == ("suite", "onnx/a.onnx", "onnx/p.vnnlib")
    assert (first["verdict"], first["level"], first["method"]) == ("unsat", "rigorous", "x+y")
    assert float(first["seconds"]) >= 0
    assert second["verdict"] == "unsat"
    assert (third["verdict"], third["message"]) == ("error", "cannot be read")
    assert [Path(model).name for model, *_ in calls] == ["a.onnx", "b.onnx.gz", "c.onnx"]
    assert {tuple(call[2:]) for call in calls} == {(5.0, 2)}
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_goes_on_where_it_stopped(instances: Path, calls: list, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    run_instances.main([str(instances), "--results", str(out), "--filter", r"/a\.onnx"])
    # Stopped in the middle of a row: that instance is run again, on a line of its own.
    out.write_text(out.read_text() + "suite,onnx/b.onnx,onnx/p.vn")
    run_instances.main([str(instances), "--results", str(out)])
    run_instances.main([str(instances), "--results", str(out)])
    assert [Path(model).name for model, *_ in calls] == ["a.onnx", "b.onnx.gz", "c.onnx"]
    complete = [row for row in rows_of(out) if row["message"] is not None]
    assert [row["onnx"] for row in complete] == ["onnx/a.onnx", "onnx/b.onnx", "onnx/c.onnx"]


def test_a_run_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_instances, "GRACE", 0.0)
    monkeypatch.setattr(run_instances.shutil, "which", lambda name: None)
    # Start-up alone takes longer than that.
    started = time.monotonic()
    found = run_instances.in_subprocess("a.onnx", "p.vnnlib", 0.01, 1)
    assert found == {"message": "killed 0 s past the limit"}
    assert time.monotonic() - started < 5


def test_a_failed_run_has_its_last_words(tmp_path: Path) -> None:
    found = run_instances.in_subprocess(str(tmp_path / "none.onnx"), str(tmp_path / "none.vnnlib"), 60, 1)
    assert "none.onnx" in found["message"]
    assert found.get("verdict", "error") == "error"


def test_in_one_process_an_error_is_a_row(tmp_path: Path) -> None:
    found = run_instances.in_this_process(str(tmp_path / "none.onnx"), str(tmp_path / "none.vnnlib"), 60, 1)
    assert "verdict" not in found
    assert "none.onnx" in found["message"]
