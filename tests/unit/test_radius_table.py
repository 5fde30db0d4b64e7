"""Many inputs: the table, its CSV and curves, several processes, Ctrl-C, and ``verify radius``."""

from __future__ import annotations

import csv
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import verifier
from package_map import ROOT
from support.watches import EXIT_CODE, DieOnce
from verifier.cli import app
from verifier.errors import InputError, OptionError, OutputPathError, SoundnessError
from verifier.radius import batch, entry
from verifier.radius.record import Radius
from verifier.radius.rows import COLUMNS
from verifier.verdict import EvidenceLevel

MODEL = ROOT / "benchmarks" / "digits" / "onnx" / "mlp.onnx"
DATA = ROOT / "benchmarks" / "digits" / "images.npz"
OTHER = ROOT / "benchmarks" / "digits" / "onnx" / "conv.onnx"


@pytest.fixture(scope="module")
def images():
    loaded = np.load(DATA)
    return loaded["images"][:4], loaded["labels"][:4]


@pytest.fixture(scope="module")
def table(images):
    inputs, labels = images
    wrong = labels.copy()
    wrong[1] = (wrong[1] + 1) % 10
    return verifier.certified_radii(MODEL, inputs, wrong, norm="l0", indices=[10, 11, 12, 13], timeout=30)


def test_rows_and_frame(table, images):
    assert len(table) == 4
    assert table[0].label == images[1][0]
    frame = table.frame()
    assert list(frame.index) == [10, 11, 12, 13]
    assert list(frame.columns) == [name for name in COLUMNS if name != "index"]
    assert frame["correct"].tolist() == [True, False, True, True]
    assert frame.loc[11, "adversarial"] == 0
    pd.testing.assert_frame_equal(pd.DataFrame(table.records).set_index("index"), frame)


