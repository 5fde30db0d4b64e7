"""``verify bench`` and ``verify merge`` as a user types them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from verifier.benchmarks.journal import read_journal
from verifier.cli import app
from verifier.vnnlib import read_counterexample

pytestmark = pytest.mark.xdist_group("batch")


def run(*arguments: Path | str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_batch_from_start_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite by name in two shards, merged, continued, compared and reported."""
    monkeypatch.chdir(tmp_path)
    wanted = r"mlp.*image_0[0-5]"
    for part in ("1/2", "2/2"):
        code, out, err = run("bench", "digits", "--filter", wanted, "--shard", part, "--jobs", "1", "--timeout", "30")
        assert (code, out.split()[:4]) == (0, ["3", "of", "3", "instances"])
        assert "3/3" in err
    shards = sorted(tmp_path.glob("digits-shard-*.jsonl"))
    assert len(shards) == 2
    code, out, _ = run("merge", *shards, "-o", "all.jsonl")
    assert (code, out.split()[1]) == (0, "6")
    records = read_journal(Path("all.jsonl"))
    for record in records.values():
        assert record.options == {**record.options, "timeout": 30.0, "seed": 0, "threads": 1, "trust": "solver"}
        assert {"verifier", "torch", "python"} <= set(record.versions)
        assert {"host", "processor", "cores"} <= set(record.machine)
        assert record.stages
        assert len(record.bounds) == 9
        assert record.asked["label"] is not None
        assert record.witness is None or len(record.witness["original_x"]) == 64
    before = Path("all.jsonl").read_text()
    code, out, err = run("bench", "digits", "--filter", wanted, "--results", "all.jsonl", "--timeout", "30")
    assert code == 0
    assert "holds 6 results already; 0 instances are left" in err
    assert Path("all.jsonl").read_text() == before
    rows = list(csv.reader(Path("all.csv").read_text().splitlines()))
    assert {row[4] for row in rows} == {"sat", "unsat"}
    for row in rows:
        name = f"all-counterexamples/digits/mlp_{Path(row[2]).stem}.counterexample"
        assert Path(name).exists() == (row[4] == "sat")
        if row[4] == "sat":
            x, y = read_counterexample(Path(name).read_text())
            assert (x.shape, y.shape) == ((64,), (10,))
    assert run("compare", "all.jsonl", "all.csv")[0] == 0
    assert run("report", "all.jsonl", *shards, "-o", "r.html")[:2] == (0, "r.html\n")
    assert Path("r.html").read_text().startswith("<!doctype html>")


def test_the_suites_are_listed() -> None:
    code, out, _ = run("bench")
    assert code == 0
    assert "digits" in out
    assert "VNN-COMP 2021" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv"], "none.csv cannot be read"),
        (["nosuch"], "neither a list"),
        (["digits", "--filter", "nosuch"], "leaves no instance"),
        (["digits", "--shard", "3/2"], "--shard"),
        (["digits", "--jobs", "0"], "jobs is 0"),
        (["digits", "--memory", "0"], "memory"),
        (["digits", "--threads", "0"], "threads"),
        (["digits", "--timeout", "0"], "timeout"),
        (["digits", "--grace", "-1"], "grace"),
        (["digits", "--trust", "blind"], "blind"),
        (["digits", "--retry", "unhappy"], "unhappy"),
        (["digits", "--results", "r.csv"], "r.jsonl"),
        (["digits", "--results", "list.csv/r.jsonl"], "cannot be written"),
        (["digits", "--data", "nosuch"], "--data"),
        (["digits", "--results", "new.jsonl", "--cluster", "local:0"], "local:N"),
    ],
)
def test_bad_use_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").touch()
    code, out, err = run("bench", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


def test_merge_refuses_to_overwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").touch()
    for output, words in (("a.jsonl", "exists already"), ("new.csv", "new.jsonl"), ("no/folder.jsonl", "folder")):
        code, _, err = run("merge", "a.jsonl", "-o", output)
        assert code == 2
        assert words in err
    assert "cannot be read" in run("merge", "none.jsonl", "-o", "b.jsonl")[2]


def test_a_report_needs_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").touch()
    for arguments, words in (
        (["a.jsonl"], "no instance has finished"),
        (["none.jsonl"], "none.jsonl cannot be read"),
        (["a.jsonl", "-o", "no/r.html"], "does not exist"),
        (["a.jsonl", "--images", "-1"], "images"),
    ):
        code, _, err = run("report", *arguments)
        assert code == 2
        assert words in err


def test_looking_at_the_suites_and_comparing_needs_no_torch() -> None:
    code = (
        "import sys, json\n"
        "from verifier.cli import app\n"
        "import verifier.benchmarks.outcomes, verifier.benchmarks.report.render, verifier.benchmarks.pool\n"
        "print(json.dumps([name for name in ('torch', 'onnxruntime', 'scipy.stats') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
