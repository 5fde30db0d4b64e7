"""``verify`` and ``verify check-proof`` on binarised networks: engines, proofs, pictures, and what can go wrong."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import verifier
from support.binarised_models import tiny_network
from verifier.cli import app
from verifier.model.replay import OnnxReplay
from verifier.solve import gate_engines
from verifier.vnnlib.robustness import robustness
from verifier.vnnlib.write import to_text

N_INPUTS, N_OUTPUTS = 64, 3
EXACT = pytest.mark.skipif(find_spec("exact") is None, reason="the extra exact is not installed")
ENGINES = ("auto", "patterns", "lazy", "cp-sat", "exact", "highs", "glucose", "cadical")
NEEDED = [pytest.param(name, marks=EXACT) if name == "exact" else name for name in ENGINES]


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network on 8 x 8 pixels, and two properties about its image: one holds that solvers have to show, one fails."""
    path = tmp_path_factory.mktemp("bnn")
    wanted = {"unsat", "sat"}
    for seed in range(200):
        model = path / "bnn.onnx"
        model.write_bytes(tiny_network(seed, N_INPUTS, N_OUTPUTS))
        x = np.random.default_rng(seed).random(N_INPUTS).round(2)
        label = int(OnnxReplay(model.read_bytes()).run(x).argmax())
        found = {}
        for epsilon in (0.01, 0.03, 0.06, 0.12, 0.3):
            spec = robustness(x, epsilon=epsilon, label=label, n_outputs=N_OUTPUTS)
            result = verifier.verify(model, spec, timeout=20)
            patterns = result.evidence is not None and "sign patterns" in result.evidence.methods
            if str(result.verdict) == "sat" or patterns:
                found[str(result.verdict)] = spec
        if set(found) == wanted:
            for name, spec in found.items():
                (path / f"{name}.vnnlib").write_text(to_text(spec))
            return path
    raise AssertionError("no seed gives a network that is robust to small changes and not to large ones")


@pytest.mark.parametrize("engine", NEEDED)
def test_every_engine_decides_alone(folder: Path, engine: str) -> None:
    code, out, _ = run(folder / "bnn.onnx", folder / "unsat.vnnlib", "--engine", engine, "--timeout", 60)
    assert (code, out.splitlines()[0]) == (0, "unsat")
    rigorous = engine in ("auto", "patterns", "lazy")
    assert f"evidence: {'rigorous' if rigorous else 'proof' if engine == 'exact' else 'solver'}" in out


@pytest.mark.parametrize("engine", ["auto", "lazy", "glucose", "cadical", pytest.param("exact", marks=EXACT)])
def test_proofs_are_kept_and_accepted_again(folder: Path, engine: str, tmp_path: Path) -> None:
    proof, question = tmp_path / "p.txt", (folder / "bnn.onnx", folder / "unsat.vnnlib")
    code, out, _ = run(*question, "--engine", engine, "--proof", proof, "--timeout", 60)
    assert code == 0
    assert "evidence: proof" in out
    code, out, err = run("check-proof", proof, *question, "--export", tmp_path)
    assert (code, out.splitlines()[0]) == (0, "accepted"), err
    exported = {path.suffix for path in tmp_path.glob("box1.*")}
    assert exported == {"auto": set(), "exact": {".opb", ".pbp"}}.get(engine, {".cnf", ".drat"})
    code, _, err = run("check-proof", proof, folder / "bnn.onnx", folder / "sat.vnnlib")
    assert code == 2
    assert "another" in err or "no section" in err


def test_trust_rigorous_accepts_a_proof_and_refuses_a_solvers_word(folder: Path, tmp_path: Path) -> None:
    question = (folder / "bnn.onnx", folder / "unsat.vnnlib", "--trust", "rigorous", "--timeout", 60)
    _, out, _ = run(*question, "--engine", "glucose")
    assert out.splitlines()[0] == "unknown"
    _, out, _ = run(*question, "--engine", "glucose", "--proof", tmp_path / "p")
    assert out.splitlines()[0] == "unsat"


def test_sat_with_all_files(folder: Path, tmp_path: Path) -> None:
    picture, report = tmp_path / "c.png", tmp_path / "r.json"
    code, out, _ = run(folder / "bnn.onnx", folder / "sat.vnnlib", "--image", picture, "--json", report)
    assert (code, out.splitlines()[0]) == (0, "sat")
    from PIL import Image

    with Image.open(picture) as image:
        assert image.width > 4 * 250, "four panels: original, counterexample, difference, levels"
    document = json.loads(report.read_text())
    assert document["verdict"] == "sat"
    assert len(document["witness"]["x"]) == N_INPUTS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "chess"), "use one of auto, patterns, lazy, cp-sat"),
        (("--together", "some", "--model", "bnn.onnx"), "same, any, majority"),
        (("--model", "nowhere.onnx"), "nowhere.onnx"),
        (("--proof", "no/such/folder/p"), "does not exist"),
    ],
)
def test_bad_options_are_one_sentence(
    folder: Path, arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    code, out, err = run("bnn.onnx", "unsat.vnnlib", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_a_missing_package_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_engines, "find_spec", lambda name: None)
    code, _, err = run(folder / "bnn.onnx", folder / "unsat.vnnlib", "--engine", "cp-sat")
    assert code == 2
    assert "pip install 'nn-verifier[bnn]'" in err


def test_damaged_proofs_are_refused(folder: Path, tmp_path: Path) -> None:
    proof, question = tmp_path / "p.txt", (folder / "bnn.onnx", folder / "unsat.vnnlib")
    run(*question, "--proof", proof)
    text = proof.read_text()
    for damaged in (
        text.replace("section 0", "section 7"),
        text.replace("tabulate 1", "tabulate 2"),
        "hello",
        text[:-5],
    ):
        proof.write_text(damaged if damaged != text else text.replace("tabulate", "tabulate 1"))
        code, out, err = run("check-proof", proof, *question)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")


def test_a_network_that_is_neither_hears_both_reasons(tmp_path: Path) -> None:
    from support.onnx_models import make, node

    model = make([node("Sign", ["x"], ["s"]), node("Exp", ["s"], ["y"])], (1, 2))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "s.vnnlib").write_text("(declare-const X_0 Real)")
    code, _, err = run(tmp_path / "m.onnx", tmp_path / "s.vnnlib")
    assert code == 2
    assert "Exp" in err
    assert "binarised" in err
