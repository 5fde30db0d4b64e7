"""The digits benchmark that ships with the project: complete, consistent and small."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from verifier.model.read import load
from verifier.vnnlib.read import read

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "digits"
LIMIT = 500_000


def instances() -> list[tuple[str, str, float]]:
    with (FOLDER / "instances.csv").open(newline="") as file:
        return [(onnx, vnnlib, float(seconds)) for onnx, vnnlib, seconds in csv.reader(file)]


def images() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / "images.npz", allow_pickle=False) as stored:
        return stored["images"], stored["labels"]


def test_instances_name_files_that_exist() -> None:
    rows = instances()
    assert len(set(rows)) == len(rows) >= 40
    for onnx, vnnlib, seconds in rows:
        assert not Path(onnx).is_absolute()
        assert (FOLDER / onnx).is_file()
        assert (FOLDER / vnnlib).is_file()
        assert seconds > 0
    named = {FOLDER / vnnlib for _, vnnlib, _ in rows}
    assert named == {*FOLDER.glob("*.vnnlib"), *FOLDER.glob("vnnlib/*")}


def test_everything_committed_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if "__pycache__" not in file.parts) < LIMIT


@pytest.mark.parametrize(("name", "shape"), [("mlp", (1, 64)), ("conv", (1, 1, 8, 8))])
def test_networks_classify_the_images(name: str, shape: tuple[int, ...]) -> None:
    model = load(FOLDER / "onnx" / f"{name}.onnx")
    assert model.network.input_shape == shape
    for image, label in zip(*images(), strict=True):
        assert model.replay.run(image.astype(np.float64)).argmax() == label


def test_properties_are_boxes_around_the_images() -> None:
    known, labels = images()
    for file in FOLDER.glob("vnnlib/*"):
        _, number, _, epsilon = file.stem.split("_")
        spec = read(file)
        assert (spec.n_inputs, spec.n_outputs, len(spec.disjuncts)) == (64, 10, 9)
        image, label = known[int(number)].astype(np.float64), labels[int(number)]
        for disjunct in spec.disjuncts:
            for side, change in ((disjunct.lower, -float(epsilon)), (disjunct.upper, float(epsilon))):
                np.testing.assert_allclose(side, np.clip(image + change, 0, 1), atol=1e-15)
            assert disjunct.constraints.outputs[0, label] == 1


def test_pixels_are_sixteenths() -> None:
    known, labels = images()
    assert known.shape == (20, 64)
    assert known.dtype == np.float32
    assert (known * 16 == np.rint(known * 16)).all()
    assert labels.tolist() == [digit for digit in range(10) for _ in range(2)]
