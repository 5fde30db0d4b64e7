"""``verify --evidence`` and ``verify check-evidence`` from the command line, and on shared instances."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import verifier
from verifier.cli import app
from verifier.model.network import build
from verifier.model.operators import Input, Linear, Relu
from verifier.model.write import write

SPEC = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)
(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 -1)) (assert (<= X_1 1))
(assert (>= Y_0 {threshold}))
"""
FOLDER = Path(__file__).resolve().parents[3] / "shared" / "benchmarks" / "vnncomp2021"
DIGITS = Path(__file__).resolve().parents[2] / "benchmarks" / "digits"
SHARED = {
    "acasxu": ("onnx/ACASXU_run2a_1_1_batch_2000.onnx", "vnnlib/prop_5.vnnlib.gz", "input splitting"),
    "mnistfc": ("onnx/mnist-net_256x2.onnx", "vnnlib/prop_0_0.03.vnnlib.gz", "relu splitting"),
    "eran": ("onnx/mnist_relu_9_200.onnx", "vnnlib/mnist_spec_idx_8098_eps_0.01500.vnnlib.gz", "crown"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """|x_0 + x_1| as an ONNX file (largest value 2), and properties that can and cannot hold."""
    path = tmp_path_factory.mktemp("evidence")
    first = Linear(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).double(), torch.zeros(2).double())
    second = Linear(torch.ones(1, 2).double(), torch.zeros(1).double())
    write(build([(Input((1, 2)), ()), (first, (0,)), (Relu(), (1,)), (second, (2,))]), path / "abs.onnx")
    for name, threshold in (("sat", 1.5), ("unsat", 2.5), ("tight", 2.001)):
        (path / f"{name}.vnnlib").write_text(SPEC.format(threshold=threshold))
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("name", "verdict"), [("sat", "sat"), ("unsat", "unsat"), ("tight", "unsat")])
def test_a_run_leaves_what_the_checker_accepts(folder, name, verdict, tmp_path):
    file, report = tmp_path / "run.evidence", tmp_path / "run.json"
    spec = folder / f"{name}.vnnlib"
    result = run(folder / "abs.onnx", spec, "--evidence", file, "--json", report)
    assert result.exit_code == 0, result.stderr
    assert f"evidence file: {file}" in result.stdout
    summary = json.loads(report.read_text())["evidence_file"]
    assert summary["path"] == str(file)
    assert summary["size"] == file.stat().st_size
    assert summary["open"] == (1 if verdict == "sat" else 0)
    checked = run("check-evidence", folder / "abs.onnx", spec, file)
    assert checked.exit_code == 0, checked.stderr
    assert checked.stdout.splitlines()[0] == f"accepted: {verdict}"
    assert "Traceback" not in checked.stderr


def test_a_file_about_another_property_is_refused(folder, tmp_path):
    file = tmp_path / "run.evidence"
    assert run(folder / "abs.onnx", folder / "tight.vnnlib", "--evidence", file).exit_code == 0
    result = run("check-evidence", folder / "abs.onnx", folder / "sat.vnnlib", file)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "another property" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["{folder}/abs.onnx", "{folder}/unsat.vnnlib", "--evidence", "no/such/folder/e"], "does not exist"),
        (["check-evidence", "{folder}/abs.onnx", "{folder}/unsat.vnnlib", "{folder}/none"], "is no evidence file"),
        (["check-evidence", "{folder}/abs.onnx", "{folder}/unsat.vnnlib", "{folder}/abs.onnx"], "is no evidence file"),
        (["check-evidence", "{folder}/none.onnx", "{folder}/unsat.vnnlib", "{folder}/abs.onnx"], "none.onnx"),
    ],
)
def test_what_cannot_be_is_one_sentence(folder, arguments, part):
    result = run(*(argument.format(folder=folder) for argument in arguments))
    assert result.exit_code == 2
    assert part in result.stderr
    assert "Traceback" not in result.stderr


def test_what_rests_on_a_solver_is_said(folder, tmp_path):
    """The MILP's closings are no part of the file, and the checker says so."""
    options = verifier.Options(stages=("milp",), evidence=tmp_path / "run.evidence")
    result = verifier.verify(folder / "abs.onnx", folder / "tight.vnnlib", options=options)
    assert result.verdict is verifier.Verdict.UNSAT
    assert result.recorded is not None
    assert result.recorded.unexplained == 1
    checked = run("check-evidence", folder / "abs.onnx", folder / "tight.vnnlib", tmp_path / "run.evidence")
    assert checked.exit_code == 0
    assert checked.stdout.startswith("partly: unsat")
    assert "which no file can replay" in checked.stdout


def test_after_a_timeout_what_was_closed_is_replayed(tmp_path):
    """Nothing of the property of an image is closed in no time, and the file says so."""
    model = next((DIGITS / "onnx").glob("mlp.onnx"))
    options = verifier.Options(stages=("bound",), evidence=tmp_path / "run.evidence")
    network = verifier.load(model)
    spec = verifier.robustness(np.full(network.network.n_inputs, 0.5), 0.3, 0, network.network.n_outputs, bounds=(0, 1))
    result = verifier.verify(network, spec, options=options)
    assert result.verdict is verifier.Verdict.UNKNOWN
    found = verifier.check_evidence(network, spec, tmp_path / "run.evidence")
    assert found.verdict == "unknown"
    assert set(found.open) == {i for i, bound in enumerate(result.bounds) if bound.level is None}


def test_recording_changes_no_result(folder, tmp_path):
    plain = verifier.verify(folder / "abs.onnx", folder / "tight.vnnlib")
    kept = verifier.verify(
        folder / "abs.onnx", folder / "tight.vnnlib", options=verifier.Options(evidence=tmp_path / "run.evidence")
    )
    assert plain.recorded is None
    assert replace(kept.bounds[0]) == plain.bounds[0]
    assert kept.verdict is plain.verdict


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the shared benchmarks are not in {FOLDER}")
@pytest.mark.parametrize("benchmark", sorted(SHARED))
def test_shared_instances(benchmark, tmp_path):
    model, spec, method = SHARED[benchmark]
    file = tmp_path / "run.evidence"
    paths = FOLDER / benchmark / model, FOLDER / benchmark / spec
    options = verifier.Options(evidence=file)
    result = verifier.verify(*paths, timeout=300, options=options)
    assert result.verdict is verifier.Verdict.UNSAT
    found = verifier.check_evidence(*paths, file)
    assert method in found.closed
    assert sum(found.closed.values()) == len(result.bounds)
    assert not found.unexplained
    assert not found.open
