"""Several binarised networks taken together, against onnxruntime on every combination of levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.binarised_models import enumerate_points, tiny_network
from verifier.binarised import pipeline
from verifier.binarised.query import BinarisedModel
from verifier.binarised.read import load_binarised
from verifier.binarised.together import WAYS, Ensemble
from verifier.deadline import Deadline
from verifier.errors import ModelError, OptionError
from verifier.verdict import Verdict
from verifier.vnnlib.robustness import robustness

N_INPUTS, N_OUTPUTS = 3, 3


def networks(seed: int, folder: Path, count: int = 3) -> list[BinarisedModel]:
    """Networks with one quantiser and one to three layers."""
    models = []
    for number in range(count):
        path = folder / f"{seed}_{number}.onnx"
        path.write_bytes(tiny_network(100 * seed + number, N_INPUTS, N_OUTPUTS))
        model, reason = load_binarised(path)
        assert model is not None, reason
        models.append(model)
    return models


def fooled(models: list[BinarisedModel], label: int, points: np.ndarray, way: str) -> bool:
    """By definition, on all points."""
    outputs = np.stack([model.replay.run_batch(points) for model in models], axis=1)
    wrong = outputs >= outputs[..., label : label + 1]
    wrong[..., label] = False
    if way == "same":
        return bool(wrong.all(axis=1).any())
    needed = len(models) if way == "any" else len(models) // 2 + 1
    return bool((wrong.any(axis=2).sum(axis=1) >= needed).any())


@pytest.mark.parametrize("way", WAYS)
def test_verdicts(way: str, tmp_path: Path) -> None:
    seen = {Verdict.SAT: 0, Verdict.UNSAT: 0}
    for seed in range(14):
        models = networks(seed, tmp_path)
        rng = np.random.default_rng(seed)
        x = rng.random(N_INPUTS).round(2)
        label = int(models[0].replay.run(x).argmax())
        spec = robustness(x, epsilon=0.12, label=label, n_outputs=N_OUTPUTS)
        points = enumerate_points(spec.disjuncts[0].lower, spec.disjuncts[0].upper)
        expected = fooled(models, label, points, way)
        options = pipeline.Options(engine="patterns")
        result, query = pipeline.solve_all(Ensemble(models).queries(spec, way), Deadline.after(20), options)
        assert result.verdict is (Verdict.SAT if expected else Verdict.UNSAT), f"seed {seed}: {result}"
        if result.witness is not None:
            assert fooled(models, label, result.witness.x[None], way)
            assert query.spec.holds_exactly(result.witness.x, result.witness.y)
        seen[result.verdict] += 1
    assert min(seen.values()) > 1


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    models = networks(1, tmp_path)
    spec = robustness(np.full(N_INPUTS, 0.5), epsilon=0.1, label=0, n_outputs=N_OUTPUTS)
    with pytest.raises(OptionError, match="same, any, majority"):
        next(Ensemble(models).queries(spec, "all"))
    path = tmp_path / "other.onnx"
    path.write_bytes(tiny_network(5, N_INPUTS, N_OUTPUTS, step=0.3))
    other, _ = load_binarised(path)
    assert other is not None
    with pytest.raises(ModelError, match="quantises"):
        next(Ensemble([models[0], other]).queries(spec, "same"))
    path.write_bytes(tiny_network(5, N_INPUTS + 1, N_OUTPUTS))
    other, _ = load_binarised(path)
    assert other is not None
    with pytest.raises(ModelError, match="shape"):
        Ensemble([models[0], other])