def test_csv(table, tmp_path):
    table.to_csv(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == [10, 11, 12, 13]
    assert [float(row["certified"]) for row in rows] == [found.certified for found in table]
    with pytest.raises(OutputPathError):
        table.to_csv(tmp_path / "missing" / "out.csv")


def test_accuracy_curves(table):
    distances = np.array([0.0, 0.5, 1.0, 2.0, 50.0])
    certified, adversarial = table.accuracy(distances)
    assert certified[0] == adversarial[0] == 0.75  # one is misclassified
    assert (certified <= adversarial).all()
    assert (np.diff(certified) <= 0).all()
    assert (np.diff(adversarial) <= 0).all()
    right = [found for found in table if found.adversarial > 0]
    assert certified[2] == sum(found.certified >= 1 for found in right) / 4
    assert adversarial[2] == sum(found.adversarial > 1 for found in right) / 4


def test_whole_distances_leave_nothing_open_between_them(table):
    assert all(found.closed for found in table)
    certified, adversarial = table.accuracy(np.linspace(0, 6, 61))
    assert np.array_equal(certified, adversarial)
    weighted = Radius(1.0, 2.0, None, 0, 1, "l0", EvidenceLevel.RIGOROUS, "the time ran out", 0.0, ())
    assert weighted.gap == 1.0  # weights such as 1.5 allow a distance in between
    certified, adversarial = verifier.RadiusTable((0,), (0,), (weighted,), ("",)).accuracy([1.0, 1.5, 2.0])
    assert certified.tolist() == [1, 0, 0]
    assert adversarial.tolist() == [1, 1, 0]


def test_processes_give_the_same(images):
    inputs, labels = images
    seen = []
    shared = verifier.certified_radii(
        MODEL, inputs, labels, norm="l0", timeout=30, jobs=2, each=lambda place, found: seen.append(place)
    )
    alone = verifier.certified_radii(MODEL, inputs, labels, norm="l0", timeout=30)
    assert sorted(seen) == [0, 1, 2, 3]
    assert [f.certified for f in shared] == [f.certified for f in alone]
    assert [f.adversarial for f in shared] == [f.adversarial for f in alone]


def test_ctrl_c_keeps_what_is_known(images):
    inputs, labels = images

    def stop(place, found):
        if place == 1:
            raise KeyboardInterrupt

    table = verifier.certified_radii(MODEL, inputs, labels, norm="l0", timeout=30, each=stop)
    assert len(table) == 4
    assert table[0].closed
    assert [found.reason for found in table][2:] == ["interrupted", "interrupted"]
    assert table[3].certified == 0
    assert table[3].adversarial == math.inf


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_that_is_cut_off_leaves_its_rows_and_goes_on(images, tmp_path):
    inputs, labels = images
    path = tmp_path / "radii.csv"
    seen = []

    def stop(place, found):
        seen.append([row["index"] for row in rows_of(path)])
        if place == 1:
            raise RuntimeError("as a kill would")

    with pytest.raises(RuntimeError):
        verifier.certified_radii(MODEL, inputs, labels, norm="l0", csv=path, each=stop)
    assert seen == [["0"], ["0", "1"]]
    path.write_text(path.read_text() + "2,7,7,Tr")  # cut off in the middle of a row

    known = verifier.RadiusTable.read_csv(path)
    assert known.indices == (0, 1)
    ran = []
    table = verifier.certified_radii(
        MODEL, inputs[:3], labels[:3], norm="l0", csv=path, known=known, each=lambda place, found: ran.append(place)
    )
    assert ran == [2]
    whole = verifier.certified_radii(MODEL, inputs[:3], labels[:3], norm="l0")
    assert [(f.certified, f.adversarial) for f in table] == [(f.certified, f.adversarial) for f in whole]
    # Another part of the data set adds to the file.
    verifier.certified_radii(
        MODEL, inputs[3:], labels[3:], indices=[3], norm="l0", csv=path, known=verifier.RadiusTable.read_csv(path)
    )
    assert [row["index"] for row in rows_of(path)] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"norm": "l1"},
        {"labels": [0, 0, 0, 0]},
        {"target": 7},
        {"bounds": (0, 2)},
        {"weights": np.full(64, 2.0)},
        {"fixed": np.arange(64) < 5},
        {"group": np.arange(64) // 2},
        {"tolerance": 0.5},
        {"network": OTHER},
        {"shift": 1 / 16},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_rows_that_answer_another_question_are_refused(table, images, tmp_path, arguments):
    """Whatever is asked differently, a number that was proved for something else is not taken for an answer."""
    table.to_csv(tmp_path / "radii.csv")
    known = verifier.RadiusTable.read_csv(tmp_path / "radii.csv")
    assert known.records == table.records
    inputs, labels = images[0], [found.label for found in table]
    asked = {"network": MODEL, "norm": "l0", "labels": labels, "indices": [10, 11, 12, 13], "known": known}
    same = verifier.certified_radii(inputs=inputs, **asked)
    assert same.records == table.records
    shift = arguments.get("shift", 0.0)
    changed = {**asked, **{name: value for name, value in arguments.items() if name != "shift"}}
    with pytest.raises(OptionError, match=r"input 1[0-3] answers another question"):
        verifier.certified_radii(inputs=np.clip(inputs + shift, 0, 1), **changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        f"{','.join(COLUMNS)}\n1,2,x\n",
        # One value short, and one too many.
        f"{','.join(COLUMNS)}\n0,0,0,True,l0,1.0,2.0,0.0,5,rigorous,0.1,ab\n",
        f"{','.join(COLUMNS)}\n0,0,0,True,l0,1.0,2.0,0.0,5,rigorous,0.1,ab,,\n",
    ],
)
def test_a_file_that_is_no_table_of_radii(text, tmp_path):
    (tmp_path / "radii.csv").write_text(text)
    with pytest.raises(InputError, match="table of radii"):
        verifier.RadiusTable.read_csv(tmp_path / "radii.csv")


def test_a_process_that_dies_costs_one_input(images, tmp_path):
    inputs, labels = images
    path = tmp_path / "radii.csv"
    table = verifier.certified_radii(
        MODEL, inputs, labels, norm="l0", timeout=30, jobs=2, watch=DieOnce(tmp_path / "died"), csv=path
    )
    (lost,) = [k for k, found in enumerate(table) if not found.closed]
    assert f"exit code {EXIT_CODE}" in table[lost].reason
    assert (table[lost].certified, table[lost].adversarial) == (0, math.inf)
    assert len(table.defects) == 1
    # Those that have a result are not run again.
    ran = []
    again = verifier.certified_radii(
        MODEL, inputs, labels, norm="l0", known=verifier.RadiusTable.read_csv(path), each=lambda k, found: ran.append(k)
    )
    assert ran == [lost]
    assert all(found.closed for found in again)


def test_a_defect_costs_one_input(images, monkeypatch):
    inputs, labels = images

    def flawed(model, x, label, **options):
        if (x == inputs[1]).all():
            raise SoundnessError("two numbers\ncontradict each other")
        return entry.certified_radius(model, x, label, **options)

    monkeypatch.setattr(batch, "certified_radius", flawed)
    table = verifier.certified_radii(MODEL, inputs, labels, norm="l0", timeout=30)
    assert [found.closed for found in table] == [True, False, True, True]
    assert table[1].reason == "failed: SoundnessError: two numbers contradict each other"
    assert "input 1:" in table.defects[0]
    assert "in flawed" in table.defects[0]
    result = run(MODEL, DATA, "--index", "0:3", "--norm", "l0")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "3 inputs, 0 misclassified, gap closed on 2" in result.stdout


