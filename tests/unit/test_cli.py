"""The command line: verdicts, files, exit codes, and one clear sentence for everything a user can get wrong."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from verifier.cli import app
from verifier.model.network import build
from verifier.model.operators import Input, Linear, Relu
from verifier.model.write import write
from verifier.vnnlib import read_counterexample, read_result

SPEC = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)
(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 -1)) (assert (<= X_1 1))
(assert (>= Y_0 {threshold}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """|x_0 + x_1| as an ONNX file (largest value 2), and properties that can and cannot hold."""
    path = tmp_path_factory.mktemp("cli")
    first = Linear(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).double(), torch.zeros(2).double())
    second = Linear(torch.ones(1, 2).double(), torch.zeros(1).double())
    network = build([(Input((1, 2)), ()), (first, (0,)), (Relu(), (1,)), (second, (2,))])
    write(network, path / "abs.onnx")
    for name, threshold in (("sat", 1.5), ("unsat", 2.5), ("tight", 2.001)):
        (path / f"{name}.vnnlib").write_text(SPEC.format(threshold=threshold))
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The sentence on stderr of a run that must end with exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize("name", ["unsat", "tight"])
def test_unsat_says_on_what_it_rests(folder, name):
    result = run(folder / "abs.onnx", folder / f"{name}.vnnlib")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "unsat"
    assert "evidence: rigorous" in result.stdout


def test_sat_writes_every_file_that_was_asked_for(folder, tmp_path):
    result = run(
        folder / "abs.onnx",
        folder / "sat.vnnlib",
        "--json", tmp_path / "r.json",
        "--result-file", tmp_path / "r.txt",
        "--save-counterexample", tmp_path / "c.txt",
        "--image", tmp_path / "c.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "sat"
    x, y = read_counterexample((tmp_path / "c.txt").read_text())
    assert abs(x[0] + x[1]) >= 1.5
    assert y[0] == pytest.approx(abs(x[0] + x[1]), rel=1e-6)
    assert (np.abs(x) <= 1).all()
    assert (x == x.astype(np.float32)).all()
    assert (tmp_path / "r.txt").read_text().splitlines()[0] == "sat"
    assert read_result((tmp_path / "r.txt").read_text())
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["verdict"] == "sat"
    assert document["witness"]["x"] == x.tolist()
    assert document["statistics"]["seconds"] >= 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_verbose_tells_the_stages_on_stderr(folder):
    result = run(folder / "abs.onnx", folder / "unsat.vnnlib", "--verbose")
    assert "bound" in result.stderr
    assert "s left" in result.stderr
    assert result.stdout.splitlines()[0] == "unsat"
    assert run(folder / "abs.onnx", folder / "unsat.vnnlib").stderr == ""


def test_unsat_result_file_has_one_line(folder, tmp_path):
    run(folder / "abs.onnx", folder / "unsat.vnnlib", "--result-file", tmp_path / "r.txt")
    assert (tmp_path / "r.txt").read_text().split() == ["unsat"]


def test_compressed_files_are_read(folder, tmp_path):
    for name in ("abs.onnx", "unsat.vnnlib"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    result = run(tmp_path / "abs.onnx.gz", tmp_path / "unsat.vnnlib.gz")
    assert result.stdout.splitlines()[0] == "unsat"


def test_the_long_form_of_the_command_is_the_same(folder):
    result = run("check", folder / "abs.onnx", folder / "unsat.vnnlib", "--trust", "rigorous")
    assert result.stdout.splitlines()[0] == "unsat"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.onnx", "{unsat}"], ["missing.onnx"]),
        (["{model}", "missing.vnnlib"], ["missing.vnnlib"]),
        (["{model}", "{model}"], []),
        (["{unsat}", "{unsat}"], ["ONNX"]),
        (["{model}", "{unsat}", "--timeout", "0"], ["timeout", "positive"]),
        (["{model}", "{unsat}", "--timeout", "-3"], ["timeout", "positive"]),
        (["{model}", "{unsat}", "--timeout", "nan"], ["timeout", "positive"]),
        (["{model}", "{unsat}", "--device", "abacus"], ["abacus", "cpu"]),
        (["{model}", "{unsat}", "--threads", "0"], ["threads"]),
        (["{model}", "{unsat}", "--trust", "blind"], ["blind", "rigorous"]),
        (["{model}", "{unsat}", "--json", "no/such/folder/r.json"], ["no/such/folder", "does not exist"]),
        (["{model}", "{unsat}", "--image", "{folder}"], ["folder"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(folder, arguments, words):
    places = {
        "model": folder / "abs.onnx",
        "unsat": folder / "unsat.vnnlib",
        "folder": folder,
    }
    message = refused(*(argument.format(**places) for argument in arguments))
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(assert (<= X_0 1", ["spec.vnnlib:1"]),
        ("(declare-const X_0 Real)\n(assert (<= X_5 1))", ["spec.vnnlib:2", "X_5"]),
        (SPEC.replace("(assert (<= X_1 1))", "").format(threshold=0), ["X_1", "upper"]),
        (SPEC.format(threshold=0) + "(declare-const Y_1 Real) (assert (<= Y_1 0))", ["output", "2", "1"]),
        ("", ["spec.vnnlib"]),
    ],
)
def test_bad_properties_are_located(folder, tmp_path, text, words):
    path = tmp_path / "spec.vnnlib"
    path.write_text(text)
    message = refused(folder / "abs.onnx", path)
    for word in words:
        assert word in message


def test_an_error_is_recorded_in_the_files_a_batch_reads(folder, tmp_path):
    refused("missing.onnx", folder / "unsat.vnnlib", "--result-file", tmp_path / "r.txt", "--json", tmp_path / "r.json")
    assert (tmp_path / "r.txt").read_text().split() == ["error"]
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["verdict"] == "error"
    assert "missing.onnx" in document["message"]


def test_a_contradictory_property_is_unsat(folder, tmp_path):
    path = tmp_path / "spec.vnnlib"
    path.write_text(SPEC.format(threshold=0) + "(assert (<= X_0 -2))")
    result = run(folder / "abs.onnx", path)
    assert result.stdout.splitlines()[0] == "unsat"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_path_without_permission_is_refused(folder, tmp_path):
    tmp_path.chmod(0o500)
    assert "permission" in refused(folder / "abs.onnx", folder / "unsat.vnnlib", "--json", tmp_path / "r.json")


def test_as_a_program(folder):
    done = subprocess.run(
        [sys.executable, "-m", "verifier.cli", folder / "abs.onnx", folder / "sat.vnnlib"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "sat"
    assert done.stderr == ""


def test_a_defect_of_ours_is_a_traceback_and_exit_code_1(folder, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("verifier.pipeline.solve", broken)
    result = run(folder / "abs.onnx", folder / "unsat.vnnlib")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("ending", ["lp", "mps"])
def test_export_writes_a_program_that_highs_solves(folder, tmp_path, ending):
    highspy = pytest.importorskip("highspy")
    path = tmp_path / f"program.{ending}"
    result = run("export", folder / "abs.onnx", folder / "unsat.vnnlib", path)
    assert result.exit_code == 0, result.stderr
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    assert highs.readModel(str(path)) == highspy.HighsStatus.kOk
    highs.run()
    # y_0 >= 2.5 fails by at least 0.5, for |x_0 + x_1| is at most 2
    assert highs.getInfo().objective_function_value == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"), [(["p.txt"], [".lp", ".mps"]), (["p.lp", "--disjunct", "7"], ["disjunct 7", "1"])]
)
def test_export_refuses_what_it_cannot_write(folder, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    message = refused("export", folder / "abs.onnx", folder / "unsat.vnnlib", *arguments)
    for word in words:
        assert word in message
