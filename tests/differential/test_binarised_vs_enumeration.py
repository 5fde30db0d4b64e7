"""Binarised networks against onnxruntime on every combination of input levels.

Random tiny networks in all idioms: the integer form has to reproduce onnxruntime's outputs, and the whole pipeline its
verdict.  A network may be refused where rounding decides a threshold, never answered wrongly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.binarised_models import Case, enumerate_points, random_case
from verifier.binarised import pipeline
from verifier.binarised.query import BinarisedModel, Query
from verifier.binarised.read import load_binarised
from verifier.deadline import Deadline
from verifier.errors import SpecError
from verifier.verdict import Verdict

BLOCKS, PER_BLOCK = 8, 25


def loaded(model: bytes, folder: Path) -> BinarisedModel | None:
    path = folder / "model.onnx"
    path.write_bytes(model)
    found, reason = load_binarised(path)
    accepted = ("rounding decides", "a layer that is constant")
    assert found is not None or any(part in reason for part in accepted), reason
    return found


def prepared(model: BinarisedModel, case: Case) -> Query | None:
    """None where a box spans -1, 0 and 1 unequally, which is refused."""
    try:
        return pipeline.prepare(model, case.spec)
    except SpecError as error:
        if "equally spaced" in str(error):
            return None
        raise


@pytest.mark.parametrize("block", range(BLOCKS))
def test_verdicts_and_outputs(block: int, tmp_path: Path) -> None:
    decided = {Verdict.SAT: 0, Verdict.UNSAT: 0}
    for seed in range(block * PER_BLOCK, (block + 1) * PER_BLOCK):
        case = random_case(seed)
        model = loaded(case.model, tmp_path)
        if model is None:
            continue
        points = enumerate_points(case.spec.disjuncts[0].lower, case.spec.disjuncts[0].upper)
        outputs = model.replay.run_batch(points)
        expected = any(case.spec.holds_exactly(x, y) for x, y in zip(points, outputs, strict=True))
        quantiser = model.network.quantiser
        assert quantiser is not None
        levels = np.stack([quantiser(x) for x in points]).astype(np.int64)
        own = np.stack([model.network.outputs.values(bits) for bits in model.network.hidden(levels)[-1]])
        np.testing.assert_allclose(own, outputs, rtol=1e-5, atol=1e-5, err_msg=f"seed {seed}, {case.steps}")
        query = prepared(model, case)
        if query is None:
            continue
        result = pipeline.solve(query, Deadline.after(20), pipeline.Options(engine="patterns"))
        if "only rounding separates" in result.message:
            assert not expected
            continue
        assert result.verdict is (Verdict.SAT if expected else Verdict.UNSAT), f"seed {seed}, {case.steps}: {result}"
        decided[result.verdict] += 1
        if result.witness is not None:
            assert case.spec.holds_exactly(result.witness.x, model.replay.run(result.witness.x))
    assert min(decided.values()) > 2, "the cases have to be of both kinds"