def test_a_question_that_is_refused_is_refused_at_once(images):
    inputs, labels = images
    wrong = inputs.copy()
    wrong[3, 0] = 2.0
    seen = []
    with pytest.raises(OptionError, match=r"input 3: value 0 of the input, 2, lies outside"):
        verifier.certified_radii(MODEL, wrong, labels, norm="l0", each=lambda *found: seen.append(found))
    with pytest.raises(TypeError, match="epsilon"):
        verifier.certified_radii(MODEL, inputs, labels, epsilon=0.1, each=lambda *found: seen.append(found))
    assert not seen


def test_what_does_not_fit_is_refused(images):
    inputs, labels = images
    for arguments, words in (
        ({"labels": labels[:2]}, "2 labels for 4"),
        ({"indices": [1]}, "1 indices for 4"),
        ({"jobs": 0}, "at least 1"),
        ({"norm": "l7"}, "unknown norm"),
    ):
        with pytest.raises(OptionError, match=words):
            verifier.certified_radii(MODEL, inputs, **{"labels": labels, **arguments})
    with pytest.raises(OptionError, match="must count"):
        verifier.certified_radii(MODEL, inputs[0])
    with pytest.raises(OptionError, match="counts the inputs"):
        verifier.certified_radii(MODEL, inputs[:, :10])
    module = verifier.load(nn.Linear(64, 10), torch.zeros(1, 64))
    with pytest.raises(OptionError, match="lies in a file"):
        verifier.certified_radii(module, inputs, jobs=2)


def run(*arguments):
    return CliRunner().invoke(app, ["radius", *map(str, arguments)])


def test_command(tmp_path):
    result = run(
        MODEL, DATA, "--index", "2:4", "--norm", "l2", "--timeout", 30, "--csv", tmp_path / "out.csv",
        "--plot", tmp_path / "curve.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["index", "label", "certified", "adversarial"]
    rows = [line.split() for line in lines[1:3]]
    assert [row[0] for row in rows] == ["2", "3"]
    with (tmp_path / "out.csv").open(newline="") as file:
        stored = list(csv.DictReader(file))
    for row, record in zip(rows, stored, strict=True):
        # Printed digits are rounded to the safe side.
        assert float(row[2]) <= float(record["certified"]) <= float(row[2]) + 1e-5
        assert float(row[3]) - 1e-5 <= float(record["adversarial"]) <= float(row[3])
    assert "2 inputs, 0 misclassified, gap closed on 2" in lines[3]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--norm", "l5"], "unknown norm"),
        (["--index", "99"], "there is no input 99"),
        (["--bounds", "a,b"], "two numbers"),
        (["--bounds", "0.9,1"], "outside the bounds"),
        (["--timeout", "0"], "positive"),
        (["--csv", "/nowhere/out.csv"], "does not exist"),
        (["--plot", "/nowhere/out.png"], "does not exist"),
        (["--target", "77"], "0 to 9"),
    ],
)
def test_command_refuses_in_one_sentence(arguments, words):
    result = run(MODEL, DATA, *(arguments if "--index" in arguments else ["--index", "0", *arguments]))
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")


def test_command_goes_on_with_a_file(tmp_path):
    path = tmp_path / "out.csv"
    first = run(MODEL, DATA, "--index", "0:2", "--norm", "l0", "--csv", path, "--resume")
    assert first.exit_code == 0, first.stderr
    second = run(MODEL, DATA, "--index", "1:3", "--norm", "l0", "--csv", path, "--resume")
    assert second.exit_code == 0, second.stderr
    assert [line.split()[0] for line in second.stdout.splitlines()[1:-2]] == ["2"]
    assert [row["index"] for row in rows_of(path)] == ["0", "1", "2"]
    refused = run(MODEL, DATA, "--index", "0", "--resume")
    assert refused.exit_code == 2
    assert "--csv" in refused.stderr


def test_command_refuses_an_unknown_ending_of_a_plot(tmp_path):
    result = run(MODEL, DATA, "--index", "2", "--norm", "l0", "--plot", tmp_path / "curve.docx")
    assert result.exit_code == 2
    assert ".png, .pdf or .svg" in result.stderr
