"""What a worker process does with one instance: verify it, and say everything the journal shall hold.

The models stay loaded from one instance to the next.  Whatever goes wrong in Python is caught and becomes an answer;
what kills the process is the business of the pool.

Importing this module imports torch and onnxruntime: only worker processes do.
"""

from __future__ import annotations

import time
import traceback
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verifier.api import prepare
from verifier.benchmarks.instances import file_digest
from verifier.benchmarks.job import Job
from verifier.benchmarks.machine import machine, versions
from verifier.benchmarks.record import Status, finite
from verifier.binarised import pipeline as binarised_pipeline
from verifier.binarised.query import BinarisedModel
from verifier.binarised.read import load_binarised
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.model.read import Model, load
from verifier.options import Trust, check_device, limit_threads
from verifier.pipeline import Options, solve
from verifier.progress import Progress
from verifier.query import Query
from verifier.report.layout import image_layout
from verifier.report.original import recover_original
from verifier.report.words import describe
from verifier.verdict import Result, Witness
from verifier.vnnlib.read import read

KEPT_MODEL_BYTES = 2**28
"""Of model files: beyond it the model that was not used for longest is dropped."""
BARS = 64
"""Of inputs that are no picture, so many have their bounds kept for the report."""


class VerifyWork:
    """Call it with a job: what is to be recorded, as plain data.  One per worker process."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, int, int], tuple[Model | BinarisedModel, str]] = OrderedDict()
        machine(), versions()

    def __call__(self, job: Job, progress: Progress) -> dict[str, Any]:
        started = time.monotonic()
        deadline = Deadline.after(job.timeout)
        found: dict[str, Any] = {}
        try:
            self._answer(job, deadline, progress, found)
        except InputError as error:
            found |= {"status": Status.ERROR, "message": " ".join(str(error).split())}
        except Exception as error:
            memory = out_of_memory(error)
            status = Status.MEMORY if memory else Status.ERROR
            found |= {"status": status, "message": _sentence(error), "traceback": traceback.format_exc()}
            if memory:
                self._models.clear()
        found["seconds"] = time.monotonic() - started
        return found | {"machine": machine(), "versions": versions()}

    def _answer(self, job: Job, deadline: Deadline, progress: Progress, found: dict[str, Any]) -> None:
        check_device(job.device)
        limit_threads(job.threads)
        model, digest = self._model(Path(job.onnx_path))
        found["files"] = {"onnx": digest}
        if model.sha256 != digest:
            found["files"]["onnx_with_external_data"] = model.sha256
        path = Path(job.vnnlib_path)
        spec = read(path)
        found["files"]["vnnlib"] = file_digest(path)
        found["asked"] = asdict(describe(spec, model.network.input_shape))
        query: Query | binarised_pipeline.Query
        if isinstance(model, BinarisedModel):
            query = binarised_pipeline.prepare(model, spec)
            own = binarised_pipeline.Options(threads=job.threads, seed=job.seed, trust=Trust(job.trust))
            result = binarised_pipeline.solve(query, deadline, own, progress)
        else:
            query = prepare(model, spec, job.seed)
            options = Options(device=job.device, threads=job.threads, seed=job.seed, trust=Trust(job.trust))
            result = solve(query, deadline, options, progress)
        found |= answer(result)
        if result.witness is not None:
            found["witness"] = picture_data(query, result.witness)

    def _model(self, path: Path) -> tuple[Model | BinarisedModel, str]:
        """The model and the digest of its file."""
        state = path.stat() if path.exists() else None
        key = (str(path), state.st_mtime_ns, state.st_size) if state else (str(path), 0, 0)
        if key not in self._models:
            binarised, reason = load_binarised(path)
            self._models[key] = binarised or load(path, hint=reason), file_digest(path)
        self._models.move_to_end(key)
        while len(self._models) > 1 and sum(size for _, _, size in self._models) > KEPT_MODEL_BYTES:
            self._models.popitem(last=False)
        return self._models[key]


def answer(result: Result) -> dict[str, Any]:
    """The parts of a result that a record holds, the witness left out."""
    evidence = result.evidence
    return {
        "status": Status(result.verdict),
        "message": result.message,
        "evidence": evidence and {"level": str(evidence.level), "methods": list(evidence.methods)},
        "bounds": [
            {
                "lower": finite(bound.lower),
                "upper": finite(bound.upper),
                "closed_by": bound.closed_by or None,
                "level": bound.level and str(bound.level),
            }
            for bound in result.bounds
        ],
        "stages": result.statistics.stages,
        "counts": result.statistics.counts,
    }


def picture_data(query: Query | binarised_pipeline.Query, witness: Witness) -> dict[str, Any]:
    """The counterexample, and the point its box was drawn around, each with the model's own outputs."""
    disjunct = query.disjuncts[witness.disjunct]
    shape = query.network.input_shape
    guess = recover_original(disjunct.lower, disjunct.upper, shape)
    original = query.replay.representable(guess, disjunct.lower, disjunct.upper)
    found: dict[str, Any] = {
        "x": witness.x.tolist(),
        "y": witness.y.tolist(),
        "disjunct": witness.disjunct,
        "margin": finite(witness.margin),
        "shape": list(shape),
        "original_x": original.tolist(),
        "original_y": [finite(value) for value in query.replay.run(original).tolist()],
    }
    if image_layout(shape) is None and len(witness.x) <= BARS:
        found |= {"lower": disjunct.lower.tolist(), "upper": disjunct.upper.tolist()}
    return found


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory ran out; torch and onnxruntime have no class for it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in text for words in ("out of memory", "can't allocate memory", "bad_alloc", "failed to allocate")
    )


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or ("memory ran out" if isinstance(error, MemoryError) else "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
